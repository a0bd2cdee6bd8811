"""Numbers of one learning curve, or of several of one strategy: areas, labels needed, the mean."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

import numpy as np
from scipy.integrate import trapezoid

from al_lightning.statistics.checks import check_finite, check_sizes


@dataclass(frozen=True)
class Curve:
    """Holds accuracy against training-set size of one run.

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
        check_sizes(self.num_labeled)
        check_finite(dict(zip(self.num_labeled, self.accuracy, strict=True)), "accuracy at size")


def aubc(curve: Curve, interval: tuple[float, float] | None = None) -> float:
    """Return the area under the curve by trapezoids, divided by its width: the mean accuracy.

    Args:
        curve: The curve to integrate.
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
    return float(trapezoid(accuracy, sizes) / (end - start))


def accuracy_at(curve: Curve, num_labeled: float) -> float:
    """Return the accuracy at a size, interpolated linearly between points.

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
    """Return the smallest training-set size whose accuracy reaches ``x``.

    Args:
        curve: A learning curve.
        x: Accuracy to reach; meeting it exactly counts.
        convention: ``"true"`` is the size of the training set. ``"optimistic"`` credits the
            accuracy to the first row of its batch, so it is the size of the point before, or the
            first size itself. The authors of BatchBALD count like this.
        sustained: Count only the first of three consecutive points that all reach ``x``. On noisy
            curves a first crossing favors small batches, which get more tries.

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
    """Return where the straight lines between the curve's points first reach ``x``.

    Returns:
        A size within the curve's range. It is the first size when that reaches ``x`` already; the
        true answer may then be lower. Infinity when ``x`` is never reached.

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
    """Return how many labels the baseline needs to reach ``x`` for each that the method needs.

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
    """Return the 25, 50 and 75 % quantiles by nearest rank: each is one of the values.

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
    """Return the pointwise mean of curves with the same sizes.

    Raises:
        ValueError: without a curve, or when sizes differ.

    >>> mean_curve([Curve((10, 20), (0.5, 0.75)), Curve((10, 20), (0.25, 0.75))])
    Curve(num_labeled=(10, 20), accuracy=(0.375, 0.75))
    """
    if not curves:
        raise ValueError("a mean curve needs one curve or more, got none; collect the runs first")
    for position, curve in enumerate(curves):
        check_same_sizes(curve, curves[0], f"curve {position}", "curve 0")
    means = np.mean([curve.accuracy for curve in curves], axis=0)
    return Curve(curves[0].num_labeled, tuple(means.tolist()))


def _reaches(curve: Curve, x: float) -> list[bool]:
    if math.isnan(x):
        raise ValueError("x must be an accuracy to reach, got nan; pass one such as 0.95")
    return [accuracy >= x for accuracy in curve.accuracy]


def check_same_sizes(curve: Curve, other: Curve, name: str, other_name: str) -> None:
    """Raise ValueError unless both have the same sizes; names the first that differ."""
    for ours, theirs in zip_longest(curve.num_labeled, other.num_labeled, fillvalue="nothing"):
        if ours != theirs:
            raise ValueError(
                f"curves must have the same sizes, {name} has {ours} where {other_name} has "
                f"{theirs}; cut them to the sizes that all share"
            )
