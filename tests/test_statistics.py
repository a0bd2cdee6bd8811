"""Numbers out of learning curves, against slow definitions and SciPy's own tests."""

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from al_lightning.statistics import (
    Curve,
    accuracy_at,
    aubc,
    checkpoints,
    label_efficiency,
    labels_to,
    labels_to_interpolated,
    mean_curve,
    mean_interval,
    paired_t_test,
    penalty_matrix,
    quartiles,
)

NAN, INF = math.nan, math.inf
CURVE = Curve((20, 30, 50, 60), (0.5, 0.7, 0.6, 0.9))

accuracies = st.integers(0, 1000).map(lambda thousandths: thousandths / 1000)


@st.composite
def random_curves(draw, min_size=1):
    sizes = sorted(draw(st.sets(st.integers(1, 60), min_size=min_size, max_size=8)))
    values = draw(st.lists(accuracies, min_size=len(sizes), max_size=len(sizes)))
    return Curve(tuple(sizes), tuple(values))


def line(curve, size):
    """The curve at a size, by the definition of a line through two points."""
    points = list(zip(curve.num_labeled, curve.accuracy))
    for (n, a), (m, b) in zip(points, [*points[1:], points[-1]]):
        if n <= size <= m:
            return a if n == m else a * (m - size) / (m - n) + b * (size - n) / (m - n)


@pytest.mark.parametrize(
    ("sizes", "values", "message"),
    [
        ((), (), "sizes must be one or more, got none"),
        ((10, 20), (0.5,), "one accuracy a size, got 1 for 2 sizes; leave out"),
        ((10, 30, 20), (0.5, 0.6, 0.7), "strictly ascending, found 20 after 30; sort"),
        ((10, 10), (0.5, 0.6), "strictly ascending, found 10 after 10"),
        ((0, 10), (0.5, 0.6), "positive and strictly ascending, found 0 after 0"),
        ((10, 20), (0.5, NAN), "accuracy at size 20 must be finite, got nan; leave it out"),
        ((10, 20), (-INF, 0.5), "accuracy at size 10 must be finite, got -inf"),
    ],
)
def test_what_is_no_curve_is_refused(sizes, values, message):
    with pytest.raises(ValueError, match=message):
        Curve(sizes, values)


def test_a_curve_cannot_change_and_may_be_one_point():
    curve = Curve((5,), (0.5,))
    with pytest.raises(AttributeError):
        curve.accuracy = (0.7,)
    assert curve == Curve((5,), (0.5,))


# Areas and single accuracies


def test_area_by_hand():
    # 10 x .6 + 20 x .65 + 10 x .75 = 26.5 over 40 labels
    assert aubc(CURVE) == pytest.approx(26.5 / 40, rel=1e-15)
    # from 25 (.6) by 30 (.7) to 40 (.65): 5 x .65 + 10 x .675 = 10 over 15
    assert aubc(CURVE, (25, 40)) == pytest.approx(10 / 15, rel=1e-15)
    # from 29 (.68) to 51 (.63): 1 x .69 + 20 x .65 + 1 x .615 = 14.305 over 22
    assert aubc(CURVE, (29, 51)) == pytest.approx(14.305 / 22, rel=1e-15)
    # within one segment: the mean of .66 and .64
    assert aubc(CURVE, (38.0, 42.0)) == pytest.approx(0.65, rel=1e-15)
    assert aubc(CURVE, (30, 50)) == pytest.approx(0.65, rel=1e-15)
    assert type(aubc(CURVE)) is float


@settings(max_examples=40)
@given(random_curves(min_size=2), st.data())
def test_area_is_the_mean_height_of_the_lines(curve, data):
    first, last = curve.num_labeled[0], curve.num_labeled[-1]
    start = data.draw(st.integers(first, last - 1))
    end = data.draw(st.integers(start + 1, last))
    middles = start + (np.arange(16 * (end - start)) + 0.5) / 16  # exact: no cell holds a corner
    heights = [line(curve, middle) for middle in middles]
    assert aubc(curve, (start, end)) == pytest.approx(sum(heights) / len(heights), abs=1e-12)


@pytest.mark.parametrize("interval", [(40, 40), (40, 30), (19, 40), (30, 61), (NAN, 40), (30, INF)])
def test_an_interval_beyond_the_curve_or_without_length_is_refused(interval):
    found = rf"got \[{interval[0]}, {interval[1]}\] on a curve over \[20, 60\]; choose"
    with pytest.raises(ValueError, match=found):
        aubc(CURVE, interval)


