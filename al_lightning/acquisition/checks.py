"""Checks of the input, before anything is computed."""

import torch
from torch import Tensor

from al_lightning.acquisition.distances import wide, widened

WHOLE_NUMBERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
# Softmax in half precision misses 1 by up to 4e-3; logits miss it by far more.
SUM_TOLERANCE = 1e-2


def checked_probs(probs: Tensor) -> Tensor:
    """Return ``probs``, float32 or wider, when each row is a distribution over classes.

    Args:
        probs: (N, C), or (N, K, C) with K posterior samples; C >= 2.

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
    probs = widened(probs.detach())
    off = (probs.sum(-1) - 1).abs()
    if not ((off <= SUM_TOLERANCE).all() and (probs >= 0).all()):  # phrased so that NaN fails too
        raise ValueError(
            "probs must be non-negative and sum to 1 over the last axis, found a sum off by "
            f"{off.max().item():.3g} and a least value of {probs.min().item():.3g}; "
            "pass logits.softmax(-1), not logits"
        )
    return probs


def checked_samples(probs_NKC: Tensor) -> Tensor:
    """Return ``probs_NKC``, float32 or wider, when it holds distributions of samples or members.

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
    """Return ``embeddings_ND`` when it is one finite vector a row; whole numbers as float32.

    Args:
        embeddings_ND: (N, D), floating point or whole numbers.
        name: The name of the caller's argument.
        like_ND: When given, the embeddings must have its D, dtype and device.

    Raises:
        ValueError: for any other input; names the first rows that are not finite, or so large that
            squares of their distances overflow.
    """
    if embeddings_ND.ndim != 2 or embeddings_ND.shape[1] < 1:
        raise ValueError(f"{name} must be (N, D), got {tuple(embeddings_ND.shape)}; flatten it")
    if embeddings_ND.dtype in WHOLE_NUMBERS:
        embeddings_ND = embeddings_ND.to(torch.float32)
    if not embeddings_ND.is_floating_point():
        raise ValueError(f"{name} must be floating point, got {embeddings_ND.dtype}")
    embeddings_ND = embeddings_ND.detach()
    # One pass without a table; in half precision the squares would overflow.
    norms_N = torch.linalg.vector_norm(embeddings_ND, dim=-1, dtype=wide(embeddings_ND))
    if not (norms_N < torch.finfo(norms_N.dtype).max ** 0.5 / 4).all():
        bad = (~embeddings_ND.isfinite().all(-1)).nonzero()[:, 0]
        if len(bad):
            raise ValueError(
                f"{name} must be finite, found {len(bad)} rows with NaN or infinity, first at "
                f"{bad[:5].tolist()}; look for NaN in the model's outputs"
            )
        raise ValueError(
            f"{name} must be small enough for their squares to be summed, found a length of "
            f"{embeddings_ND.double().norm(dim=-1).max().item():.3g} in {norms_N.dtype}; scale "
            "them down, or pass float64"
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
    """Return ``scores_N``, without a gradient, when it is one finite number a row.

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
    return scores_N.detach()


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
