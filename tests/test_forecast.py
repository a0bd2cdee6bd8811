"""A forecast against a slow definition, where the truth is known, and in what shows it."""

import math
import random

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toys import TRAINER, Plain, points_data

from al_lightning import ActiveLearningLoop
from al_lightning.monitor.forecasts import curve_of, next_outlook, next_size
from al_lightning.monitor.pictures import progress_figure
from al_lightning.run.records import CycleResult, Query
from al_lightning.statistics import Curve, forecast
from al_lightning.statistics.forecast import DRIFT, FLOORS, NOISE, POWERS, RATES, WEIGHT

SIZES = (100, 200, 300, 400, 500)


def curve(error, sizes=SIZES):
    return Curve(tuple(sizes), tuple(1 - error(n) for n in sizes))


def power(n):
    return 0.01 + 0.3 * (n / 100) ** -1.2


def exponential(n):
    return 0.02 + 0.3 * math.exp(-n / 150)


def median_by_definition(found, num_labeled, level=0.8):
    """One curve after the other, each with many draws of noise at fixed quantiles."""
    last = found.num_labeled[-1]
    errors = [1 - a for a in found.accuracy]
    ratios = [n / last for n in found.num_labeled]
    shapes = [lambda r, c=c: r**-c for c in POWERS]
    shapes += [lambda r, c=c: math.exp(-c * (r - 1)) for c in RATES]
    outcomes, logs = [], []
    for floor in FLOORS:
        for fall in shapes:
            g = [floor + (1 - floor) * fall(r) for r in ratios]
            # Weighted least squares of one factor, weights 1 / error^2.
            w = [1 / e**2 for e in errors]
            scale = sum(wi * gi * e for wi, gi, e in zip(w, g, errors))
            scale /= sum(wi * gi**2 for wi, gi in zip(w, g))
            squares = sum(((e - scale * gi) / e) ** 2 for gi, e in zip(g, errors))
            shape = (WEIGHT + len(errors) - 1) / 2
            rate = (WEIGHT * NOISE**2 + squares) / 2
            logs.append(-shape * math.log(rate))
            ratio = num_labeled / last
            mean = math.log(max(scale * (floor + (1 - floor) * fall(ratio)), 1e-5))
            spread = math.sqrt(rate / shape + (DRIFT * math.log(ratio)) ** 2)
            outcomes.append((mean, spread))
    weights = np.exp(np.array(logs) - max(logs))
    draw = np.random.default_rng(0)
    which = draw.choice(len(outcomes), 200_000, p=weights / weights.sum())
    means, spreads = np.array(outcomes).T
    drawn = means[which] + spreads[which] * draw.standard_normal(len(which))
    outside = (1 - level) / 2
    low, middle, high = 1 - np.exp(np.quantile(drawn, [1 - outside, 0.5, outside]))
    return low, middle, high


@pytest.mark.parametrize("error", [power, exponential])
@pytest.mark.parametrize("num_labeled", [500, 700, 3000])
def test_a_forecast_is_its_definition(error, num_labeled):
    found = forecast(curve(error)).at(num_labeled)
    expected = median_by_definition(curve(error), num_labeled)
    for end, value in zip(("low", "accuracy", "high"), expected):
        assert 1 - getattr(found, end) == pytest.approx(1 - value, rel=0.06)  # of 15 quantiles


@pytest.mark.parametrize("error", [power, exponential])
def test_a_known_law_goes_on_as_it_began(error):
    ahead = forecast(curve(error))
    for n in (600, 1000, 2000):
        outlook = ahead.at(n)
        assert outlook.low < 1 - error(n) < outlook.high
        assert abs(outlook.accuracy - (1 - error(n))) < abs(1 - error(500) - (1 - error(n)))


def test_intervals_hold_what_they_say_under_the_noise_that_is_believed():
    draw, inside = random.Random(0), []
    for _ in range(200):
        c, floor = draw.uniform(0.5, 1.5), draw.uniform(0, 0.02)

        def error(n, c=c, floor=floor):
            return (floor + 0.3 * (n / 100) ** -c) * math.exp(draw.gauss(0, NOISE))

        outlook = forecast(curve(error)).at(750)
        inside.append(outlook.low <= 1 - error(750) <= outlook.high)
    assert 0.7 <= sum(inside) / len(inside) <= 0.98  # drift widens them, which this law has not