def test_one_point_has_no_area():
    with pytest.raises(ValueError, match=r"must have a length .* got \[5, 5\] on a curve over"):
        aubc(Curve((5,), (0.5,)))


def test_accuracy_at_points_is_theirs_and_between_them_on_the_line():
    assert [accuracy_at(CURVE, n) for n in CURVE.num_labeled] == list(CURVE.accuracy)
    assert accuracy_at(CURVE, 45) == pytest.approx(0.625, rel=1e-15)
    assert type(accuracy_at(CURVE, 45)) is float
    assert accuracy_at(Curve((5,), (0.3,)), 5) == 0.3


@pytest.mark.parametrize("size", [19.9, 61, NAN, INF])
def test_accuracy_is_not_extrapolated(size):
    with pytest.raises(ValueError, match=rf"got {size} on a curve over \[20, 60\]; choose"):
        accuracy_at(CURVE, size)


# Labels needed


@pytest.mark.parametrize(
    ("x", "true", "optimistic", "sustained", "interpolated"),
    [
        (0.4, 20, 20, 20, 20),
        (0.5, 20, 20, 20, 20),  # met exactly, at the first point
        (0.6, 30, 20, 30, 25),  # three points from 30 on, the middle one exactly
        (0.65, 30, 20, INF, 27.5),  # the point at 50 falls below, and two are left after it
        (0.7, 30, 20, INF, 30),
        (0.75, 60, 50, INF, 55),
        (0.9, 60, 50, INF, 60),
        (0.91, INF, INF, INF, INF),
        (-INF, 20, 20, 20, 20),
        (INF, INF, INF, INF, INF),
    ],
)
def test_labels_to_by_hand(x, true, optimistic, sustained, interpolated):
    assert labels_to(CURVE, x) == true
    assert labels_to(CURVE, x, convention="optimistic") == optimistic
    assert labels_to(CURVE, x, sustained=True) == sustained
    assert labels_to_interpolated(CURVE, x) == pytest.approx(interpolated, rel=1e-14)
    assert type(labels_to(CURVE, x)) is type(labels_to_interpolated(CURVE, x)) is float


def test_sustained_and_optimistic_go_together_and_short_curves_sustain_nothing():
    curve = Curve((10, 13, 20, 30, 45), (0.9, 0.5, 0.9, 0.9, 0.9))
    assert labels_to(curve, 0.9, sustained=True) == 20
    assert labels_to(curve, 0.9, sustained=True, convention="optimistic") == 13
    assert labels_to(Curve((10, 20), (1.0, 1.0)), 0.9, sustained=True) == INF
    assert labels_to(Curve((10,), (1.0,)), 0.9) == labels_to_interpolated(Curve((10,), (1.0,)), 0.9)


@settings(max_examples=60)
@given(random_curves(), accuracies)
def test_labels_to_by_scanning(curve, x):
    sizes, values = curve.num_labeled, curve.accuracy
    true = optimistic = sustained = INF
    for i in reversed(range(len(sizes))):
        if values[i] >= x:
            true = sizes[i]
            optimistic = sizes[i] if i == 0 else sizes[i] - (sizes[i] - sizes[i - 1])
            if i + 2 < len(sizes) and values[i + 1] >= x and values[i + 2] >= x:
                sustained = sizes[i]
    assert labels_to(curve, x) == true
    assert labels_to(curve, x, convention="optimistic") == optimistic
    assert labels_to(curve, x, sustained=True) == sustained
    assert true <= labels_to(curve, x, sustained=True)


@settings(max_examples=60)
@given(random_curves(), accuracies)
def test_the_lines_first_reach_x_where_it_says(curve, x):
    size, true = labels_to_interpolated(curve, x), labels_to(curve, x)
    assert size <= true
    if size == INF:
        assert true == INF
        return
    before = [n for n in curve.num_labeled if n < true]
    assert size > max(before, default=0)  # on the segment that ends at the first point to reach it
    first = curve.num_labeled[0]
    assert all(
        line(curve, first + k / 40 * (size - first)) < x + 1e-9 for k in range(40 * (size > first))
    )
    if size > first:
        assert line(curve, size) == pytest.approx(x, abs=1e-9)


def test_labels_to_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match='"true" or "optimistic", got \'mean\''):
        labels_to(CURVE, 0.9, convention="mean")
    for function in labels_to, labels_to_interpolated:
        with pytest.raises(ValueError, match="x must be an accuracy to reach, got nan; pass"):
            function(CURVE, NAN)


