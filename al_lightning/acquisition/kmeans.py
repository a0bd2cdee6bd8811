"""One row from the middle of each k-means cluster: a batch that covers the pool.

Shape suffixes: N pool rows, M labeled rows, G clusters, D embedding dimensions.
"""

from torch import Generator, Tensor

from al_lightning.acquisition.checks import checked_embeddings, checked_num
from al_lightning.acquisition.clustering import fit_centres, round_robin
from al_lightning.acquisition.distances import nearest_squared


def kmeans(embeddings: Tensor, labeled: Tensor, num: int, generator: Generator) -> Tensor:
    """Take the row nearest to each of ``num`` k-means centres of the pool, largest cluster first.

    When there are fewer clusters than ``num`` (few distinct rows, or a centre without rows) the
    round begins again: the second nearest row of the largest cluster, and so on. Centres are fitted
    to a sample of 32,768 rows, see :mod:`al_lightning.acquisition.clustering`. Time is linear in N.

    Args:
        embeddings: (N, D) finite embeddings of the pool.
        labeled: (M, D), checked but not used. The paper clusters only rows without a label; the
            argument is here so that all selectors on embeddings are called alike.
        num: Number of rows to take; all when it is above N.
        generator: Source of the sample and of the first centres.

    Returns:
        positions (min(num, N),), int64, on the device of the embeddings, largest cluster first.

    Raises:
        ValueError: for ``num`` < 1, an empty pool, or embeddings that are not finite (N, D).

    References:
        Zhdanov 2019, arXiv:1901.05954, Algorithm 1 without informativeness as weights or filter.

    >>> import torch
    >>> pool = torch.tensor([[0.0], [0.1], [0.2], [5.0]])
    >>> kmeans(pool, pool[:0], 2, torch.Generator().manual_seed(0))
    tensor([1, 3])
    """
    embeddings_ND = checked_embeddings(embeddings)
    checked_embeddings(labeled, "labeled", like_ND=embeddings_ND)
    num = checked_num(num, len(embeddings_ND))
    centres_GD = fit_centres([embeddings_ND], num, generator=generator)
    squared_N, clusters_N = nearest_squared(embeddings_ND, centres_GD)
    nearest_first_N = squared_N.argsort(stable=True)
    sizes_G = clusters_N.bincount(minlength=len(centres_GD))
    largest_first_G = sizes_G.argsort(descending=True, stable=True)
    return nearest_first_N[round_robin(clusters_N[nearest_first_N], largest_first_G, num)]
