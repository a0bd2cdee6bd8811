"""What a comparison gave, and all that is written of it: tables, text, pictures, TensorBoard."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from al_lightning.compare.board import write_board
from al_lightning.compare.figures import curves_figure, efficiency_figure, penalty_figure
from al_lightning.compare.summary import ALPHA, summary_text
from al_lightning.monitor.pictures import save
from al_lightning.monitor.tables import write_table
from al_lightning.run_folder import write_whole
from al_lightning.statistics import (
    Curve,
    aubc,
    label_efficiency,
    labels_to,
    mean_curve,
    mean_interval,
    paired_t_test,
    penalty_matrix,
    quartiles,
)

WORDS = {"acc": "accuracy", "test": "test", "train": "train", "val": "validation"}
Row = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """What all runs of a comparison gave.

    Args:
        metric: Name of the accuracy that the curves hold, such as ``test_acc``.
        curves: A curve by strategy and seed; the same seeds and sizes everywhere.
        rows: A row a run and cycle, for ``results.csv``; a cell may be missing.
        interval: Labels over which AUBC is taken.
        thresholds: Accuracies for "labels to x"; when empty, what the baseline ended with.
    """

    metric: str
    curves: dict[str, dict[int, Curve]]
    rows: list[Row]
    interval: tuple[int, int]
    thresholds: tuple[float, ...] = ()

    @property
    def seeds(self) -> list[int]:
        return sorted(next(iter(self.curves.values())))

    @property
    def num_labeled(self) -> tuple[int, ...]:
        return next(iter(self.curves[self.baseline].values())).num_labeled

    @property
    def baseline(self) -> str:
        return "random" if "random" in self.curves else next(iter(self.curves))

    @property
    def ranked(self) -> list[str]:
        """The strategies, best final mean first."""
        return sorted(self.curves, key=lambda name: -self.mean(name).accuracy[-1])

    @property
    def metric_words(self) -> str:
        """``test accuracy`` for ``test_acc``; a name with a part we do not know as it is."""
        parts = self.metric.split("_")
        known = all(part in WORDS for part in parts)
        return " ".join(WORDS[part] for part in parts) if known else self.metric

    @property
    def levels(self) -> tuple[float, ...]:
        """The thresholds, or the one that stands in for them."""
        # Rounded down to what a column's name can say, so that the baseline's mean reaches it.
        final = math.floor(self.mean(self.baseline).accuracy[-1] * 1e4 + 1e-6) / 1e4
        return self.thresholds or (final,)

    def mean(self, strategy: str) -> Curve:
        """The mean over seeds at each size."""
        return mean_curve(list(self.curves[strategy].values()))

    def finals(self, strategy: str) -> dict[int, float]:
        """The last accuracy by seed."""
        return {seed: curve.accuracy[-1] for seed, curve in self.curves[strategy].items()}

    def areas(self, strategy: str) -> dict[int, float]:
        """AUBC by seed; empty when the curves are single points, which have no area."""
        if len(self.num_labeled) < 2:
            return {}
        return {seed: aubc(curve, self.interval) for seed, curve in self.curves[strategy].items()}

    def penalties(self) -> np.ndarray | None:
        """Row beats column, both as in ``ranked``; None with one seed or one point."""
        if len(self.seeds) < 2 or len(self.num_labeled) < 2:
            return None
        return penalty_matrix({name: self.curves[name] for name in self.ranked}, alpha=ALPHA)


def write_report(comparison: Comparison, out: Path) -> None:
    """Writes tables, text, pictures and TensorBoard's files into ``out``."""
    leading = ["strategy", "seed", "cycle", "num_labeled", comparison.metric]
    header = list(dict.fromkeys([*leading, *(name for row in comparison.rows for name in row)]))
    cells = ([row.get(name, "") for name in header] for row in comparison.rows)
    write_table(out / "results.csv", header, cells)
    rows = summary_rows(comparison)
    write_table(out / "summary.csv", list(rows[0]), [[*map(cell, row.values())] for row in rows])
    summary = summary_text(comparison, rows)
    write_whole(out / "summary.md", summary.encode("utf-8", "backslashreplace"))
    figures = {
        "curves": curves_figure(comparison),
        "efficiency": efficiency_figure(comparison),
        "penalty": penalty_figure(comparison),
    }
    for name, figure in figures.items():
        save(figure, out / f"{name}.png")
    write_board(comparison, figures, summary, out)


def cell(value: Any) -> Any:
    """What a table holds: empty for what cannot be given, ``inf`` for never."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return float(value) if isinstance(value, float) else value  # NumPy's floats print otherwise


def summary_rows(comparison: Comparison) -> list[Row]:
    """A row a strategy; every number as it is, None for what cannot be given."""
    penalties = comparison.penalties()
    rows = []
    for strategy in comparison.curves:
        row: Row = {"strategy": strategy, "seeds": len(comparison.seeds)}
        row |= _means(comparison, strategy) | _differences(comparison, strategy)
        place = comparison.ranked.index(strategy)
        row["penalty"] = None if penalties is None else penalties[:, place].mean()
        for level in comparison.levels:
            row |= _labels_to(comparison, strategy, level)
        rows.append(row)
    return rows


def _means(comparison: Comparison, strategy: str) -> Row:
    measures = {"aubc": comparison.areas(strategy), "final": comparison.finals(strategy)}
    found = {name: mean_interval(list(v.values())) if v else None for name, v in measures.items()}
    return {
        f"{name}_{part}": None if interval is None else getattr(interval, part)
        for parts in (("mean", "std"), ("low", "high"))
        for name, interval in found.items()
        for part in parts
    }


def _differences(comparison: Comparison, strategy: str) -> Row:
    baseline, row = comparison.baseline, {}
    for name, measure in (("final", comparison.finals), ("aubc", comparison.areas)):
        ours, theirs = measure(strategy), measure(baseline)
        test = paired_t_test(ours, theirs) if ours and strategy != baseline else None
        for part, ending in (("difference", ""), ("low", "_low"), ("high", "_high"), ("p", "_p")):
            value = None if test is None else getattr(test, part)
            row[f"{name}_minus_{baseline}{ending}"] = value
    return row


def _labels_to(comparison: Comparison, strategy: str, level: float) -> Row:
    curves = list(comparison.curves[strategy].values())
    name = f"labels_to_{level}"
    true = quartiles([labels_to(curve, level) for curve in curves])
    sustained = [labels_to(curve, level, sustained=True) for curve in curves]
    optimistic = quartiles([labels_to(curve, level, convention="optimistic") for curve in curves])
    means = comparison.mean(strategy), comparison.mean(comparison.baseline)
    return {
        **{f"{name}_q{q}": value for q, value in zip((25, 50, 75), true, strict=True)},
        # Sustained means at three sizes in a row, which shorter curves do not have.
        f"{name}_sustained_q50": quartiles(sustained)[1] if len(means[0].accuracy) > 2 else None,
        f"{name}_optimistic_q50": optimistic[1],
        f"efficiency_{level}": label_efficiency(*means, level),
    }
