"""Herding: rows that cover the pool, or its uncertain rows, by a smooth kernel.

Shape suffixes: N pool rows, M labeled rows, S rows of a sample, X rows that a pick covers better,
D embedding dimensions, E = D + 2, A B rows of a block, Q rows looked at closely.
"""

import torch
from torch import Generator, Tensor

from al_lightning.acquisition.checks import checked_embeddings, checked_lengths, checked_num
from al_lightning.acquisition.distances import chunks, wide
from al_lightning.acquisition.draws import uniform
from al_lightning.acquisition.progress import report

# Up to so many rows the choice is exact: some ten seconds for 100 picks on two cores.
EXACT_ROWS = 2**14
# Of more, a sample of so many stands for all. Measured on 20,000 rows in 60 clusters: its picks
# cover .7 % less than the exact ones, in a fifth of the time.
SAMPLE_ROWS = 2**13
# The sample grows with the number of picks where that is large.
ROWS_PER_PICK = 4
# Of more rows than this, sums in float32 say which few may be the best, and float64 decides.
DOUBLE_ROWS = 2**11
NUM_CLOSE, NUM_EQUAL = 2**8, 2**4
# The error of a sum, in units of the last place of the first.
ROUNDING = 32
BLOCK_ROWS = 2**10
# Below this a difference of gains is rounding, and a squared distance of rows of length 1 too.
NOTHING = 1e-12
SAMPLE_SEED = 0


def max_herding(
    embeddings: Tensor, labeled: Tensor, num: int, *, bandwidth: float | None = None
) -> Tensor:
    """Take, again and again, the row that adds most to the mean coverage of the pool.

    Rows are scaled to length 1; a row of zeros stays as it is. The kernel is
    k(x, y) = exp(-|x - y|^2 / bandwidth^2). A row is covered by the largest k to a labeled row or
    to one taken before. Of equal gains the earlier row wins. Once nothing can be gained, the first
    rows of the pool that are left follow in order.

    The choice is exact for a pool of up to 16,384 rows. Of a larger one, 8,192 evenly drawn rows
    (or four for each row to take) stand for all: they are what can be taken, and what is to be
    covered. The draw is always the same. So time and memory beside the embeddings do not grow with
    the pool, but for one pass over it.

    Args:
        embeddings: (N, D) finite embeddings of the pool.
        labeled: (M, D) those of the labeled rows; M may be 0.
        num: Number of rows to take; all when it is above N.
        bandwidth: Width of the kernel, a Euclidean distance of rows of length 1; 1 when not given.

    Returns:
        positions (min(num, N),), int64, on the device of the embeddings, in the order taken.

    Raises:
        ValueError: for ``num`` < 1, a ``bandwidth`` not above 0, an empty pool, or embeddings that
            are not finite, (N, D) and alike.

    References:
        Bae, Noh and Sutherland 2024, "Generalized coverage for more robust low-budget active
        learning", arXiv:2407.12212, Eq. 5 and Algorithm 1.

    >>> pool = torch.tensor([[1.0, 0.0], [1.0, 0.2], [1.0, -0.2], [-1.0, 0.0]])
    >>> max_herding(pool, pool[:0], 3)
    tensor([0, 3, 1])
    """
    embeddings_ND = checked_embeddings(embeddings)
    weights_N = torch.ones(len(embeddings_ND), dtype=torch.float64, device=embeddings_ND.device)
    return _herded(weights_N, embeddings_ND, labeled, num, 1.0 if bandwidth is None else bandwidth)


