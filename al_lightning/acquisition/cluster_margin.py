"""Cluster-Margin: the least certain rows, spread over clusters.

Shape suffixes: N pool rows, K posterior samples, C classes, G clusters, Q candidates, D embedding
dimensions.
"""

import math

from torch import Generator, Tensor

from al_lightning.acquisition.checks import checked_embeddings, checked_lengths, checked_num
from al_lightning.acquisition.clustering import fit_centres, round_robin
from al_lightning.acquisition.distances import nearest_squared
from al_lightning.acquisition.scores import margin
from al_lightning.acquisition.top_k import top_k


def cluster_margin(
    probs: Tensor,
    embeddings: Tensor,
    num: int,
    generator: Generator,
    *,
    candidate_factor: float = 10.0,
) -> Tensor:
    """Take ``num`` of the ``candidate_factor * num`` rows of least margin, spread over clusters.

    The clusters take turns, from the one with the fewest candidates to the one with the most. Each
    gives its candidate of least margin, until ``num`` are taken.

    Two things differ from the paper. It cuts the pool into clusters by average-linkage
    agglomeration, which needs all N^2 / 2 distances. Here k-means with ``num`` centres, fitted to
    a sample of the pool, takes its place, so that time is linear in N; only candidates are assigned
    to centres, since no other row counts. The paper draws a cluster's candidate at random; here it
    is the least certain.

    Args:
        probs: (N, C), or (N, K, C), which is averaged over its K samples first.
        embeddings: (N, D) finite embeddings of the same rows.
        num: Number of rows to take; all when it is above N.
        generator: Source of the sample and of the first centres.
        candidate_factor: Candidates per row to take, at least 1; the paper has 1.25 to 10. With 1
            the rows are those of :func:`margin` alone.

    Returns:
        positions (min(num, N),), int64, on the device of the probabilities, in the order taken.

    Raises:
        ValueError: for ``num`` or ``candidate_factor`` < 1, an empty pool, rows of ``probs`` that
            are no distributions, embeddings that are not finite (N, D), or different lengths.

    References:
        Citovsky et al. 2021, arXiv:2107.14263; k_m is our candidates.

    >>> import torch
    >>> probs = torch.tensor([[0.5, 0.5], [0.51, 0.49], [0.52, 0.48], [0.6, 0.4], [1.0, 0.0]])
    >>> embeddings = torch.tensor([[0.0], [0.1], [0.2], [9.0], [9.1]])
    >>> cluster_margin(probs, embeddings, 2, torch.Generator().manual_seed(0), candidate_factor=2)
    tensor([3, 0])
    """
    embeddings_ND = checked_embeddings(embeddings)
    num = checked_num(num, len(embeddings_ND))
    checked_lengths(probs=len(probs), embeddings=len(embeddings_ND))
    if not 1 <= candidate_factor < math.inf:
        raise ValueError(
            f"candidate_factor must be at least 1 and finite, got {candidate_factor}; "
            "the paper has 1.25 to 10"
        )
    candidates_Q = top_k(margin(probs), math.ceil(candidate_factor * num))  # least certain first
    centres_GD = fit_centres([embeddings_ND], num, generator=generator)
    _, clusters_Q = nearest_squared(embeddings_ND[candidates_Q], centres_GD)
    smallest_first_G = clusters_Q.bincount(minlength=len(centres_GD)).argsort(stable=True)
    return candidates_Q[round_robin(clusters_Q, smallest_first_G, num)]
