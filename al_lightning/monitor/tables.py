"""``metrics.csv``, a row a cycle, and ``queries/cycle_N.csv``, a row a queried row."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from al_lightning.loop import ActiveLearningLoop, Monitor
from al_lightning.records import CycleResult
from al_lightning.run_folder import write_whole

METRICS = ["train_loss", "test_loss", "test_acc"]
SECONDS = ["fit", "test", "predict", "query"]


class Tables(Monitor):
    """Writes both tables anew at each change, so they never disagree with the journal."""

    def on_start(self, loop: ActiveLearningLoop) -> None:
        for result in loop.results:
            self.on_labels(loop, result)

    def on_cycle(self, loop: ActiveLearningLoop, result: CycleResult) -> None:
        self.on_labels(loop, result)

    def on_labels(self, loop: ActiveLearningLoop, result: CycleResult) -> None:
        if loop.run_dir is None:
            return
        write_table(loop.run_dir / "metrics.csv", *metrics_table(loop.results))
        if result.query is not None:
            path = loop.run_dir / "queries" / f"cycle_{result.cycle}.csv"
            write_table(path, ["index", "score", "predicted", "label"], query_rows(loop, result))


def metrics_table(results: Sequence[CycleResult]) -> tuple[list[str], list[list[Any]]]:
    """Header and rows; a metric that a cycle lacks is an empty cell."""
    others = sorted({name for result in results for name in result.metrics} - set(METRICS))
    header = ["cycle", "num_labeled", *METRICS, *(f"{name}_seconds" for name in SECONDS), *others]
    rows = [
        [
            result.cycle,
            result.num_labeled,
            *(result.metrics.get(name, "") for name in METRICS),
            *(f"{result.seconds[name]:.4f}" if name in result.seconds else "" for name in SECONDS),
            *(result.metrics.get(name, "") for name in others),
        ]
        for result in results
    ]
    return header, rows


def query_rows(loop: ActiveLearningLoop, result: CycleResult) -> list[list[Any]]:
    """Index, score, predicted class and label of each queried row; unknown ones are empty."""
    query = result.query
    assert query is not None
    labels = known_labels(loop, query.indices)
    empty = [""] * len(query.indices)
    columns = zip(
        query.indices, query.scores or empty, query.predicted or empty, labels, strict=True
    )
    return [list(row) for row in columns]


def known_labels(loop: ActiveLearningLoop, indices: Sequence[int]) -> list[Any]:
    """The label of each row that has one by now; empty text for rows still in the pool."""
    labeled_N = loop.data.pool.labeled_N
    known = [index for index in indices if labeled_N[index]]
    try:
        labels = dict(zip(known, loop.data.labels_of(known), strict=True))
    except ValueError:  # items that hold no label where we look: allowed, trained on all the same
        labels = {}
    return [labels.get(index, "") for index in indices]


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a CSV file whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_whole(path, text.getvalue().encode())
