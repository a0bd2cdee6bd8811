"""The examples, run as a user runs them: they learn, and leave the run folder that is promised."""

import ast
import contextlib
import csv
import io
import json
import math
import re
import runpy
import sys
import tokenize
from pathlib import Path
from typing import NamedTuple

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


class Case(NamedTuple):
    """What is known of an example beforehand."""

    name: str
    labels: list[int]
    """Training-set sizes of the first two cycles."""
    has_images: bool
    metric: str
    within: tuple[float, float]
    """Bounds of the metric in the first two cycles, better than chance."""
    predicted: str
    """A pattern of what is told of a row that is asked."""
    label: str


CLASS = "0|1|2"
SHAPE = "triangle|square|circle"
SHAPES = r"none|(triangle|square|circle)(; (square|circle))*"
CASES = [
    Case("resnet_shapes", [50, 100], True, "test_acc", (0.5, 1), CLASS, CLASS),
    Case("tabular_dicts", [30, 60], False, "test_acc", (0.5, 1), CLASS, CLASS),
    Case("multilabel_shapes", [60, 120], True, "test_acc", (0.62, 1), SHAPES, SHAPES),
    Case("diabetes_regression", [30, 45], False, "test_mae", (0, 0.8), r"\S+ ± \S+", r"-?\d.*"),
    Case("segment_shapes", [20, 40], True, "test_iou", (0.4, 1), r"ground \d+ %;.*", "labeled"),
    Case("tag_tokens", [30, 60], False, "test_acc", (0.5, 1), r"\d \d+ %;.*", "labeled"),
    Case("image_folder", [60, 120], True, "test_acc", (0.35, 1), SHAPE, SHAPE),
    Case("classify_text", [60, 120], False, "test_acc", (0.4, 1), "good|bad", "good|bad"),
    Case("frozen_features", [10, 30], True, "test_acc", (0.35, 1), r"\d", r"\d"),
    Case("fixmatch", [20, 40], True, "test_acc", (0.35, 1), r"\d", r"\d"),
    Case("detect_shapes", [40, 80], True, "test_f1", (0.3, 1), "", r"\[.*\]"),
]


class Finished(NamedTuple):
    case: Case
    folder: Path
    printed: str

    def table(self, name: str) -> list[dict[str, str]]:
        with open(self.folder / name, newline="") as file:
            return list(csv.DictReader(file))


def run_example(case: Case, folder: Path, *options: str) -> Finished:
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setenv("PL_GLOBAL_SEED", "")  # seed_everything sets it: put it back afterwards
        patch.chdir(folder.parent)  # it may draw pictures beside its run
        patch.syspath_prepend(str(EXAMPLES))
        patch.setattr(sys, "argv", [f"{case.name}.py", "--run_dir", str(folder), *options])
        runpy.run_path(str(EXAMPLES / f"{case.name}.py"), run_name="__main__")
    return Finished(case, folder, printed.getvalue())


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def finished(request, tmp_path_factory) -> Finished:
    folder = tmp_path_factory.mktemp(request.param.name) / "run"
    return run_example(request.param, folder, "--num_cycles", "2")


def test_it_prints_a_line_a_cycle(finished):
    lines = [line for line in finished.printed.splitlines() if line.startswith("cycle ")]
    expected = [f"cycle {i}/2 | labels {n} " for i, n in enumerate(finished.case.labels, 1)]
    assert [line[: len(start)] for line, start in zip(lines, expected, strict=True)] == expected


def test_it_beats_chance(finished):
    low, high = finished.case.within
    values = [float(row[finished.case.metric]) for row in finished.table("metrics.csv")]
    assert all(low < value < high for value in values), values
    assert f"{finished.case.metric} {values[0]:.4f}" in finished.printed


def test_the_metrics_hold_a_row_a_cycle(finished):
    rows = finished.table("metrics.csv")
    assert [int(row["num_labeled"]) for row in rows] == finished.case.labels
    assert all(math.isfinite(float(row["train_loss"])) for row in rows)


def test_the_journal_tells_the_whole_run(finished):
    lines = (finished.folder / "journal.jsonl").read_text().splitlines()
    events = [json.loads(line)["event"] for line in lines]
    assert events == ["start", "fit", "test", "query", "labels", "fit", "test", "end"]


def test_the_query_is_written_with_labels_and_predictions(finished):
    rows = finished.table("queries/cycle_1.csv")
    first, second = finished.case.labels
    assert len({int(row["index"]) for row in rows}) == len(rows) == second - first
    for row in rows:
        assert re.fullmatch(finished.case.predicted, row["predicted"])
        assert re.fullmatch(finished.case.label, row["label"])
    scores = [float(row["score"]) for row in rows if row["score"]]  # herding has none
    assert scores == sorted(scores, reverse=True)
    assert not (finished.folder / "queries" / "cycle_2.csv").exists()


def test_the_pictures_are_there_and_the_query_is_shown_only_where_rows_are_images(finished):
    assert (finished.folder / "progress.png").stat().st_size > 0
    pictures = [path.name for path in (finished.folder / "queries").glob("*.png")]
    assert pictures == (["cycle_1.png"] if finished.case.has_images else [])


def test_tensorboard_has_the_run_and_each_cycle(finished):
    for folder in ("", "cycle_1", "cycle_2"):
        assert list((finished.folder / folder).glob("events.out.tfevents.*")), folder


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES[:2], ids=lambda case: case.name)
def test_accuracy_goes_up_with_the_defaults(case, tmp_path):
    rows = run_example(case, tmp_path / "run").table("metrics.csv")
    assert float(rows[-1]["test_acc"]) > float(rows[0]["test_acc"]) + 0.05


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_under_60_lines_of_code(path):
    assert num_code_lines(path.read_text()) < 60


def num_code_lines(source: str) -> int:
    """Lines that hold code: not blank, not a comment, not a docstring."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = {
        line
        for node in ast.walk(ast.parse(source))
        if isinstance(node, documented) and ast.get_docstring(node) is not None
        for line in range(node.body[0].lineno, node.body[0].end_lineno + 1)
    }
    layout = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    code = {
        line
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type not in layout
        for line in range(token.start[0], token.end[0] + 1)
    }
    return len(code - docstrings)


def test_code_lines_are_counted_as_we_say():
    source = '"""One.\n\nTwo."""\n\n# Three.\nx = [\n    1,\n]  # four\ny = """a\nb"""\n'
    assert num_code_lines(source) == 5
