"""EPIG: how much a label would tell about the predictions that matter.

Shape suffixes: N rows, T target rows, K posterior samples, C classes; lower case: one chunk.
"""

import torch
from torch import Tensor
from torch.special import entr

from al_lightning.acquisition.checks import checked_samples

MAX_ELEMENTS = 4_000_000
"""Numbers in the joint table of one chunk: 16 MB in float32 stays near the processor."""


def epig(probs: Tensor, target_probs: Tensor) -> Tensor:
    """Return the expected predictive information gain, ``mean_t I(y; y*_t)`` over target rows t.

    BALD measures what a label tells about the weights. EPIG measures what it tells about the
    predictions for the target rows, so rows that are only unusual score low.

    Args:
        probs: (N, K, C), K posterior samples for each row.
        target_probs: (T, K, C), the same K samples at rows like those that the model will be used
            for.

    Returns:
        scores_N in nats, ``[0, log C]``, float32 or wider.

    Raises:
        ValueError: unless both are (·, K, C) with equal K and C, every row is a distribution, and
            there is a target.

    References:
        Bickford Smith et al. 2023, arXiv:2304.08151, with the joint
        ``p(y, y*) = mean_k p_k(y) p_k(y*)``.

    >>> coin = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.5, 0.5]]])
    >>> epig(coin, coin[:1])  # the first row tells all about itself, the second nothing
    tensor([0.6931, 0.0000])
    """
    probs_NKC, target_probs_TKC = checked_samples(probs), checked_samples(target_probs)
    T, K, C = target_probs_TKC.shape
    if T < 1 or probs_NKC.shape[1:] != (K, C):
        raise ValueError(
            "target_probs must be (T, K, C) with T >= 1 and the K and C of probs, got "
            f"{tuple(target_probs_TKC.shape)} against {tuple(probs_NKC.shape)}; predict the "
            "targets with the same samples"
        )
    targets_KTC = target_probs_TKC.transpose(0, 1).reshape(K, T * C) / K
    target_entropy = entr(target_probs_TKC.mean(1)).sum(-1).mean()
    rows = max(1, MAX_ELEMENTS // (C * T * C))
    scores = [
        entr(probs_nKC.mean(1)).sum(-1) + target_entropy - _joint_entropy(probs_nKC, targets_KTC, T)
        for probs_nKC in torch.split(probs_NKC, rows)
    ]
    return torch.cat(scores).clamp_min(0)  # rounding can reach -1e-6


def _joint_entropy(probs_nKC: Tensor, targets_KTC: Tensor, num_targets: int) -> Tensor:
    """Return the entropy of ``(y, y*_t)``, averaged over the targets, (n,)."""
    n, K, C = probs_nKC.shape
    joint = probs_nKC.transpose(1, 2).reshape(n * C, K) @ targets_KTC  # (n C, T C)
    entropy_n: Tensor = entr(joint).view(n, C * joint.shape[1]).sum(-1) / num_targets
    return entropy_n
