"""What every function here asks of its input before it computes anything."""

import torch
from torch import Tensor

# Softmax in half precision misses 1 by up to 4e-3; logits miss it by far more.
SUM_TOLERANCE = 1e-2


def checked_probs(probs: Tensor) -> Tensor:
    """Returns ``probs`` unchanged when each row is a distribution over two or more classes.

    Args:
        probs: (N, C), or (N, K, C) with K posterior samples.

    Raises:
        ValueError: on another rank, fewer than two classes, negative or non-finite values, or rows
            that do not sum to one.
    """
    if probs.ndim not in (2, 3) or probs.shape[-1] < 2:
        raise ValueError(
            f"probs must be (N, C) or (N, K, C) with C >= 2 classes, got {tuple(probs.shape)}"
        )
    if not probs.is_floating_point():
        raise ValueError(f"probs must be floating point, got {probs.dtype}")
    off = (probs.sum(-1) - 1).abs()
    if not ((off <= SUM_TOLERANCE).all() and (probs >= 0).all()):  # phrased so that NaN fails too
        raise ValueError(
            "probs must be non-negative and sum to 1 over the last axis, found a sum off by "
            f"{off.max().item():.3g} and a least value of {probs.min().item():.3g}; "
            "pass logits.softmax(-1), not logits"
        )
    return probs


def checked_scores(scores_N: Tensor) -> Tensor:
    """Returns ``scores_N`` unchanged when it is one finite number a row.

    Raises:
        ValueError: when it is not one-dimensional, or holds NaN or infinity; names the positions.
    """
    if scores_N.ndim != 1:
        raise ValueError(f"scores must be (N,), got {tuple(scores_N.shape)}")
    bad = (~torch.isfinite(scores_N)).nonzero()[:, 0]
    if len(bad):
        raise ValueError(
            f"scores must be finite, found {len(bad)} that are not, first at {bad[:5].tolist()}; "
            "look for NaN in the model's outputs"
        )
    return scores_N


def checked_num(num: int, pool_size: int) -> int:
    """Returns how many rows to take: ``num``, or the whole pool where that is smaller.

    Raises:
        ValueError: when ``num`` is below 1.
    """
    if num < 1:
        raise ValueError(f"num must be at least 1, got {num}")
    return min(num, pool_size)
