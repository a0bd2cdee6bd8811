"""The forecast of a run's test accuracy, for the monitors that show it."""

from collections.abc import Sequence
from functools import lru_cache

from al_lightning.run.records import CycleResult
from al_lightning.statistics.curves import Curve
from al_lightning.statistics.forecast import MIN_POINTS, Forecast, Outlook, forecast

METRIC = "test_acc"
MORE = (500, 1000, 5000)
"""Further labels of which the end of a run tells what they would buy."""


def curve_of(results: Sequence[CycleResult]) -> Curve | None:
    """Return test accuracy by labels; None for fewer points than a forecast needs, or no shares."""
    points = {one.num_labeled: one.metrics[METRIC] for one in results if METRIC in one.metrics}
    sizes = sorted(points)
    if len(sizes) < MIN_POINTS or not all(0 <= points[size] <= 1 for size in sizes):
        return None
    return Curve(tuple(sizes), tuple(points[size] for size in sizes))


@lru_cache(maxsize=4)
def forecast_of(curve: Curve) -> Forecast:
    """Return the forecast of a curve; several monitors ask for the same."""
    return forecast(curve)


def next_size(results: Sequence[CycleResult]) -> int | None:
    """Return the number of labels once the open query is labeled; without one, as many more again.

    It is None without enough cycles for a forecast.
    """
    curve = curve_of(results)
    if curve is None:
        return None
    *_, before, last = curve.num_labeled
    query = results[-1].query
    return 2 * last - before if query is None else last + len(query.indices)


def next_outlook(results: Sequence[CycleResult]) -> Outlook | None:
    """Return what is expected at :func:`next_size`; None without enough cycles."""
    curve, size = curve_of(results), next_size(results)
    return None if curve is None or size is None else forecast_of(curve).at(size)


def in_words(outlook: Outlook) -> str:
    """Return an outlook in a few words.

    >>> in_words(Outlook(2500, 0.991, 0.985, 0.994))
    '0.9910 (0.9850 to 0.9940)'
    """
    return f"{outlook.accuracy:.4f} ({outlook.low:.4f} to {outlook.high:.4f})"