def test_label_efficiency_says_who_reaches_it():
    fast, slow = Curve((20, 40), (0.5, 0.9)), Curve((20, 100), (0.5, 0.8))
    # .6 is a quarter of the way for the fast one (25), a third for the slow one (46 2/3)
    assert label_efficiency(fast, slow, 0.6) == pytest.approx((46 + 2 / 3) / 25)
    assert label_efficiency(slow, fast, 0.6) == pytest.approx(25 / (46 + 2 / 3))
    assert label_efficiency(fast, slow, 0.85) == INF
    assert label_efficiency(slow, fast, 0.85) == 0
    assert math.isnan(label_efficiency(fast, slow, 0.95))
    assert label_efficiency(fast, slow, 0.1) == 1  # both start beyond it


# Over seeds


def test_quartiles_of_six_runs_by_hand():
    # ranks ceil(1.5) = 2, ceil(3) = 3, ceil(4.5) = 5
    assert quartiles([6, 2, 5, 1, 4, 3]) == (2, 3, 5)
    # Six runs of BALD to 95 %: the last two never get there.
    assert quartiles([260, INF, 240, 270, INF, 260]) == (260, 260, INF)
    assert quartiles([INF] * 6) == (INF, INF, INF)
    assert quartiles([7]) == (7, 7, 7)
    assert quartiles([2, 1]) == (1, 1, 2)
    assert quartiles([4, 3, 2, 1]) == (1, 2, 3)
    assert all(type(value) is float for value in quartiles([1, 2, 3]))


@settings(max_examples=40)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=15))
def test_quartiles_are_the_least_values_with_enough_at_or_below_them(values):
    for share, found in zip((0.25, 0.5, 0.75), quartiles(values)):
        enough = [v for v in values if sum(w <= v for w in values) >= share * len(values)]
        assert found == min(enough)


@pytest.mark.parametrize("values", [[], [1.0, NAN]])
def test_quartiles_of_nothing_or_nan_are_refused(values):
    with pytest.raises(ValueError, match=r"one value or more and no NaN, got \[.*; give"):
        quartiles(values)


def test_mean_curve_by_hand():
    mean = mean_curve([Curve((10, 20), (0.5, 0.75)), Curve((10, 20), (0.75, 1.0))])
    assert mean == Curve((10, 20), (0.625, 0.875))
    assert all(type(value) is float for value in mean.accuracy)
    assert mean_curve([CURVE]) == CURVE


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((20, 30, 40, 60), "curve 1 has 40 where curve 0 has 50; cut"),
        ((20, 30), "curve 1 has nothing where curve 0 has 50; cut"),
        ((20, 30, 50, 60, 70), "curve 1 has 70 where curve 0 has nothing; cut"),
    ],
)
def test_curves_of_other_sizes_have_no_mean(sizes, message):
    with pytest.raises(ValueError, match=message):
        mean_curve([CURVE, Curve(sizes, (0.5,) * len(sizes))])


def test_no_curves_have_no_mean():
    with pytest.raises(ValueError, match="one curve or more, got none"):
        mean_curve([])


@settings(max_examples=30)
@given(st.lists(accuracies, min_size=2, max_size=8, unique=True), st.floats(0.01, 0.99))
def test_interval_of_the_mean_is_scipys(values, level):
    found = mean_interval(values, level)
    theirs = stats.ttest_1samp(values, 0).confidence_interval(level)
    assert (found.low, found.high) == pytest.approx(tuple(theirs), abs=1e-12)
    standard_error = stats.sem(values)
    other = stats.t.interval(level, len(values) - 1, np.mean(values), standard_error)
    assert (found.low, found.high) == pytest.approx(other, abs=1e-12)
    assert found.mean == pytest.approx(sum(values) / len(values))
    squares = sum((value - found.mean) ** 2 for value in values)
    assert found.std == pytest.approx(math.sqrt(squares / (len(values) - 1)))
    assert found.num == len(values)


def test_interval_by_hand_and_of_one_value():
    # t(.975, 2) = 4.302653, std .1, so .5 +- 4.302653 x .1 / sqrt(3)
    found = mean_interval([0.4, 0.5, 0.6])
    assert found == pytest.approx((0.5, 0.1, 0.251586, 0.748414, 3), abs=1e-6)
    assert [type(value) for value in found] == [float] * 4 + [int]
    assert mean_interval([0.7]) == (0.7, None, None, None, 1)
    assert mean_interval([0.5, 0.5]) == (0.5, 0, 0.5, 0.5, 2)


