"""BatchBALD: the rows that together tell most about the weights.

Shape suffixes: N rows, K posterior samples, C classes, R rows looked at together.
"""

import math

import torch
from torch import Generator, Tensor

from al_lightning.acquisition.checks import checked_num, checked_samples
from al_lightning.acquisition.joint_entropy import (
    Configurations,
    conditional_entropy,
    grouped,
    no_rows_seen,
    thinned,
    weights_known,
    with_row,
)
from al_lightning.acquisition.progress import report

# Nats: far above float64's rounding, which differs between chunks, far below what matters.
TIE = 1e-10
# Measured: a group of 8 raises a bound so little that 1 to 5 % of the rows need more.
GROUP_SIZE = 8
FEW = 32


def batchbald(
    probs: Tensor, num: int, generator: Generator, *, max_configurations: int = 10_000
) -> Tensor:
    """Choose rows one by one for the highest joint information ``I(y_1..y_b; w)``.

    Unlike the best ``num`` by BALD they are not each other's copies: a row adds to the batch only
    what the rows before it do not already tell, ``H(y_n | y_1..y_b) - E_k H(y_n | w_k)``. That gain
    can only fall as the batch grows, so an earlier gain is a bound on it. Rows whose bound is too
    low are passed over, and the answer is the same as if all gains had been computed.

    Args:
        probs: (N, K, C), p(y | w_k) with the same K posterior samples for each row (for MC
            dropout: the same masks).
        num: Number of rows to choose; all when it is above N.
        generator: Drawn from when the b rows chosen have more than ``max_configurations`` outcomes,
            C^b.
        max_configurations: Number of joint outcomes of the chosen rows to keep: all while they fit,
            after that an unbiased sample. Memory beside ``probs`` is bounded by about
            ``80 * max_configurations * K * C`` bytes, and time is proportional at worst.

    Returns:
        positions (min(num, N),), int64, in the order chosen; of equal gains the earlier row wins.

    Raises:
        ValueError: when ``num`` or ``max_configurations`` < 1, there are no rows, or a row is not
            K distributions.

    References:
        Kirsch et al. 2019, arXiv:1906.08158, Algorithm 1 and Eq. 8; lazy evaluation: Minoux 1978,
        "Accelerated greedy algorithms for maximizing submodular set functions".

    >>> unsure = [[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9]]
    >>> other = [[0.8, 0.2], [0.2, 0.8], [0.8, 0.2], [0.2, 0.8]]
    >>> batchbald(torch.tensor([unsure, unsure, other]), 2, torch.Generator())
    tensor([0, 2])
    """
    probs_NKC = checked_samples(probs)
    num = checked_num(num, len(probs_NKC))
    every_row = torch.arange(len(probs_NKC), device=probs_NKC.device)
    noise_N = conditional_entropy(probs_NKC, every_row, weights_known(probs_NKC))
    bounds_N = torch.full_like(noise_N, math.inf)
    configurations = no_rows_seen(probs_NKC)
    chosen: list[int] = []
    while len(chosen) < num and bounds_N.max() > TIE:
        report(len(chosen), num)
        kept = thinned(configurations, max_configurations, generator)
        if kept is not configurations:  # estimates from other samples: these may be higher
            bounds_N = torch.where(bounds_N > -math.inf, math.inf, bounds_N)
        tighten(bounds_N, probs_NKC, noise_N, kept)
        chosen.append(int((bounds_N >= bounds_N.max() - TIE).nonzero()[0]))
        bounds_N[chosen[-1]] = -math.inf
        configurations = with_row(kept, probs_NKC[chosen[-1]])
    # When no row tells anything more, none ever will, and all are equal.
    equal = (bounds_N > -math.inf).nonzero()[: num - len(chosen), 0]
    return torch.cat([equal.new_tensor(chosen), equal])


def tighten(
    bounds_N: Tensor, probs_NKC: Tensor, noise_N: Tensor, configurations: Configurations
) -> None:
    """Lower bounds on the gains, in place, until those that can be the highest are exact.

    Coarse groups of configurations give cheap bounds, which leave few rows for the finer groups.
    """
    best = -math.inf
    for groups in coarse_to_fine(configurations):
        best = max(best, gains(bounds_N.argmax()[None], probs_NKC, noise_N, configurations).item())
        rows_R = (bounds_N >= best - TIE).nonzero()[:, 0]
        gains_R = gains(rows_R, probs_NKC, noise_N, groups)
        bounds_N[rows_R] = torch.minimum(bounds_N[rows_R], gains_R)


def coarse_to_fine(configurations: Configurations) -> list[Configurations]:
    """Return the configurations in few groups, in more and more, and at last ungrouped."""
    ladder = [configurations]
    while len(ladder[-1].weights) >= GROUP_SIZE * FEW:
        ladder.append(grouped(ladder[-1], len(ladder[-1].weights) // GROUP_SIZE))
    return ladder[::-1]


def gains(
    rows_R: Tensor, probs_NKC: Tensor, noise_N: Tensor, configurations: Configurations
) -> Tensor:
    """Return what each row adds to the joint information, ``H(y | configuration) - H(y | w)``."""
    return conditional_entropy(probs_NKC, rows_R, configurations) - noise_N[rows_R]
