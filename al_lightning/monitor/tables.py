"""``metrics.csv``, ``queries/cycle_N.csv``, and ``labels.csv`` where people label."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from al_lightning.label.answers import doubted
from al_lightning.label.fold import RowAnswers, fold
from al_lightning.monitor.kept import Kept, checksum_of, origin_of
from al_lightning.monitor.monitor import Loop, Monitor
from al_lightning.run.folder import write_whole
from al_lightning.run.journal import Record
from al_lightning.run.label_form import LabelForm
from al_lightning.run.records import CycleResult, plain
from al_lightning.run.tables import safe

METRICS = ["train_loss", "test_loss", "test_acc"]
SECONDS = ["fit", "test", "predict", "query"]
SPENT = ["cost", "labeling_hours", "num_skipped"]
"""What the labels took, so far as anything is known of it."""
DOUBTS = ["index", "path", "label", "probability", "predicted"]
LABELS = ["index", "path", "label", "labelers", "cycle", "how", "at"]


class Tables(Monitor):
    """Writes the tables anew at each change, so they never disagree with the journal."""

    def __init__(self) -> None:
        self._kept: Kept | None = None

    def on_start(self, loop: Loop) -> None:
        if loop.run_dir is None:
            return
        self._kept = Kept(loop.run_dir, "tables")
        answers, results = answers_by_cycle(loop), loop.results
        for result in results:
            self._write_query(loop, result, answers.get(result.cycle, {}))
        if results:
            self._write_run(loop, results)

    def on_cycle(self, loop: Loop, result: CycleResult) -> None:
        self.on_labels(loop, result)

    def on_labels(self, loop: Loop, result: CycleResult) -> None:
        if loop.run_dir is not None:
            self._write_query(loop, result, answers_of(loop, result.cycle))
            self._write_run(loop, loop.results)

    def _write_query(
        self, loop: Loop, result: CycleResult, answers: Mapping[int, RowAnswers]
    ) -> None:
        if self._kept is None or result.query is None:
            return
        name = f"queries/cycle_{result.cycle}.csv"
        indices = result.query.indices
        labelers = [";".join(answers[i].labelers) if i in answers else "" for i in indices]
        origin = f"{origin_of(loop, result)} {checksum_of(loop, labelers)}"
        if not self._kept.stands(name, origin):
            write_table(loop.run_dir / name, *query_table(loop, result, labelers))
            self._kept.note(name, origin)

    def _write_run(self, loop: Loop, results: Sequence[CycleResult]) -> None:
        write_table(loop.run_dir / "metrics.csv", *metrics_table(results))
        if any(result.doubts is not None for result in results):
            write_table(loop.run_dir / "labels_in_doubt.csv", DOUBTS, doubt_rows(loop, results))
        if any(record["event"] == "answers" for record in loop.records):
            write_table(loop.run_dir / "labels.csv", LABELS, label_rows(loop))


def metrics_table(results: Sequence[CycleResult]) -> tuple[list[str], list[list[Any]]]:
    """Return header and rows; a metric that a cycle lacks is an empty cell."""
    others = sorted({name for result in results for name in result.metrics} - set(METRICS))
    spent = [name for name in SPENT if any(getattr(result, name) for result in results)]
    header = ["cycle", "num_labeled", *METRICS, *(f"{name}_seconds" for name in SECONDS)]
    header += [*others, *spent]
    rows = [
        [
            result.cycle,
            result.num_labeled,
            *(result.metrics.get(name, "") for name in METRICS),
            *(f"{result.seconds[name]:.4f}" if name in result.seconds else "" for name in SECONDS),
            *(result.metrics.get(name, "") for name in others),
            *(getattr(result, name) for name in spent),
        ]
        for result in results
    ]
    return header, rows


def query_table(
    loop: Loop, result: CycleResult, labelers: Sequence[str]
) -> tuple[list[str], list[list[Any]]]:
    """Return header and rows: index, score, prediction and label, in words or empty.

    Where people with names answered, a column has ``labelers``: their names, in the order of first
    answers.
    """
    query = result.query
    assert query is not None
    empty = [""] * len(query.indices)
    header = ["index", "score", "predicted", "label"]
    columns: list[Sequence[Any]] = [
        query.indices,
        query.scores or empty,
        [form_of(loop).told(one) for one in query.predicted or empty],
        known_labels(loop, query.indices),
    ]
    if any(labelers):
        header.append("labelers")
        columns.append(labelers)
    return header, [list(row) for row in zip(*columns, strict=True)]


def answers_of(loop: Loop, cycle: int) -> dict[int, RowAnswers]:
    """Return people's answers in a cycle, by data-set index."""
    return fold(record for record in loop.records if record.get("cycle") == cycle)