@pytest.mark.parametrize(
    ("values", "level", "message"),
    [
        ([], 0.95, "one value or more, got none"),
        ([0.5, INF], 0.95, "value 1 must be finite, got inf; .* quartiles"),
        ([0.5, 0.6], 95, "level must lie between 0 and 1, got 95; 5 % is 0.05"),
        ([0.5, 0.6], 1, "level must lie between 0 and 1, got 1"),
        ([0.5], NAN, "level must lie between 0 and 1, got nan"),
    ],
)
def test_what_has_no_interval_is_refused(values, level, message):
    with pytest.raises(ValueError, match=message):
        mean_interval(values, level)


# Between strategies

pairs = st.lists(st.tuples(accuracies, accuracies), min_size=2, max_size=7).filter(
    lambda found: len({round(a - b, 6) for a, b in found}) > 1
)


@settings(max_examples=40)
@given(pairs, st.floats(0.5, 0.99), st.randoms(use_true_random=False))
def test_paired_test_is_scipys_whatever_the_order_of_seeds(found, level, random):
    ours = {seed: a for seed, (a, _) in enumerate(found)}
    theirs = {seed: b for seed, (_, b) in enumerate(found)}
    shuffled = list(theirs.items())
    random.shuffle(shuffled)
    test = paired_t_test(ours, dict(shuffled), level)
    a, b = np.array(found).T
    reference = stats.ttest_rel(a, b)
    low, high = reference.confidence_interval(level)
    expected = ((a - b).mean(), low, high, reference.pvalue, len(found))
    assert test == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert [type(value) for value in test] == [float] * 4 + [int]


def test_paired_test_pairs_by_seed():
    ours, theirs = {1: 0.9, 2: 0.6, 3: 0.7}, {3: 0.69, 1: 0.88, 2: 0.57}
    test = paired_t_test(ours, theirs)
    # Differences .02, .03, .01: mean .02, std .01, t = 2 sqrt(3), and for 2 degrees of freedom
    # p = 1 - t / sqrt(2 + t^2) = 1 - sqrt(12 / 14)
    assert test.difference == pytest.approx(0.02)
    assert test.p == pytest.approx(1 - math.sqrt(12 / 14))
    by_position = stats.ttest_rel(list(ours.values()), list(theirs.values()))
    assert abs(by_position.pvalue - test.p) > 0.1


@settings(max_examples=25)
@given(pairs, st.data())
def test_what_a_seed_adds_to_both_sides_changes_nothing(found, data):
    ours = {seed: a for seed, (a, _) in enumerate(found)}
    theirs = {seed: b for seed, (_, b) in enumerate(found)}
    luck = {seed: data.draw(accuracies) for seed in ours}
    shifted = [{seed: value[seed] + luck[seed] for seed in luck} for value in (ours, theirs)]
    assert paired_t_test(*shifted) == pytest.approx(paired_t_test(ours, theirs), abs=1e-9)
    one, other = paired_t_test(ours, theirs), paired_t_test(theirs, ours)
    assert (other.difference, other.p) == pytest.approx((-one.difference, one.p))
    assert (other.low, other.high) == pytest.approx((-one.high, -one.low))


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ([0.5], [0.4], (0.1, None, None, None, 1)),
        ([0.5, 0.7, 0.9], [0.5, 0.7, 0.9], (0, 0, 0, 1, 3)),
        ([0.0, 0.0], [0.0, 0.0], (0, 0, 0, 1, 2)),
        ([0.75, 0.5], [0.5, 0.25], (0.25, 0.25, 0.25, 0, 2)),
        ([0.25, 0.5], [0.75, 1.0], (-0.5, -0.5, -0.5, 0, 2)),
        # One difference on paper, three in floating point.
        ([0.3, 0.2, 0.9], [0.2, 0.1, 0.8], (0.1, 0.1, 0.1, 0, 3)),
        # None on paper.
        ([0.1 + 0.2, 0.7, 0.5], [0.3, 0.1 + 0.6, 0.5], (0, 0, 0, 1, 3)),
        # Opposite ones are a spread around 0.
        ([0.5, 0.25], [0.25, 0.5], (0, -0.25 * 12.7062047, 0.25 * 12.7062047, 1, 2)),
    ],
)
def test_differences_without_spread(ours, theirs, expected):
    found = paired_t_test(dict(enumerate(ours)), dict(enumerate(theirs)))
    assert found == tuple(
        None if value is None else pytest.approx(value, rel=1e-8, abs=1e-15) for value in expected
    )
    if expected[3] in (0, 1):
        assert found.p == expected[3]


