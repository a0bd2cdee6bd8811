"""The report of a comparison: every number against plain NumPy and SciPy, figures, TensorBoard."""

import csv
import io
import math
import re
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from scipy import stats
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from al_lightning.compare.comparison import Comparison
from al_lightning.compare.figures import (
    curves_figure,
    efficiency_figure,
    penalty_figure,
    styles,
)
from al_lightning.compare.report import summary_rows, write_report
from al_lightning.compare.summary import summary_text
from al_lightning.statistics import Curve, penalty_matrix

SIZES = (20, 40, 60, 80, 100)
SHAPES = {
    "margin": (0.50, 0.75, 0.85, 0.90, 0.93),
    "random": (0.50, 0.65, 0.75, 0.82, 0.86),
    "bad": (0.50, 0.58, 0.66, 0.72, 0.77),
    "same": (0.50, 0.65, 0.75, 0.82, 0.86),
}
PICTURES = ["curves", "efficiency", "penalty"]


def comparison(names=tuple(SHAPES), num_seeds=5, num_sizes=5, thresholds=(0.8, 0.9), **changes):
    """Curves around ``SHAPES``: rounded as a test set of 10,000 rows would give them."""
    sizes, curves, rows = SIZES[:num_sizes], {}, []
    for place, name in enumerate(names):
        curves[name] = {}
        for seed in range(1, num_seeds + 1):
            noise = np.random.default_rng([seed, place]).normal(0, 0.01, num_sizes)
            accuracy = (np.array(SHAPES.get(name, SHAPES["same"])[:num_sizes]) + noise).round(4)
            curves[name][seed] = Curve(sizes, tuple(accuracy.tolist()))
            rows += [
                {"strategy": name, "seed": seed, "cycle": cycle, "num_labeled": size, "test_acc": a}
                | ({"fit_seconds": 1.5} if cycle else {})
                for cycle, (size, a) in enumerate(zip(sizes, accuracy.tolist(), strict=True))
            ]
    given = {"metric": "test_acc", "interval": (sizes[0], sizes[-1]), "thresholds": thresholds}
    return Comparison(curves=curves, rows=rows, **{**given, **changes})


