"""Write the report of a comparison: tables, text, pictures, TensorBoard."""

import math
from pathlib import Path
from typing import Any

from al_lightning.compare.board import write_board
from al_lightning.compare.comparison import Comparison
from al_lightning.compare.figures import curves_figure, efficiency_figure, penalty_figure
from al_lightning.compare.summary import summary_text
from al_lightning.monitor.drawing import drawn
from al_lightning.monitor.tables import write_table
from al_lightning.run.folder import write_whole
from al_lightning.statistics import (
    label_efficiency,
    labels_to,
    mean_interval,
    paired_t_test,
    quartiles,
)

Row = dict[str, Any]


def write_report(comparison: Comparison, out: Path) -> None:
    """Write tables, text, pictures and TensorBoard's files into ``out``."""
    # Make all before writing anything, so that no old part stands beside a new one.
    leading = ["strategy", "seed", "cycle", "num_labeled", comparison.metric]
    header = list(dict.fromkeys([*leading, *(name for row in comparison.rows for name in row)]))
    cells = [[row.get(name, "") for name in header] for row in comparison.rows]
    rows = summary_rows(comparison)
    summary = summary_text(comparison, rows)
    figures = {
        "curves": curves_figure(comparison),
        "efficiency": efficiency_figure(comparison),
        "penalty": penalty_figure(comparison),
    }
    write_table(out / "results.csv", header, cells)
    write_table(out / "summary.csv", list(rows[0]), [[*map(cell, row.values())] for row in rows])
    write_whole(out / "summary.md", summary.encode("utf-8", "backslashreplace"))
    for name, figure in figures.items():
        write_whole(out / f"{name}.png", drawn(figure))
    write_board(comparison, figures, summary, out)


def cell(value: Any) -> Any:
    """Return a value for a table: empty for None and NaN, ``inf`` for never."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return float(value) if isinstance(value, float) else value  # NumPy's floats print otherwise


def summary_rows(comparison: Comparison) -> list[Row]:
    """Return a row for each strategy; None stands for a number that does not exist."""
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
        f"mean_curve_efficiency_{level}": label_efficiency(*means, level),
    }
