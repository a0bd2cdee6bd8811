"""Batches drawn by score instead of cut at the top: diversity at the price of a top-k."""

from typing import Literal, get_args

import torch
from torch import Generator, Tensor

from al_lightning.acquisition.checks import checked_num, checked_scores
from al_lightning.acquisition.draws import uniform
from al_lightning.acquisition.top_k import top_k

Kind = Literal["power", "softmax", "softrank"]


def stochastic(
    scores: Tensor, num: int, kind: Kind = "power", beta: float = 1.0, *, generator: Generator
) -> Tensor:
    """Draw ``num`` rows without replacement, likelier where the score is higher.

    The chance of a row to be next is proportional to ``score^beta`` (power), ``exp(beta score)``
    (softmax) or ``rank^-beta`` (softrank, where the highest score has rank 1). Adding Gumbel noise
    to the logarithm of that weight and taking the top is such a draw, in O(N).

    Args:
        scores: (N,) finite scores, higher = label sooner; non-negative for ``"power"``, where
            rows of score 0 come only after all others.
        num: Number of rows to take; all when it is above N.
        kind: The formula that turns a score into a weight.
        beta: The preference for high scores: 0 is uniform, large values approach top-k.
        generator: Source of the noise.

    Returns:
        positions (min(num, N),), int64, on the device of ``scores``, first drawn first.

    Raises:
        ValueError: for ``num`` < 1, no scores, non-finite scores, a negative or infinite ``beta``,
            an unknown kind, or a negative score under ``"power"``.

    References:
        Kirsch et al. 2023, arXiv:2106.12059; the Gumbel trick, Kool et al.
        2019, arXiv:1903.06059.

    >>> scores = torch.tensor([0.0, 1.0, 1000.0])
    >>> stochastic(scores, 3, generator=torch.Generator().manual_seed(0))
    tensor([2, 1, 0])
    """
    scores_N = checked_scores(scores)
    num = checked_num(num, len(scores_N))
    if not 0 <= beta < float("inf"):
        raise ValueError(f"beta must be at least 0 and finite, got {beta}; large values are top-k")
    log_weights_N = _log_weights(scores_N.double(), kind)
    noise_N = _gumbel(len(scores_N), generator=generator, device=scores_N.device)
    # A weight of 0 stays 0 under every power but the zeroth.
    weightless_N = log_weights_N.isinf() & (beta > 0)
    keys_N = noise_N + beta * log_weights_N.masked_fill(log_weights_N.isinf(), 0)
    if weightless_N.any():
        floor = keys_N[~weightless_N].min() if not weightless_N.all() else keys_N.max()
        behind_N = noise_N - noise_N.max() - 1  # in random order among themselves
        keys_N = torch.where(weightless_N, floor + behind_N, keys_N)
    return top_k(keys_N, num)


def _log_weights(scores_N: Tensor, kind: Kind) -> Tensor:
    if kind == "softmax":
        return scores_N
    if kind == "softrank":
        order_N = scores_N.argsort(descending=True, stable=True)
        ranks_N = order_N.argsort() + 1
        return -ranks_N.to(scores_N).log()
    if kind == "power":
        if (scores_N < 0).any():
            raise ValueError(
                'scores must be non-negative for kind="power", found a least one of '
                f'{scores_N.min().item():.3g}; use kind="softmax" or "softrank"'
            )
        return scores_N.log()
    raise ValueError(f"kind must be one of {list(get_args(Kind))}, got {kind!r}")


def _gumbel(num: int, *, generator: Generator, device: torch.device) -> Tensor:
    exponential_N = -torch.log1p(-uniform(num, generator=generator, device=device))
    # A draw of exactly 0 would be infinite noise.
    return -exponential_N.clamp_min(torch.finfo(torch.float64).tiny).log()