def table(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


def markdown_rows(text, first):
    """Cells of the table whose header begins with ``first``, header first."""
    lines = text[text.index(f"| {first} ") :].split("\n\n")[0].splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if "---" not in line
    ]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A report that was written twice, first of another comparison, beside runs."""
    out = tmp_path_factory.mktemp("comparison")
    run = out / "margin" / "seed_1"
    run.mkdir(parents=True)
    for folder in (out, out / "margin", run):
        (folder / "events.out.tfevents.1.host.1.0").write_bytes(b"")
    (run / "events.out.tfevents.1.host.1.0.compare").write_bytes(b"")
    write_report(comparison(("random", "margin", "gone"), 2), out)
    write_report(comparison(), out)
    return out


def test_results_hold_every_point_and_empty_cells(out):
    rows = table(out / "results.csv")
    assert list(rows[0]) == [
        *("strategy", "seed", "cycle", "num_labeled", "test_acc", "fit_seconds")
    ]
    assert len(rows) == 4 * 5 * 5
    assert {(row["cycle"] == "0", row["fit_seconds"]) for row in rows} == {
        (True, ""),
        (False, "1.5"),
    }


@pytest.fixture(scope="module")
def accuracies(out):
    """Accuracy by strategy, (seeds, sizes), read from ``results.csv``."""
    rows = table(out / "results.csv")
    return {
        name: np.array([float(r["test_acc"]) for r in rows if r["strategy"] == name]).reshape(5, 5)
        for name in SHAPES
    }


def area(accuracy):
    return sum((a + b) / 2 * 20 for a, b in pairwise(accuracy)) / 80


@pytest.mark.parametrize("measure", ["aubc", "final"])
def test_means_and_differences_are_as_scipy_has_them(out, accuracies, measure):
    values = {
        name: np.array([area(run) if measure == "aubc" else run[-1] for run in runs])
        for name, runs in accuracies.items()
    }
    rows = table(out / "summary.csv")
    assert [row["strategy"] for row in rows] == list(SHAPES)
    for row in rows:
        ours, theirs = values[row["strategy"]], values["random"]
        low, high = stats.t.interval(0.95, 4, ours.mean(), stats.sem(ours))
        found = [float(row[f"{measure}_{part}"]) for part in ("mean", "std", "low", "high")]
        np.testing.assert_allclose(found, [ours.mean(), ours.std(ddof=1), low, high])
        column = f"{measure}_minus_random"
        cells = [row[f"{column}{end}"] for end in ("", "_low", "_high", "_p")]
        if row["strategy"] == "random":
            assert cells == [""] * 4
            continue
        test = stats.ttest_rel(ours, theirs)
        expected = [(ours - theirs).mean(), *test.confidence_interval(0.95), test.pvalue]
        np.testing.assert_allclose([float(cell) for cell in cells], expected)


def first_size(accuracy, x, in_a_row=1, before=0):
    for i in range(len(accuracy) - in_a_row + 1):
        if all(accuracy[i : i + in_a_row] >= x):
            return SIZES[max(i - before, 0)]
    return math.inf


@pytest.mark.parametrize("x", [0.8, 0.9])
def test_labels_to_are_ranks_of_the_runs_and_never_is_inf(out, accuracies, x):
    seen = set()
    for row in table(out / "summary.csv"):
        runs = accuracies[row["strategy"]]
        true = sorted(first_size(run, x) for run in runs)
        found = [row[f"labels_to_{x}_q{q}"] for q in (25, 50, 75)]
        assert [float(cell) for cell in found] == [true[1], true[2], true[3]]
        sustained = sorted(first_size(run, x, in_a_row=3) for run in runs)[2]
        optimistic = sorted(first_size(run, x, before=1) for run in runs)[2]
        assert float(row[f"labels_to_{x}_sustained_q50"]) == sustained
        assert float(row[f"labels_to_{x}_optimistic_q50"]) == optimistic
        seen |= set(found)
    assert "inf" in seen
    assert len(seen) > 1


def test_efficiency_is_on_mean_curves(out, accuracies):
    rows = {row["strategy"]: row for row in table(out / "summary.csv")}
    # These means ascend, so that an interpolated size is a look-up.
    margin, random = (accuracies[name].mean(0) for name in ("margin", "random"))
    expected = np.interp(0.8, random, SIZES) / np.interp(0.8, margin, SIZES)
    assert float(rows["margin"]["mean_curve_efficiency_0.8"]) == pytest.approx(expected)
    assert float(rows["random"]["mean_curve_efficiency_0.8"]) == 1
    assert rows["margin"]["mean_curve_efficiency_0.9"] == "inf"  # random never gets there
    assert float(rows["bad"]["mean_curve_efficiency_0.8"]) == 0
    for strategy in ("random", "bad"):
        assert rows[strategy]["mean_curve_efficiency_0.9"] == ""


def test_penalties_are_the_means_of_the_columns(out):
    matrix = penalty_matrix(comparison().curves)
    found = [float(row["penalty"]) for row in table(out / "summary.csv")]
    np.testing.assert_allclose(found, matrix.mean(0))
    header, *rows = markdown_rows((out / "summary.md").read_text("utf-8"), "beats")
    order = [list(SHAPES).index(name) for name in header[1:]]
    shown = [[0 if cell == "-" else float(cell) for cell in row[1:]] for row in rows]
    matrix = matrix[np.ix_(order, order)]
    np.testing.assert_allclose(shown, [*matrix, matrix.mean(0)], atol=0.005)


def test_the_summary_has_a_row_a_strategy_best_first(out, accuracies):
    header, *rows = markdown_rows((out / "summary.md").read_text("utf-8"), "strategy")
    finals = {name: runs[:, -1].mean() for name, runs in accuracies.items()}
    assert [row[0] for row in rows] == sorted(finals, key=finals.get, reverse=True)
    margin = dict(zip(header, rows[0]))
    half = stats.t.ppf(0.975, 4) * stats.sem(accuracies["margin"][:, -1])
    assert margin["test accuracy at 100 labels"] == f"{finals['margin']:.4f} ± {half:.4f}"
    assert re.fullmatch(r"\+0\.\d{4} \(p < 0\.001\)", margin["minus random, at the end"])
    by_name = {row[0]: dict(zip(header, row)) for row in rows}
    assert by_name["random"]["minus random, by AUBC"] == ""
    assert by_name["bad"]["labels to 0.9 (25/50/75 %)"] == ">100 / >100 / >100"


def test_one_strategy_beats_nobody(tmp_path):
    curves = {"margin": {1: Curve((20, 40), (0.5, 0.8)), 2: Curve((20, 40), (0.6, 0.8))}}
    write_report(Comparison("test_acc", curves, [], (20, 40)), tmp_path)
    text = (tmp_path / "summary.md").read_text("utf-8")
    assert "Did not beat" not in text
    assert "minus margin" not in text
    assert "| margin | 0.8000" in text


def test_differences_that_are_all_equal_are_no_proof(tmp_path):
    curves = {
        name: {seed: Curve((20, 40), (0.5, 0.5 + seed / 8 + more)) for seed in (1, 2)}
        for name, more in {"random": 0.0, "margin": 0.125}.items()
    }
    write_report(Comparison("test_acc", curves, [], (20, 40)), tmp_path)
    text = (tmp_path / "summary.md").read_text("utf-8")
    assert "at the end +0.1250 (+0.1250 to +0.1250): no test can weigh differences that are" in text
    assert "p < 0.001" not in text


def test_the_summary_states_the_protocol(out):
    text = (out / "summary.md").read_text("utf-8")
    for part in (
        "test accuracy (`test_acc`) at 5 sizes from 20 to 100 labels",
        "5 seeds (1, 2, 3, 4, 5)",
        "from 20 to 100 labels, divided by the width",
        "rows in the training set",
        "pointwise 95 % t intervals of the mean over seeds",
        "two-sided paired t-tests by seed, not corrected for their number, which is ",
    ):
        assert part in text


def did_not_beat(text):
    return text.split("## Did not beat")[1].split("##")[0]


def test_who_did_not_beat_the_baseline_is_said_and_by_how_much(out, accuracies):
    section = did_not_beat((out / "summary.md").read_text("utf-8"))
    lines = {line[2:].split(":")[0]: line for line in section.splitlines() if line[:1] == "-"}
    assert set(lines) == {"bad", "same"}
    difference = (accuracies["bad"] - accuracies["random"])[:, -1].mean()
    assert f"at the end {difference:+.4f} (" in lines["bad"]
    assert lines["bad"].count("**significantly worse**") == 2
    assert lines["same"].count("not significantly different") == 2


def test_it_is_said_when_all_beat_the_baseline():
    given = comparison(("random", "margin"))
    text = summary_text(given, summary_rows(given))
    assert "None: every other strategy was significantly better" in did_not_beat(text)


def test_one_measure_that_fails_is_enough_to_be_listed():
    given = comparison(("random", "margin"))
    given.curves["margin"] = {
        seed: Curve(SIZES, (*curve.accuracy[:-1], given.curves["random"][seed].accuracy[-1]))
        for seed, curve in given.curves["margin"].items()
    }
    line = did_not_beat(summary_text(given, summary_rows(given)))
    assert "at the end +0.0000 (+0.0000 to +0.0000, p = 1.000): not significantly diff" in line
    assert re.search(r"by AUBC \+.*: significantly better", line)


def test_one_seed_has_neither_intervals_nor_tests(tmp_path):
    given = comparison(num_seeds=1)
    write_report(given, tmp_path)
    rows = table(tmp_path / "summary.csv")
    unknown = [name for name in rows[0] if re.search("_(std|low|high|p)$|^penalty$", name)]
    assert len(unknown) == 2 * 3 + 2 * 3 + 1
    assert {row[name] for row in rows for name in unknown} == {""}
    text = (tmp_path / "summary.md").read_text("utf-8")
    assert "One seed: no interval or test can be given; run at least two, better five" in text
    assert "±" not in text
    assert "p = " not in text
    assert "significant" not in text
    assert "- bad: at the end -0.0" in text
    figure = curves_figure(given)
    assert not figure.axes[0].collections
    assert "no interval" in caption(figure)
    assert "two seeds" in penalty_figure(given).texts[0].get_text()


def test_one_size_has_no_area_and_no_ratio(tmp_path):
    given = comparison(num_sizes=1, interval=(20, 20))
    write_report(given, tmp_path)
    for row in table(tmp_path / "summary.csv"):
        areas = [row[name] for name in row if "aubc" in name or "sustained" in name]
        assert set(areas) == {""}
        assert row["penalty"] == ""
        assert row["final_mean"] != ""
    assert "One size: no AUBC can be given." in (tmp_path / "summary.md").read_text("utf-8")
    assert "two sizes" in penalty_figure(given).texts[0].get_text()
    assert "two sizes" in efficiency_figure(given).texts[0].get_text()
    assert all(len(lines.get_segments()) == 1 for lines in curves_figure(given).axes[0].collections)


def test_the_first_strategy_is_the_baseline_where_none_is_called_random():
    given = comparison(("same", "margin", "bad"))
    assert given.baseline == "same"
    rows = summary_rows(given)
    assert rows[0]["final_minus_same"] is None
    assert rows[1]["final_minus_same"] > 0
    assert "## Did not beat same" in summary_text(given, rows)
    assert styles(given)["same"]["color"] == "black"
    assert "labels of same" in efficiency_figure(given).axes[0].get_ylabel()


def test_without_thresholds_it_is_what_the_baseline_ended_with():
    given = comparison(thresholds=())
    final = np.mean([curve.accuracy[-1] for curve in given.curves["random"].values()])
    (x,) = given.levels
    assert 0 <= final - x < 1e-4
    row = next(row for row in summary_rows(given) if row["strategy"] == "random")
    assert row[f"mean_curve_efficiency_{x}"] == 1
    assert "what random ended with on average" in summary_text(given, summary_rows(given))


def test_a_metric_of_unknown_words_keeps_its_name():
    assert comparison(metric="val_acc").metric_words == "validation accuracy"
    assert comparison(metric="test_f1").metric_words == "test_f1"


def test_pictures_are_there_and_not_blank(out):
    for name in PICTURES:
        with Image.open(out / f"{name}.png") as image:
            low, high = image.convert("L").getextrema()
        assert low < 50
        assert high > 200


def caption(figure):
    return " ".join(figure.get_supxlabel().split())


def test_curves_name_their_axes_and_what_is_drawn():
    given = comparison()
    figure = curves_figure(given)
    axes = figure.axes[0]
    assert axes.get_xlabel() == "labels (rows in the training set)"
    assert axes.get_ylabel() == "test accuracy"
    assert len(axes.collections) == 4  # bands
    for part in (
        "5 seeds",
        "bands: pointwise 95 % t interval",
        "initial ones included",
        "20 to 100",
    ):
        assert part in caption(figure)
    shown = [text.get_text().split()[0] for text in figure.legends[0].get_texts()]
    assert shown == given.ranked
    margin = next(line for line in axes.lines if line.get_label().startswith("margin"))
    np.testing.assert_allclose(margin.get_ydata(), given.mean("margin").accuracy)


def interval_at(given, strategy, place):
    values = [curve.accuracy[place] for curve in given.curves[strategy].values()]
    return stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))


def test_bands_hold_the_interval_of_the_mean():
    given = comparison(("random", "margin"))
    band = curves_figure(given).axes[0].collections[1].get_paths()[0].vertices
    at = band[band[:, 0] == SIZES[2], 1]
    np.testing.assert_allclose([at.min(), at.max()], interval_at(given, "margin", 2))


def test_bars_of_many_strategies_take_turns():
    given = comparison([*SHAPES, "e", "f", "g"])
    bars = [lines.get_segments() for lines in curves_figure(given).axes[0].collections]
    assert len(bars) == 7
    places = set()
    for strategy, segments in zip(styles(given), bars):
        for (x, low), (_, high) in segments:
            places.add(SIZES.index(x))
            np.testing.assert_allclose((low, high), interval_at(given, strategy, SIZES.index(x)))
        assert 0 < len(segments) < 5
    assert places == set(range(5))


def test_intervals_far_wider_than_the_runs_do_not_set_the_scale():
    figure = curves_figure(comparison(num_seeds=2, names=("random", "margin")))
    low, high = figure.axes[0].get_ylim()
    assert 0.4 < low < high < 1
    assert "cut off at the frame" in caption(figure)


def test_efficiency_goes_on_as_a_bound_where_the_baseline_ends():
    given = comparison()
    figure = efficiency_figure(given)
    axes = figure.axes[0]
    assert axes.get_ylabel() == "labels of random / labels of the strategy (ratio)"
    assert axes.get_xlabel() == "test accuracy to reach"
    assert "lower bound, since random does not reach that accuracy" in caption(figure)
    ratio, bound = axes.lines[2:4]  # the baseline's two come first
    assert ratio.get_label() == "margin"
    x, best = ratio.get_xdata(), max(given.mean("random").accuracy)
    np.testing.assert_array_equal(np.isfinite(ratio.get_ydata()), x <= best)
    np.testing.assert_array_equal(np.isfinite(bound.get_ydata()), x > best)
    assert bound.get_ydata()[-1] == pytest.approx(1)  # both at the last size
    assert x[0] == given.mean("random").accuracy[0]


def test_penalties_are_printed_in_the_cells():
    given = comparison()
    figure = penalty_figure(given)
    axes = figure.axes[0]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("beats", "is beaten")
    assert [label.get_text() for label in axes.get_yticklabels()] == [*given.ranked, "column mean"]
    printed = {text.get_position(): text for text in axes.texts}
    place = {name: i for i, name in enumerate(given.ranked)}
    cell = printed[place["bad"], place["margin"]]
    names = list(SHAPES)
    expected = penalty_matrix(given.curves)[names.index("margin"), names.index("bad")]
    assert cell.get_text() == f"{expected:.2f}" != "0.00"
    assert cell.get_color() == "white"
    assert printed[place["margin"], place["bad"]].get_text() == "0"
    assert printed[place["margin"], place["bad"]].get_color() == "black"
    assert "p < 0.05" in caption(figure)


def test_18_strategies_look_different_and_stay_as_they_are():
    names = ["random", *(f"other_{i}" for i in range(17))]
    given = comparison(names, 2)
    found = styles(given)
    looks = [[style[of] for of in ("color", "marker", "linestyle")] for style in found.values()]
    assert len(set(map(str, looks))) == 18
    # In grey, too.
    marks = {(style["marker"], style["markerfacecolor"] == "white") for style in found.values()}
    assert len(marks) == 18
    fewer = styles(comparison(names[:9], 2))
    assert fewer == {name: found[name] for name in names[:9]}
    figure = curves_figure(given)
    FigureCanvasAgg(figure).draw()  # warns when it does not fit
    assert "bars, at some of the sizes" in caption(figure)
    frame, legend = figure.axes[0].get_window_extent(), figure.legends[0].get_window_extent()
    assert legend.x0 > frame.x1
    assert legend.y0 > 0


def test_tensorboard_shows_each_point_once_after_writing_twice(out):
    shown = EventAccumulator(str(out), {"images": 0, "tensors": 0}).Reload()
    assert shown.Tags()["images"] == [f"compare/{name}" for name in PICTURES]
    assert all(len(shown.Images(f"compare/{name}")) == 1 for name in PICTURES)
    (text,) = shown.Tensors("compare/summary/text_summary")
    written = text.tensor_proto.string_val[0].decode("utf-8")
    assert written == (out / "summary.md").read_text("utf-8")
    for strategy in SHAPES:
        curve = EventAccumulator(str(out / strategy)).Reload()
        assert curve.Tags()["scalars"] == ["compare/test_acc"]
        points = [(event.step, event.value) for event in curve.Scalars("compare/test_acc")]
        mean = comparison().mean(strategy)
        np.testing.assert_allclose(points, list(zip(SIZES, mean.accuracy)), rtol=1e-6)


def test_what_others_wrote_is_left_alone_and_what_is_gone_is_gone(out):
    for folder in (out, out / "margin", out / "margin" / "seed_1"):
        assert (folder / "events.out.tfevents.1.host.1.0").exists()
    assert (out / "margin" / "seed_1" / "events.out.tfevents.1.host.1.0.compare").exists()
    assert not list((out / "gone").iterdir())