def uncertainty_herding(
    uncertainty: Tensor,
    embeddings: Tensor,
    labeled: Tensor,
    num: int,
    *,
    bandwidth: float | None = None,
) -> Tensor:
    """Take the rows that cover the uncertain rows of the pool; see :func:`max_herding`.

    Each row counts as much as it is uncertain. Of a pool of more than 16,384 rows, half of
    the sample is drawn in proportion to that, and half evenly.

    Args:
        uncertainty: (N,) finite and not negative: 1 - margin of calibrated probabilities in the
            paper.
        embeddings: (N, D), see :func:`max_herding`.
        labeled: (M, D) those of the labeled rows; M may be 0.
        num: Number of rows to take; all when it is above N.
        bandwidth: Width of the kernel. When not given, the smallest distance between two labeled
            rows that are not the same, and 1 where there are no two. So it shrinks as labels come:
            few labels are spread over the pool, and of many each speaks for its near ones.

    Returns:
        positions (min(num, N),), int64, on the device of the embeddings, in the order taken.

    Raises:
        ValueError: as :func:`max_herding`; for an uncertainty below 0 or not finite.

    References:
        Bae, Oliveira and Sutherland 2025, "Uncertainty herding", arXiv:2412.20644.

    >>> pool = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, -0.1], [0.0, 1.0]])
    >>> uncertainty_herding(torch.tensor([0.0, 0.1, 0.1, 0.9]), pool, pool[:0], 2)
    tensor([3, 0])
    """
    embeddings_ND = checked_embeddings(embeddings)
    checked_lengths(uncertainty=len(uncertainty), embeddings=len(embeddings_ND))
    weights_N = uncertainty.detach().to(embeddings_ND.device, torch.float64)
    if weights_N.ndim != 1 or not ((weights_N >= 0) & weights_N.isfinite()).all():
        raise ValueError(
            "uncertainty must be (N,), finite and not negative, got "
            f"{tuple(uncertainty.shape)} with a least value of {uncertainty.min().item():.3g}"
        )
    if bandwidth is None:
        bandwidth = nearest_pair(labeled)
    return _herded(weights_N, embeddings_ND, labeled, num, bandwidth)


def _herded(
    weights_N: Tensor, embeddings_ND: Tensor, labeled: Tensor, num: int, bandwidth: float
) -> Tensor:
    """Herd the rows by their weights; see :func:`max_herding`."""
    labeled_MD = checked_embeddings(labeled, "labeled", like_ND=embeddings_ND)
    num = checked_num(num, len(embeddings_ND))
    if not bandwidth > 0:
        raise ValueError(f"bandwidth must be above 0, got {bandwidth}; it is a distance")
    rows_S, weights_S = _sampled(weights_N, ROWS_PER_PICK * num)
    sides = _sides(embeddings_ND[rows_S], bandwidth)
    covered_S = torch.zeros_like(weights_S)
    for rows in chunks(labeled_MD):
        kernel_SA = _kernel(sides[0], _sides(labeled_MD[rows], bandwidth)[1])
        covered_S = torch.maximum(covered_S, kernel_SA.amax(1))

    left_SE, right_SE = sides
    if len(rows_S) > DOUBLE_ROWS:
        left_SE, right_SE = (side.to(wide(embeddings_ND)) for side in sides)
    all_S = torch.arange(len(rows_S), device=rows_S.device)
    gains_S = _gains(left_SE, right_SE, all_S, weights_S, covered_S, torch.ones_like(covered_S))
    error = ROUNDING * torch.finfo(left_SE.dtype).eps * gains_S.max()
    picks: list[Tensor] = []
    while len(picks) < min(num, len(rows_S)):
        report(len(picks), num)
        close_Q = _close(gains_S, error)
        kernel_QS = _kernel(sides[0][close_Q], sides[1])
        exact_Q = (kernel_QS - covered_S).clamp_min_(0) @ weights_S
        if not exact_Q.max() > NOTHING * weights_S.sum():
            break
        # Two rows that cover nothing but each other are equal, and the earlier one wins.
        best = (exact_Q >= exact_Q.max() * (1 - NOTHING)).nonzero()[0, 0]
        picks.append(close_Q[best])
        after_S = torch.maximum(covered_S, kernel_QS[best])
        better_X = (after_S > covered_S).nonzero()[:, 0]
        gains_S -= _gains(left_SE, right_SE, better_X, weights_S, covered_S, after_S)
        gains_S[picks[-1]] = -torch.inf
        covered_S = after_S
    taken = rows_S[torch.stack(picks)] if picks else rows_S[:0]
    is_left_N = torch.ones(len(embeddings_ND), dtype=torch.bool, device=rows_S.device)
    is_left_N[taken] = False
    return torch.cat([taken, is_left_N.nonzero()[: num - len(taken), 0]])


def _close(gains_S: Tensor, error: Tensor) -> Tensor:
    """Return a few rows, ascending: those that may have the highest gain, and the earliest ones."""
    highest, rows = gains_S.topk(min(NUM_CLOSE, len(gains_S)))
    least = highest[0] - error
    equal = (gains_S >= least).nonzero()[:NUM_EQUAL, 0]
    rows_Q: Tensor = torch.unique(torch.cat([rows[highest >= least], equal]))
    return rows_Q


