"""Intervals of a mean over seeds, and tests of the difference between two strategies.

Runs at one seed share their initial labels and weights, so strategies are compared within seeds.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from al_lightning.statistics.checks import check_finite, check_same_seeds, check_share

# Differences that are equal on paper may differ after rounding by up to half of this, times the
# largest value: each value is off by eps / 2 of it, the difference, up to twice as large, by eps.
ROUNDING = 8 * float(np.finfo(np.float64).eps)


class Interval(NamedTuple):
    """Holds a mean over runs, and an interval for the mean of many more runs."""

    mean: float
    std: float | None
    """Of the sample, n - 1; None with one value."""
    low: float | None
    """The t interval of the mean; None with one value."""
    high: float | None
    num: int


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Return the mean of independent runs with its t interval, which assumes a normal law.

    Args:
        values: One for each run, finite.
        level: The share of such intervals that hold the true mean.

    Raises:
        ValueError: without a value, for one that is not finite, or a level outside (0, 1).

    >>> interval = mean_interval([0.25, 0.5, 0.75])
    >>> interval.mean, interval.std, round(interval.low, 3), round(interval.high, 3)
    (0.5, 0.25, -0.121, 1.121)
    """
    check_share("level", level)
    if not values:
        raise ValueError("a mean needs one value or more, got none; collect the runs first")
    check_finite(dict(enumerate(values)), "value", "leave it out, or use quartiles, which take inf")
    num, mean = len(values), float(np.mean(values))
    if num == 1:
        return Interval(mean, None, None, None, num)
    std = float(np.std(values, ddof=1))
    half = float(stats.t.ppf((1 + level) / 2, num - 1)) * std / math.sqrt(num)
    return Interval(mean, std, mean - half, mean + half, num)


class PairedTest(NamedTuple):
    """Holds a comparison within seeds."""

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
    """Test by a paired two-sided t-test whether the mean difference is 0.

    Equal differences give p = 0, the limit of the test, or p = 1 where all are 0. They are equal,
    or 0, up to the rounding of the values (:data:`ROUNDING` times the largest), since .3 - .2 and
    .2 - .1 are one difference on paper and two in floating point.

    Args:
        ours: A value for each seed.
        theirs: Values of the same seeds, in any order.
        level: As for :func:`mean_interval`.

    Raises:
        ValueError: when the seeds differ or there are none, for a value that is not finite, or a
            level outside (0, 1).

    >>> paired_t_test({1: 0.75, 2: 0.5}, {2: 0.25, 1: 0.5})
    PairedTest(difference=0.25, low=0.25, high=0.25, p=0.0, num=2)
    """
    check_same_seeds(ours, theirs, "ours", "theirs")
    check_finite(ours, "ours at seed", "leave the seed out on both sides")
    check_finite(theirs, "theirs at seed", "leave the seed out on both sides")
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