def test_intervals_widen_with_distance_and_level():
    ahead = forecast(curve(power))
    widths = [ahead.at(n).high - ahead.at(n).low for n in (600, 5000)]
    assert widths[0] < widths[1]
    wide = forecast(curve(power), level=0.95).at(600)
    assert wide.low < ahead.at(600).low < ahead.at(600).high < wide.high


def test_labels_to_an_accuracy():
    ahead = forecast(curve(power))
    needed = ahead.labels_to(0.97)
    assert needed.low < needed.num_labeled < needed.high
    assert ahead.at(needed.num_labeled).accuracy >= 0.97
    assert ahead.at(needed.num_labeled * 0.95).accuracy < 0.97
    assert power(needed.num_labeled * 0.8) > 0.03 > power(needed.num_labeled * 1.3)
    assert ahead.labels_to(0.5) == (100, 100, 100)  # it is there already
    assert ahead.labels_to(1.0).num_labeled == math.inf


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((Curve((10, 20), (0.5, 0.6)),), "needs three points or more, got 2"),
        ((Curve((1, 2, 3), (50.0, 60.0, 70.0)),), r"accuracies in \[0, 1\], got 50 to 70; divide"),
        ((Curve((1, 2, 3), (0.5, -0.1, 0.7)),), r"accuracies in \[0, 1\], got -0.1"),
    ],
)
def test_what_cannot_be_forecast_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        forecast(*given)
    with pytest.raises(ValueError, match="level must lie between 0 and 1"):
        forecast(curve(power), level=1.0)
    with pytest.raises(ValueError, match="looks ahead of the last point, at 500 labels, got 499"):
        forecast(curve(power)).at(499)
    with pytest.raises(ValueError, match="x must be an accuracy"):
        forecast(curve(power)).labels_to(math.nan)


@pytest.mark.parametrize("values", [(1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.9, 0.5, 0.9)])
def test_odd_curves_give_accuracies(values):
    outlook = forecast(Curve((10, 20, 30), values)).at(60)
    assert 0 <= outlook.low <= outlook.accuracy <= outlook.high <= 1


# ---- what shows it -------------------------------------------------------------------------------


def results(values, metric="test_acc", asked=0):
    found = [CycleResult(n + 1, 100 * (n + 1), {metric: v}) for n, v in enumerate(values)]
    if asked:
        last = found.pop()
        query = Query(last.cycle, list(range(asked)))
        found.append(CycleResult(last.cycle, last.num_labeled, last.metrics, query=query))
    return found


def test_the_next_size_is_that_of_the_open_query():
    assert next_size(results((0.5, 0.6, 0.7), asked=50)) == 350
    assert next_size(results((0.5, 0.6, 0.7))) == 400
    assert next_size(results((0.5, 0.6))) is None
    assert next_outlook(results((50.0, 60.0, 70.0))) is None
    assert curve_of(results((0.5, 0.6, 0.7), metric="val_acc")) is None


def test_the_picture_shows_it_behind_the_last_cycle():
    few, more = (progress_figure(results(v)).axes[0] for v in ((0.5, 0.6), (0.5, 0.6, 0.7)))
    assert len(few.lines) == 1
    assert list(more.lines[-1].get_xdata()) == [3, 4]


def test_console_and_tensorboard_show_it_from_the_third_cycle_on(tmp_path, capsys):
    run = {"trainer": TRAINER, "run_dir": tmp_path, "acquisition_size": 15}
    ActiveLearningLoop(Plain(), points_data(), **run, num_cycles=4).run()
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if line.startswith("cycle")]
    assert ["expect" in line for line in lines] == [False, False, True, True]
    assert "at 65 labels expect 0." in lines[2]
    assert "to expect" not in out  # there are no 500 more rows
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    middle, low, high = (events.Scalars(f"active/forecast{end}") for end in ("", "_low", "_high"))
    assert [one.step for one in middle] == [65, 80]
    assert all(a.value <= b.value <= c.value for a, b, c in zip(low, middle, high))
    resumed = ActiveLearningLoop.resume(
        tmp_path, Plain(), points_data(), trainer=TRAINER, num_cycles=5
    )
    resumed.run()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [one.step for one in events.Scalars("active/forecast")] == [65, 80, 95]