def answers_by_cycle(loop: Loop) -> dict[int, dict[int, RowAnswers]]:
    """Return people's answers of all cycles, each by data-set index."""
    records: dict[int, list[Record]] = {}
    for record in loop.records:
        if record["event"] in ("answers", "undo"):
            records.setdefault(record["cycle"], []).append(record)
    return {cycle: fold(theirs) for cycle, theirs in records.items()}


def label_rows(loop: Loop) -> list[list[Any]]:
    """Return people's last answer to each row, in the order of rows.

    Another run can begin with this table, as its ``labels.csv``.
    """
    found: dict[int, list[Any]] = {}
    by_cycle = answers_by_cycle(loop)
    for closing in loop.records:
        if closing["event"] != "labels":
            continue
        answers = by_cycle.get(closing["cycle"], {})
        changed = [index for index, _ in closing["corrected"]]
        rows = [*closing["indices"], *closing["skipped"], *closing["invalid"], *changed]
        for index in rows:
            row = RowAnswers(at=closing["at"], how=closing["how"])
            if index not in closing["last"]:
                row = answers.get(index, row)
            labelers = ";".join(row.labelers or [closing["by"] or ""])
            found[index] = [labelers, closing["cycle"], row.how, row.at]
    rows = sorted(found)
    names = loop.data.names_of(rows) or [""] * len(rows)
    labels = known_labels(loop, rows)
    return [
        [index, name, label, *found[index]]
        for index, name, label in zip(rows, names, labels, strict=True)
    ]


def doubt_rows(loop: Loop, results: Sequence[CycleResult]) -> list[list[Any]]:
    """Return the labels in doubt of the last cycle, without those that people have looked at since.

    The least likely comes first. A label that was corrected, or kept as it is, is out of doubt.
    """
    doubts = doubted(loop.records, [one.doubts for one in results if one.doubts is not None][-1])
    rows = [int(row) for row, *_ in doubts]
    names = loop.data.names_of(rows) or [""] * len(rows)
    form = form_of(loop)
    labels = known_labels(loop, rows)
    return [
        [row, name, label, f"{probability:.4g}", form.told(int(predicted))]
        for (row, probability, predicted, _), name, label in zip(doubts, names, labels, strict=True)
    ]


def has_labels(loop: Loop, indices: Sequence[int]) -> bool:
    """Tell whether any of the rows has got a label or a mark."""
    pool = loop.data.pool
    is_marked = not (pool.skipped | pool.invalid).isdisjoint(indices)
    return is_marked or bool(pool.labeled_N[indices].any())


def known_labels(loop: Loop, indices: Sequence[int]) -> list[Any]:
    """Return the present state of each row: its label, ``skip``, ``invalid``, or empty text."""
    pool = loop.data.pool
    known = [index for index in indices if pool.labeled_N[index]]
    named = {
        **dict.fromkeys(pool.skipped, "skip"),
        **dict.fromkeys(pool.invalid, "invalid"),
        **dict(zip(known, _labels_in_words(loop, known), strict=True)),
    }
    return [named.get(index, "") for index in indices]


def _labels_in_words(loop: Loop, rows: Sequence[int]) -> list[Any]:
    form, given = form_of(loop), loop.data.row_labels.given
    if form.task == "dense":  # many parts are no cell of a table
        return [given[i] if isinstance(given.get(i), str) else "labeled" for i in rows]
    try:
        return [form.in_words(plain(label)) for label in loop.data.labels_of(rows)]
    except ValueError:  # items without a label where we look: allowed, and trained on
        return [""] * len(rows)


def form_of(loop: Loop) -> LabelForm:
    """Return what a label of the run is."""
    return LabelForm(loop.settings.task, loop.data.classes)


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file, completely or not at all."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(map(safe, row) for row in [header, *rows])
    # A file's name need not be proper text.
    write_whole(path, text.getvalue().encode("utf-8", "backslashreplace"))
