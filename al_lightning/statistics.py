"""Learning curves in numbers: areas, labels needed, means over seeds, tests between strategies.

Runs at one seed share their initial labels and weights, so strategies are compared within seeds.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, count, pairwise, takewhile, zip_longest
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

# Rounding sets differences that are equal on paper apart by up to half of this times the largest
# value: either value is off by eps / 2 of it, and the difference, up to twice as large, by eps.
ROUNDING = 8 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Curve:
    """Accuracy against training-set size of one run.

    Raises:
        ValueError: without a point, for sizes below 1 or not strictly ascending, accuracies that
            are not finite, or different lengths.
    """

    num_labeled: tuple[int, ...]
    """Training-set sizes, strictly ascending."""
    accuracy: tuple[float, ...]
    """One a size, finite, higher is better."""

    def __post_init__(self) -> None:
        if len(self.num_labeled) != len(self.accuracy):
            raise ValueError(
                f"a curve must have one accuracy a size, got {len(self.accuracy)} for "
                f"{len(self.num_labeled)} sizes; leave out cycles that were not tested"
            )
        _check_sizes(self.num_labeled)
        _check_finite(dict(zip(self.num_labeled, self.accuracy, strict=True)), "accuracy at size")


def aubc(curve: Curve, interval: tuple[float, float] | None = None) -> float:
    """Area under the budget curve by trapezoids, divided by its width: the mean accuracy.

    Args:
        curve: What to integrate.
        interval: Sizes to integrate between; ends between two points are interpolated linearly.
            The curve's own range when None. Compare only areas over the same interval.

    Returns:
        The area, between the curve's least and largest accuracy.

    Raises:
        ValueError: when the interval has no length, as that of one point, or leaves the curve.

    References:
        Zhan et al. 2021, "A Comparative Survey: Benchmarking for Pool-based Active Learning".

    >>> aubc(Curve((10, 20, 50), (0.5, 0.75, 0.75)))
    0.71875
    """
    first, last = curve.num_labeled[0], curve.num_labeled[-1]
    start, end = (first, last) if interval is None else interval
    if not first <= start < end <= last:  # phrased so that NaN fails too
        raise ValueError(
            f"interval must have a length and lie within the curve, got [{start}, {end}] on a "
            f"curve over [{first}, {last}]; choose one that every curve to compare covers"
        )
    sizes = [start, *(size for size in curve.num_labeled if start < size < end), end]
    accuracy = np.interp(sizes, curve.num_labeled, curve.accuracy)
    return float(np.average((accuracy[1:] + accuracy[:-1]) / 2, weights=np.diff(sizes)))


def accuracy_at(curve: Curve, num_labeled: float) -> float:
    """The accuracy at a size, interpolated linearly between points and exact at each.

    Raises:
        ValueError: for a size outside the curve's range; nothing is extrapolated.

    >>> accuracy_at(Curve((10, 20), (0.5, 0.75)), 15)
    0.625
    """
    first, last = curve.num_labeled[0], curve.num_labeled[-1]
    if not first <= num_labeled <= last:  # phrased so that NaN fails too
        raise ValueError(
            f"num_labeled must lie within the curve, got {num_labeled} on a curve over "
            f"[{first}, {last}]; choose a size that every curve to compare covers"
        )
    return float(np.interp(num_labeled, curve.num_labeled, curve.accuracy))


def labels_to(
    curve: Curve,
    x: float,
    *,
    convention: Literal["true", "optimistic"] = "true",
    sustained: bool = False,
) -> float:
    """The smallest training-set size whose accuracy reaches ``x``.

    Args:
        curve: Where to look.
        x: Accuracy to reach; meeting it exactly counts.
        convention: ``"true"`` is the size of the training set. ``"optimistic"`` credits the
            accuracy to the first row of its batch, so it is the size of the point before, or the
            first size itself: how the authors of BatchBALD count.
        sustained: Only the first of three consecutive points that all reach ``x`` counts, since
            first crossings of noisy curves favor small batches, which get more tries.

    Returns:
        One of the curve's sizes, or infinity when ``x`` is never reached.

    Raises:
        ValueError: for another convention, or NaN to reach.

    References:
        Kirsch et al. 2019, arXiv:1906.08158, Table 1 and its code.

    >>> curve = Curve((20, 30, 40, 50), (0.5, 0.9, 0.8, 0.95))
    >>> labels_to(curve, 0.9), labels_to(curve, 0.9, convention="optimistic")
    (30.0, 20.0)
    >>> labels_to(curve, 0.9, sustained=True)
    inf
    """
    if convention not in ("true", "optimistic"):
        raise ValueError(f'convention must be "true" or "optimistic", got {convention!r}')
    reaches = _reaches(curve, x)
    if sustained:
        reaches = [all(reaches[i : i + 3]) for i in range(len(reaches) - 2)]
    if True not in reaches:
        return math.inf
    first = reaches.index(True)
    return float(curve.num_labeled[max(first - 1, 0) if convention == "optimistic" else first])


def labels_to_interpolated(curve: Curve, x: float) -> float:
    """Where the straight lines between the curve's points first reach ``x``.

    Returns:
        A size within the curve's range: the first one when it reaches ``x`` already, which bounds
        the answer from above only. Infinity when ``x`` is never reached.

    Raises:
        ValueError: for NaN to reach.

    >>> labels_to_interpolated(Curve((20, 30), (0.5, 1.0)), 0.75)
    25.0
    """
    reaches = _reaches(curve, x)
    if True not in reaches:
        return math.inf
    first = reaches.index(True)
    if first == 0:
        return float(curve.num_labeled[0])
    (left, right), (low, high) = (
        values[first - 1 : first + 1] for values in (curve.num_labeled, curve.accuracy)
    )
    return float(left + (x - low) / (high - low) * (right - left))


def label_efficiency(method: Curve, baseline: Curve, x: float) -> float:
    """How many labels the baseline needs to reach ``x`` for each that the method needs.

    Returns:
        The ratio of :func:`labels_to_interpolated`; above 1 the method needs fewer. Infinity when
        only the method reaches ``x``, 0 when only the baseline does, NaN when neither does. Where
        either starts at ``x`` or above, its first size stands for the unknown number.

    Raises:
        ValueError: for NaN to reach.

    >>> label_efficiency(Curve((20, 40), (0.5, 1.0)), Curve((20, 100), (0.5, 1.0)), 0.75)
    2.0
    """
    return labels_to_interpolated(baseline, x) / labels_to_interpolated(method, x)


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The 25, 50 and 75 % quantiles by nearest rank: each is one of the values.

    Of n values in order, the quantile p is the one at rank ceil(p n), counted from 1. Nothing is
    interpolated, so runs that never reached an accuracy take part as infinity.

    Raises:
        ValueError: without a value, or for NaN.

    References:
        Hyndman and Fan 1996, "Sample quantiles in statistical packages", definition 1.

    >>> quartiles([80, 130, 70, 90, float("inf"), 110])
    (80.0, 90.0, 130.0)
    """
    if not values or any(math.isnan(value) for value in values):
        raise ValueError(
            f"quartiles need one value or more and no NaN, got {list(values)}; give a run that "
            "never got there as infinity"
        )
    ranked = sorted(map(float, values))
    first, second, third = (ranked[math.ceil(p * len(ranked)) - 1] for p in (0.25, 0.5, 0.75))
    return first, second, third


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The pointwise mean of curves with the same sizes.

    Raises:
        ValueError: without a curve, or when sizes differ.

    >>> mean_curve([Curve((10, 20), (0.5, 0.75)), Curve((10, 20), (0.25, 0.75))])
    Curve(num_labeled=(10, 20), accuracy=(0.375, 0.75))
    """
    if not curves:
        raise ValueError("a mean curve needs one curve or more, got none; collect the runs first")
    for position, curve in enumerate(curves):
        _check_same_sizes(curve, curves[0], f"curve {position}", "curve 0")
    means = np.mean([curve.accuracy for curve in curves], axis=0)
    return Curve(curves[0].num_labeled, tuple(means.tolist()))


class Interval(NamedTuple):
    """A mean over runs, and where that of many more would be."""

    mean: float
    std: float | None
    """Of the sample, n - 1; None with one value."""
    low: float | None
    """The t interval of the mean; None with one value."""
    high: float | None
    num: int


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """The mean of independent runs with its t interval, which takes them for normal.

    Args:
        values: One a run, finite.
        level: How often such an interval holds the true mean.

    Raises:
        ValueError: without a value, for one that is not finite, or a level outside (0, 1).

    >>> interval = mean_interval([0.25, 0.5, 0.75])
    >>> interval.mean, interval.std, round(interval.low, 3), round(interval.high, 3)
    (0.5, 0.25, -0.121, 1.121)
    """
    _check_share("level", level)
    if not values:
        raise ValueError("a mean needs one value or more, got none; collect the runs first")
    _check_finite(
        dict(enumerate(values)), "value", "leave it out, or use quartiles, which take inf"
    )
    num, mean = len(values), float(np.mean(values))
    if num == 1:
        return Interval(mean, None, None, None, num)
    std = float(np.std(values, ddof=1))
    half = float(stats.t.ppf((1 + level) / 2, num - 1)) * std / math.sqrt(num)
    return Interval(mean, std, mean - half, mean + half, num)


class PairedTest(NamedTuple):
    """A comparison within seeds."""

    difference: float
    """Mean of ours - theirs."""
    low: float | None
    """The t interval of the mean difference; None with one pair."""
    high: float | None
    p: float | None
    """Two-sided, in [0, 1]; None with one pair."""
    num: int


def paired_t_test(
    ours: Mapping[int, float], theirs: Mapping[int, float], level: float = 0.95
) -> PairedTest:
    """Tests by a paired two-sided t-test whether the mean difference is 0.

    Equal differences give p = 0, the limit of the test, or p = 1 where all are 0. They are equal,
    or 0, up to the rounding of the values (:data:`ROUNDING` times the largest), since .3 - .2 and
    .2 - .1 are one difference on paper and two in floating point.

    Args:
        ours: A value a seed.
        theirs: Those of the same seeds, in whatever order.
        level: As for :func:`mean_interval`.

    Raises:
        ValueError: when the seeds differ or there are none, for a value that is not finite, or a
            level outside (0, 1).

    >>> paired_t_test({1: 0.75, 2: 0.5}, {2: 0.25, 1: 0.5})
    PairedTest(difference=0.25, low=0.25, high=0.25, p=0.0, num=2)
    """
    _check_same_seeds(ours, theirs, "ours", "theirs")
    _check_finite(ours, "ours at seed", "leave the seed out on both sides")
    _check_finite(theirs, "theirs at seed", "leave the seed out on both sides")
    differences = [float(ours[seed] - theirs[seed]) for seed in ours]
    mean, std, low, high, num = mean_interval(differences, level)
    if std is None:
        return PairedTest(mean, None, None, None, num)
    rounding = ROUNDING * max(map(abs, [*ours.values(), *theirs.values()]))
    if max(differences) - min(differences) <= rounding:
        mean = mean if abs(mean) > rounding else 0.0
        return PairedTest(mean, mean, mean, float(mean == 0), num)
    p = 2 * float(stats.t.sf(abs(mean) / (std / math.sqrt(num)), num - 1))
    return PairedTest(mean, low, high, p, num)


def checkpoints(num_labeled: Sequence[int], acquisition_size: int | None = None) -> list[int]:
    """The sizes n0 + q, n0 + 2 q, n0 + 4 q, ... up to the last size: dense where curves are steep.

    Args:
        num_labeled: Training-set sizes from n0, strictly ascending.
        acquisition_size: q; the first step when None.

    Returns:
        The sizes, ascending; none for one size, or when q leads beyond the last.

    Raises:
        ValueError: without a size, for sizes below 1 or not ascending, or q below 1.

    References:
        Ash et al. 2020, arXiv:1906.03671, Section 4.

    >>> checkpoints([100, 200, 300, 400, 500, 600])
    [200, 300, 500]
    """
    _check_sizes(num_labeled)
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
    """How often each strategy beats each other one significantly.

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
        Ash et al. 2020, arXiv:1906.03671, Section 4.

    >>> curves = {"badge": (0.9, 0.8), "random": (0.7, 0.6)}
    >>> penalty_matrix(
    ...     {name: {seed: Curve((10, 20), (0.5, end)) for seed, end in enumerate(ends)}
    ...      for name, ends in curves.items()}
    ... )
    array([[0., 1.],
           [0., 0.]])
    """
    _check_share("alpha", alpha)
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
    """The sizes of all curves, which also have the same two seeds or more."""
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
        _check_same_seeds(runs, first_runs, repr(name), repr(first_name))
        for seed, curve in runs.items():
            _check_same_sizes(
                curve, first, f"{name!r} at seed {seed}", f"{first_name!r} at seed {first_seed}"
            )
    return first.num_labeled


def _reaches(curve: Curve, x: float) -> list[bool]:
    if math.isnan(x):
        raise ValueError("x must be an accuracy to reach, got nan; pass one such as 0.95")
    return [accuracy >= x for accuracy in curve.accuracy]


def _check_sizes(num_labeled: Sequence[int]) -> None:
    if not num_labeled:
        raise ValueError("sizes must be one or more, got none; a run has one after its first cycle")
    for before, after in pairwise([0, *num_labeled]):
        if not before < after:  # phrased so that NaN fails too
            raise ValueError(
                f"sizes must be positive and strictly ascending, found {after} after {before}; "
                "sort them and keep one accuracy a size"
            )


def _check_same_sizes(curve: Curve, other: Curve, name: str, other_name: str) -> None:
    for ours, theirs in zip_longest(curve.num_labeled, other.num_labeled, fillvalue="nothing"):
        if ours != theirs:
            raise ValueError(
                f"curves must have the same sizes, {name} has {ours} where {other_name} has "
                f"{theirs}; cut them to the sizes that all share"
            )


def _check_same_seeds(
    ours: Mapping[int, object], theirs: Mapping[int, object], name: str, other_name: str
) -> None:
    if not ours and not theirs:
        raise ValueError("a paired test needs one seed or more, got none; collect the runs first")
    if ours.keys() != theirs.keys():
        raise ValueError(
            f"seeds must be the same to pair runs, {name} lacks "
            f"{sorted(theirs.keys() - ours.keys())} and {other_name} lacks "
            f"{sorted(ours.keys() - theirs.keys())}; run these too, or leave them out"
        )


def _check_finite(values: Mapping[int, float], what: str, cure: str = "leave it out") -> None:
    for key, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"{what} {key} must be finite, got {value}; {cure}")


def _check_share(name: str, value: float) -> None:
    if not 0 < value < 1:  # phrased so that NaN fails too
        raise ValueError(f"{name} must lie between 0 and 1, got {value}; 5 % is 0.05")
