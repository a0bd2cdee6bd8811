"""Checks of the input, before anything is computed."""

import torch
from torch import Tensor

# Softmax in half precision misses 1 by up to 4e-3; logits miss it by far more.
SUM_TOLERANCE = 1e-2


def checked_probs(probs: Tensor) -> Tensor:
    """Return ``probs`` unchanged when each row is a distribution over two or more classes.

    Args:
        probs: (N, C), or (N, K, C) with K posterior samples.

    Raises:
        ValueError: for another number of axes, fewer than two classes, negative or non-finite
            values, or rows that do not sum to one.
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


def checked_samples(probs_NKC: Tensor) -> Tensor:
    """Return ``probs_NKC`` unchanged when it holds distributions of posterior samples or members.

    Raises:
        ValueError: when it is not (N, K, C), or when :func:`checked_probs` raises it.
    """
    if probs_NKC.ndim != 3:
        raise ValueError(
            "probs must be (N, K, C), with K posterior samples or ensemble members, got "
            f"{tuple(probs_NKC.shape)}; predict with mc_samples above 1, or with an ensemble"
        )
    return checked_probs(probs_NKC)


def checked_embeddings(
    embeddings_ND: Tensor, name: str = "embeddings", like_ND: Tensor | None = None
) -> Tensor:
    """Return ``embeddings_ND`` unchanged when it is one finite vector a row.

    Args:
        embeddings_ND: (N, D), floating point.
        name: The name of the caller's argument.
        like_ND: When given, the embeddings must have its D, dtype and device.

    Raises:
        ValueError: for any other input; names the first rows that are not finite.
    """
    if embeddings_ND.ndim != 2 or embeddings_ND.shape[1] < 1:
        raise ValueError(f"{name} must be (N, D), got {tuple(embeddings_ND.shape)}; flatten it")
    if not embeddings_ND.is_floating_point():
        raise ValueError(f"{name} must be floating point, got {embeddings_ND.dtype}")
    # One pass without a table: a sum is finite unless a summand is not, or it overflows.
    if not embeddings_ND.sum(-1).isfinite().all():
        bad = (~embeddings_ND.isfinite().all(-1)).nonzero()[:, 0]
        raise ValueError(
            f"{name} must be finite and of a size that can be summed, found {len(bad)} rows with "
            f"NaN or infinity, first at {bad[:5].tolist()}; look for NaN in the model's outputs"
        )
    ours, theirs = (
        f"D={table.shape[1]}, {table.dtype}, {table.device}"
        for table in (embeddings_ND, embeddings_ND if like_ND is None else like_ND)
    )
    if ours != theirs:
        raise ValueError(f"{name} must match the other embeddings, got {ours} against {theirs}")
    return embeddings_ND


def checked_lengths(**lengths: int) -> None:
    """Raise ValueError unless all arguments have the same number of rows."""
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(f"each row of the pool needs one of each, got lengths {found}")


def checked_scores(scores_N: Tensor) -> Tensor:
    """Return ``scores_N`` unchanged when it is one finite number a row.

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
    """Return how many rows to take: ``num``, or the whole pool where that is smaller.

    Raises:
        ValueError: when ``num`` is below 1, or the pool is empty.
    """
    if num < 1:
        raise ValueError(f"num must be at least 1, got {num}")
    if pool_size < 1:
        raise ValueError("the pool must hold at least one row to choose from, got none")
    return min(num, pool_size)