def test_a_small_spread_is_a_spread():
    wide = paired_t_test({1: 0.5, 2: 0.5, 3: 0.5}, {1: 0.4, 2: 0.4, 3: 0.4 + 1e-13})
    assert 0 < wide.p < 1e-12
    assert wide.low < wide.difference < wide.high


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        ({}, {}, "one seed or more, got none"),
        (
            {1: 0.5, 2: 0.5},
            {2: 0.5, 4: 0.5, 3: 0.5},
            r"ours lacks \[3, 4\] and theirs lacks \[1\];",
        ),
        ({1: 0.5, 2: 0.5}, {3: 0.5, 1: 0.5}, r"ours lacks \[3\] and theirs lacks \[2\]"),
        ({1: 0.5}, {}, r"ours lacks \[\] and theirs lacks \[1\]"),
        ({1: 0.5, 2: NAN}, {1: 0.5, 2: 0.5}, "ours at seed 2 must be finite, got nan; leave the"),
        (
            {1: 0.5},
            {1: INF},
            "theirs at seed 1 must be finite, got inf; leave the seed out on both",
        ),
    ],
)
def test_what_cannot_be_paired_is_refused(ours, theirs, message):
    with pytest.raises(ValueError, match=message):
        paired_t_test(ours, theirs)


def test_paired_test_checks_its_level_for_one_pair_too():
    with pytest.raises(ValueError, match="level must lie between 0 and 1, got 5"):
        paired_t_test({1: 0.5}, {1: 0.4}, level=5)


@pytest.mark.parametrize(
    ("sizes", "acquisition_size", "expected"),
    [
        (range(100, 1001, 100), None, [200, 300, 500, 900]),
        (range(100, 901, 100), None, [200, 300, 500, 900]),  # the last size counts
        (range(100, 901, 100), 300, [400, 700]),
        ([10, 12, 30], None, [12, 14, 18, 26]),
        ([10], None, []),
        ([10], 5, []),
        ([10, 20], 11, []),
    ],
)
def test_checkpoints_by_hand(sizes, acquisition_size, expected):
    assert checkpoints(sizes, acquisition_size) == expected


@pytest.mark.parametrize(
    ("sizes", "acquisition_size", "message"),
    [
        ([], None, "sizes must be one or more"),
        ([20, 10], None, "strictly ascending, found 10 after 20"),
        ([10, 20], 0, "acquisition_size must be 1 or more, got 0; pass"),
        ([10, 20], -5, "acquisition_size must be 1 or more, got -5"),
    ],
)
def test_checkpoints_refuse_what_never_ends(sizes, acquisition_size, message):
    with pytest.raises(ValueError, match=message):
        checkpoints(sizes, acquisition_size)


def penalties_by_definition(curves, acquisition_size, alpha):
    names, (first, *_) = list(curves), next(iter(curves.values())).values()
    sizes = first.num_labeled
    at, step = [], acquisition_size or sizes[1] - sizes[0]
    while sizes[0] + step <= sizes[-1]:
        at.append(sizes[0] + step)
        step = step + step
    cells = np.zeros((len(names), len(names)))
    for i, j in permutations(range(len(names)), 2):
        for size in at:
            ours, theirs = (
                [line(curves[names[k]][seed], size) for seed in sorted(curves[names[k]])]
                for k in (i, j)
            )
            one_sided = stats.ttest_rel(ours, theirs, alternative="greater").pvalue
            cells[i, j] += (one_sided < alpha / 2) / len(at)  # half of two sides, and i above j
    return cells


@pytest.mark.parametrize(
    ("acquisition_size", "alpha"), [(None, 0.05), (None, 0.3), (25, 0.2), (130, 0.2)]
)
def test_penalty_matrix_by_definition(acquisition_size, alpha):
    random = np.random.default_rng(7)
    sizes, seeds = tuple(range(100, 301, 20)), [3, 1, 2, 8]
    means = random.uniform(0.5, 0.6, size=(5, len(sizes)))
    luck = random.normal(scale=0.1, size=(len(seeds), len(sizes)))
    curves = {}
    for name, mean in zip("dbace", means):
        noise = random.normal(scale=0.02, size=luck.shape)
        runs = dict(zip(seeds, mean + luck + noise))
        order = random.permutation(seeds).tolist()
        curves[name] = {seed: Curve(sizes, tuple(runs[seed].tolist())) for seed in order}
    found = penalty_matrix(curves, acquisition_size=acquisition_size, alpha=alpha)
    assert found == pytest.approx(penalties_by_definition(curves, acquisition_size, alpha))
    assert found.shape == (5, 5)
    assert found.dtype == np.float64
    assert found.sum() > 0
    assert (np.diag(found) == 0).all()
    assert (found + found.T <= 1).all()


