"""The pairwise penalty matrix: which strategy beats which, and how often.

Shape suffix: S strategies.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations, count, takewhile

import numpy as np
from numpy.typing import NDArray

from al_lightning.statistics.checks import check_same_seeds, check_share, check_sizes
from al_lightning.statistics.curves import Curve, accuracy_at, check_same_sizes
from al_lightning.statistics.intervals import paired_t_test


def checkpoints(num_labeled: Sequence[int], acquisition_size: int | None = None) -> list[int]:
    """Return the sizes n0 + q, n0 + 2 q, n0 + 4 q, ...: dense where curves are steep.

    Args:
        num_labeled: Training-set sizes from n0, strictly ascending.
        acquisition_size: q; the first step when None.

    Returns:
        Those up to the last size, ascending; none for one size, or when q leads beyond the last.

    Raises:
        ValueError: without a size, for sizes below 1 or not ascending, or q below 1.

    References:
        Ash et al. 2020, arXiv:1906.03671.

    >>> checkpoints([100, 200, 300, 400, 500, 600])
    [200, 300, 500]
    """
    check_sizes(num_labeled)
    if acquisition_size is None:
        if len(num_labeled) == 1:
            return []
        acquisition_size = num_labeled[1] - num_labeled[0]
    if acquisition_size < 1:
        raise ValueError(
            f"acquisition_size must be 1 or more, got {acquisition_size}; pass the rows of a cycle"
        )
    sizes = (num_labeled[0] + 2**k * acquisition_size for k in count())
    return list(takewhile(lambda size: size <= num_labeled[-1], sizes))


def penalty_matrix(
    curves: Mapping[str, Mapping[int, Curve]],
    *,
    acquisition_size: int | None = None,
    alpha: float = 0.05,
) -> NDArray[np.float64]:
    """Return how often each strategy beats each other one significantly.

    At each of the :func:`checkpoints` any two strategies meet in a :func:`paired_t_test`, and cell
    (i, j) gains 1 / number of checkpoints where i beats j. The authors' code also counts the first
    size, where strategies are alike, and stops once random sampling has 99 % of its last accuracy.

    Args:
        curves: By strategy and seed, all with the same seeds and sizes. A checkpoint between two
            sizes is interpolated.
        acquisition_size: As for :func:`checkpoints`.
        alpha: Differences with p below it count.

    Returns:
        (S, S), in the mapping's order, each cell in [0, 1] and together with its mirror at most 1.
        The lower a column's mean, the better its strategy.

    Raises:
        ValueError: without strategies, when seeds or sizes differ, for fewer than two seeds, no
            checkpoint, or an alpha outside (0, 1).

    References:
        Ash et al. 2020, arXiv:1906.03671.

    >>> curves = {"badge": (0.9, 0.8), "random": (0.7, 0.6)}
    >>> penalty_matrix(
    ...     {name: {seed: Curve((10, 20), (0.5, end)) for seed, end in enumerate(ends)}
    ...      for name, ends in curves.items()}
    ... )
    array([[0., 1.],
           [0., 0.]])
    """
    check_share("alpha", alpha)
    at = checkpoints(_shared_sizes(curves), acquisition_size)
    if not at:
        raise ValueError(
            "curves must reach one checkpoint or more, found none after the first size; run more "
            "cycles, or pass a smaller acquisition_size"
        )
    wins_SS = np.zeros((len(curves), len(curves)))
    for (i, ours), (j, theirs) in combinations(enumerate(curves.values()), 2):
        for num_labeled in at:
            difference, _, _, p, _ = paired_t_test(
                {seed: accuracy_at(curve, num_labeled) for seed, curve in ours.items()},
                {seed: accuracy_at(curve, num_labeled) for seed, curve in theirs.items()},
            )
            assert p is not None  # two seeds or more
            if p < alpha:
                wins_SS[(i, j) if difference > 0 else (j, i)] += 1
    return wins_SS / len(at)


def _shared_sizes(curves: Mapping[str, Mapping[int, Curve]]) -> tuple[int, ...]:
    """Return the sizes of all curves; check that seeds and sizes are the same."""
    if not curves:
        raise ValueError("a penalty matrix needs one strategy or more, got none; pass their curves")
    first_name, first_runs = next(iter(curves.items()))
    if len(first_runs) < 2:
        raise ValueError(
            f"a paired test needs two seeds or more, {first_name!r} has {sorted(first_runs)}; run "
            "more seeds"
        )
    first_seed, first = next(iter(first_runs.items()))
    for name, runs in curves.items():
        check_same_seeds(runs, first_runs, repr(name), repr(first_name))
        for seed, curve in runs.items():
            check_same_sizes(
                curve, first, f"{name!r} at seed {seed}", f"{first_name!r} at seed {first_seed}"
            )
    return first.num_labeled
