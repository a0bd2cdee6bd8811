"""A forecast of a learning curve: the accuracy that more labels buy, with an interval.

Shape suffixes: M points of the curve, G curves of a grid, Q quantiles of the noise.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from al_lightning.statistics.checks import check_share
from al_lightning.statistics.curves import Curve, labels_to

MIN_POINTS = 3
LEAST_ERROR = 1e-4
"""An error of 0 has no relative weight; this is one row of a test set of 10,000."""

# The noise of an error, relative to it, as it is believed before the curve is seen: its standard
# deviation, and the weight of this belief in points.
NOISE, WEIGHT = 0.06, 4
DRIFT = 0.25
"""Curves leave the families that are fitted: the standard deviation of the logarithm of the error
grows by this for each factor e of more labels."""

FLOORS = np.linspace(0, 0.95, 20)  # the share of the last error that no label takes away
POWERS = np.geomspace(0.15, 2.5, 25)
RATES = np.geomspace(0.2, 6, 25)
QUANTILES_Q = stats.norm.ppf((np.arange(15) + 0.5) / 15)

FARTHEST = 1000
"""Labels to an accuracy are looked for up to so many times the labels of the curve."""


class Outlook(NamedTuple):
    """Holds what is expected at a number of labels, with an interval."""

    num_labeled: float
    accuracy: float
    """The median."""
    low: float
    high: float


class LabelsNeeded(NamedTuple):
    """Holds how many labels an accuracy needs, with an interval; infinity is never."""

    num_labeled: float
    low: float
    high: float


def forecast(curve: Curve, *, level: float = 0.8) -> "Forecast":
    """Fit families of curves to a learning curve, to look ahead.

    The error falls as ``floor + scale * n ** -c`` or as ``floor + scale * exp(-c n)``. Each pair of
    a floor and a ``c`` on a grid is fitted by weighted least squares. Noise is relative to the
    error, so the weights are ``1 / error ** 2``. Each curve counts as much as it explains the
    points; together they give a median and an interval.

    Args:
        curve: Three points or more, accuracies in [0, 1].
        level: The share of later points that should fall into the interval.

    Raises:
        ValueError: for fewer points, accuracies outside [0, 1], or a level outside (0, 1).

    References:
        Both families: Viering and Loog 2021, "The shape of learning curves", arXiv:2103.10948,
        section 4; of active learning, PALM 2025, arXiv:2507.15381. The grid, the beliefs and the
        drift are ours.

    >>> ahead = forecast(Curve((100, 200, 300), (0.80, 0.90, 0.93)))
    >>> 0.95 < ahead.at(600).accuracy < 0.98
    True
    """
    check_share("level", level)
    num = len(curve.num_labeled)
    if num < MIN_POINTS:
        raise ValueError(
            f"a forecast needs three points or more, got {num}; it comes from the third cycle on"
        )
    if not 0 <= min(curve.accuracy) <= max(curve.accuracy) <= 1:
        raise ValueError(
            "a forecast needs accuracies in [0, 1], got "
            f"{min(curve.accuracy):g} to {max(curve.accuracy):g}; divide percentages by 100"
        )
    return Forecast(curve, level, *_fitted(curve))


@dataclass(frozen=True)
class Forecast:
    """Looks ahead of a curve; made by :func:`forecast`.

    Args:
        curve: The curve so far.
        level: The share of later points that should fall into an interval.
        scales: (G,), the error of each fitted curve at the last size.
        weights: (G,), how much each counts; 1 in all.
        noises: (G,), the standard deviation of the logarithm of an error under each.
    """

    curve: Curve
    level: float
    scales: np.ndarray
    weights: np.ndarray
    noises: np.ndarray

    def at(self, num_labeled: float) -> Outlook:
        """Return the accuracy to expect with so many labels.

        Raises:
            ValueError: for a number below that of the last point.
        """
        last = self.curve.num_labeled[-1]
        if not last <= num_labeled < math.inf:  # phrased so that NaN fails too
            raise ValueError(
                f"a forecast looks ahead of the last point, at {last} labels, got {num_labeled}; "
                "accuracy_at() looks back"
            )
        ratio = np.float64(num_labeled / last)
        errors_G = np.maximum(self.scales * _shapes(ratio[None])[:, 0], LEAST_ERROR / 10)
        spread_G = np.hypot(self.noises, DRIFT * np.log(ratio))
        logs_GQ = np.log(errors_G)[:, None] + spread_G[:, None] * QUANTILES_Q
        weights = np.repeat(self.weights, len(QUANTILES_Q)) / len(QUANTILES_Q)
        order = logs_GQ.ravel().argsort()
        outside = (1 - self.level) / 2
        found = np.interp(
            [1 - outside, 0.5, outside], weights[order].cumsum(), logs_GQ.ravel()[order]
        )
        low, middle, high = (float(max(0.0, 1 - error)) for error in np.exp(found))
        return Outlook(num_labeled, middle, low, high)

    def labels_to(self, x: float) -> LabelsNeeded:
        """Return the number of labels that an accuracy needs.

        Once the curve has reached it, that is known. Up to a thousand times the labels so far are
        looked at; what takes more is infinity.

        Raises:
            ValueError: for NaN.
        """
        reached = labels_to(self.curve, x)
        if math.isfinite(reached):
            return LabelsNeeded(reached, reached, reached)
        last = self.curve.num_labeled[-1]
        sizes = np.round(np.geomspace(last, last * FARTHEST, 200))
        outlooks = [self.at(size) for size in sizes]

        def first(end: str) -> float:
            return next((o.num_labeled for o in outlooks if getattr(o, end) >= x), math.inf)

        return LabelsNeeded(first("accuracy"), first("high"), first("low"))


def _fitted(curve: Curve) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return scale, weight and noise of each curve of the grid."""
    errors_M = np.maximum(1 - np.array(curve.accuracy), LEAST_ERROR)
    ratios_M = np.array(curve.num_labeled) / curve.num_labeled[-1]
    relative_GM = _shapes(ratios_M) / errors_M  # of a curve with error 1 at the last size
    scales_G = relative_GM.sum(1) / np.square(relative_GM).sum(1)
    squares_G = np.square(1 - scales_G[:, None] * relative_GM).sum(1)
    # The noise is unknown, with an inverse gamma belief about its variance.
    shape, rate_G = (WEIGHT + len(errors_M) - 1) / 2, (WEIGHT * NOISE**2 + squares_G) / 2
    logs_G = -shape * np.log(rate_G)
    weights_G = np.exp(logs_G - logs_G.max())
    return scales_G, weights_G / weights_G.sum(), np.sqrt(rate_G / shape)


def _shapes(ratios_M: np.ndarray) -> np.ndarray:
    """Return (G, M): errors of all curves at sizes relative to the last, where they are 1."""
    powers = ratios_M ** -POWERS[:, None]
    exponentials = np.exp(-RATES[:, None] * (ratios_M - 1))
    falls = np.concatenate([powers, exponentials])
    floors = FLOORS[:, None, None]
    shapes: np.ndarray = floors + (1 - floors) * falls
    return shapes.reshape(-1, len(ratios_M))