def _gains(
    left_SE: Tensor,
    right_SE: Tensor,
    rows_X: Tensor,
    weights_S: Tensor,
    low_S: Tensor,
    high_S: Tensor,
) -> Tensor:
    """Return how much each row adds to the coverage of ``rows_X`` between ``low`` and ``high``.

    When a pick lifts the coverage of some rows, the gains of all rows fall by what they would have
    added up to there. So a pick costs a pass over the rows that it covers better, and these become
    fewer with each pick.
    """
    gains_S = torch.zeros_like(weights_S)
    for rows_B in torch.split(rows_X, BLOCK_ROWS):
        right_BE = right_SE[rows_B]
        low_B, high_B, weights_B = (
            one[rows_B].to(left_SE.dtype) for one in (low_S, high_S, weights_S)
        )
        for start in range(0, len(left_SE), BLOCK_ROWS):
            block = slice(start, start + BLOCK_ROWS)
            kernel_AB = _kernel(left_SE[block], right_BE)
            gains_S[block] += kernel_AB.clamp_(low_B, high_B).sub_(low_B) @ weights_B
    return gains_S


def _sides(x_ND: Tensor, width: float) -> tuple[Tensor, Tensor]:
    """Return two tables, float64: the product of their rows is -|x - y|^2 / width^2.

    The squares of the lengths stand in two more columns. So a kernel is a product and an exp.
    """
    z_ND = unit_rows(x_ND) / width
    squares_N1 = z_ND.square().sum(1, keepdim=True)
    ones_N1 = torch.ones_like(squares_N1)
    left_NE = torch.cat([2 * z_ND, -squares_N1, -ones_N1], dim=1)
    return left_NE, torch.cat([z_ND, ones_N1, squares_N1], dim=1)


def _kernel(left_AE: Tensor, right_BE: Tensor) -> Tensor:
    return (left_AE @ right_BE.T).exp_()


def _sampled(weights_N: Tensor, at_least: int) -> tuple[Tensor, Tensor]:
    """Return rows that stand for all, ascending, and how much each counts.

    Of a large pool it is one row from each of many pieces, which have the same share of its weight
    and its rows.
    """
    num = max(SAMPLE_ROWS, at_least)
    if len(weights_N) <= max(EXACT_ROWS, num):
        return torch.arange(len(weights_N), device=weights_N.device), weights_N
    mass_N = weights_N + weights_N.mean()
    if not mass_N.sum() > 0:
        mass_N = torch.ones_like(mass_N)
    upto_N = mass_N.cumsum(0)
    generator = Generator().manual_seed(SAMPLE_SEED)
    places = torch.arange(num, device=mass_N.device)
    draws = (places + uniform(num, generator=generator, device=mass_N.device)) / num * upto_N[-1]
    drawn = torch.searchsorted(upto_N, draws, right=True).clamp_max(len(mass_N) - 1)
    rows_S, times_S = torch.unique_consecutive(drawn, return_counts=True)
    return rows_S, times_S * weights_N[rows_S] / mass_N[rows_S] * (upto_N[-1] / num)


def nearest_pair(embeddings: Tensor) -> float:
    """Return the smallest distance of two different rows scaled to length 1; 1 without such two.

    >>> nearest_pair(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])) == 2**0.5
    True
    """
    embeddings_MD = checked_embeddings(embeddings, "labeled")
    least = torch.inf
    for rows in chunks(embeddings_MD):
        z_AD = unit_rows(embeddings_MD[rows])
        for others in chunks(embeddings_MD):
            z_BD = unit_rows(embeddings_MD[others])
            squares_A, squares_B = (z.square().sum(1) for z in (z_AD, z_BD))
            squared_AB = torch.addmm(squares_B, z_AD, z_BD.T, alpha=-2) + squares_A[:, None]
            squared_AB[squared_AB < NOTHING] = torch.inf
            least = min(least, squared_AB.min().item())
    return least**0.5 if least < torch.inf else 1.0


def unit_rows(x_ND: Tensor) -> Tensor:
    """Return the rows scaled to length 1, float64; a row of zeros stays as it is."""
    x_ND = x_ND.double()
    lengths_N1 = torch.linalg.vector_norm(x_ND, dim=1, keepdim=True)
    return x_ND / torch.where(lengths_N1 > 0, lengths_N1, 1)