def runs(*ends, sizes=(10, 20, 30)):
    """A run a seed, from .5 straight to each of its values after the first size."""
    return {seed: Curve(sizes, (0.5, *end)) for seed, end in enumerate(ends)}


def test_penalty_matrix_by_hand():
    curves = {
        "random": runs((0.6, 0.7), (0.62, 0.71), (0.64, 0.69)),
        "best": runs((0.7, 0.8), (0.73, 0.8), (0.75, 0.8)),
        "late": runs((0.6, 0.8), (0.61, 0.79), (0.65, 0.81)),
    }
    # At 20: best - random .1 .11 .11 (p = .001), best - late .1 .12 .1 (.004), late - random
    # 0 -.01 .01 (1). At 30: best - random .1 .09 .11, late - random .1 .08 .12 (.013), best - late
    # 0 .01 -.01.
    expected = [[0, 0, 0], [1, 0, 0.5], [0.5, 0, 0]]
    assert penalty_matrix(curves).tolist() == expected
    reordered = penalty_matrix({name: curves[name] for name in ("late", "random", "best")})
    assert reordered.tolist() == [[0, 0.5, 0], [0, 0, 0], [0.5, 1, 0]]
    # p of late over random is .013, and of best over random at 30 .003
    assert penalty_matrix(curves, alpha=0.01).tolist() == [[0, 0, 0], [1, 0, 0.5], [0, 0, 0]]


def test_penalty_matrix_of_ties_equal_gains_and_one_strategy():
    flat = {"a": runs((0.6, 0.7), (0.5, 0.9)), "b": runs((0.6, 0.7), (0.5, 0.9))}
    assert (penalty_matrix(flat) == 0).all()
    gains = {"a": runs((0.2, 0.7), (0.1, 0.9)), "b": runs((0.3, 0.7), (0.2, 0.9))}
    assert penalty_matrix(gains).tolist() == [[0, 0], [0.5, 0]]
    assert penalty_matrix({"a": runs((0.6, 0.7), (0.5, 0.9))}).tolist() == [[0]]


TWO = runs((0.6, 0.7), (0.5, 0.9))


@pytest.mark.parametrize(
    ("curves", "options", "message"),
    [
        ({}, {}, "one strategy or more, got none"),
        ({"a": TWO, "b": runs((0.6, 0.7))}, {}, r"'b' lacks \[1\] and 'a' lacks \[\]; run"),
        ({"a": TWO, "b": {0: TWO[0], 5: TWO[1]}}, {}, r"'b' lacks \[1\] and 'a' lacks \[5\]; run"),
        ({"a": runs((0.6, 0.7))}, {}, r"two seeds or more, 'a' has \[0\]; run more seeds"),
        ({"a": {}}, {}, r"two seeds or more, 'a' has \[\]"),
        (
            {"a": TWO, "b": {0: TWO[0], 1: Curve((10, 20, 35), (0.5, 0.6, 0.7))}},
            {},
            "'b' at seed 1 has 35 where 'a' at seed 0 has 30; cut",
        ),
        (
            {"a": {0: TWO[0], 1: Curve((10, 20), (0.5, 0.6))}},
            {},
            "'a' at seed 1 has nothing where 'a' at seed 0 has 30",
        ),
        ({"a": runs((), (), sizes=(10,))}, {}, "one checkpoint or more, found none"),
        ({"a": TWO}, {"acquisition_size": 21}, "one checkpoint or more, .* smaller acquisition"),
        ({"a": TWO}, {"acquisition_size": 0}, "acquisition_size must be 1 or more, got 0"),
        ({"a": TWO}, {"alpha": 5}, "alpha must lie between 0 and 1, got 5"),
    ],
)
def test_what_gives_no_penalty_matrix_is_refused(curves, options, message):
    with pytest.raises(ValueError, match=message):
        penalty_matrix(curves, **options)
