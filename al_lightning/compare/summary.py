"""``summary.md``: which strategies beat the baseline, by how much and how surely, and which not."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from al_lightning.compare.comparison import ALPHA, Comparison

Row = Mapping[str, Any]


def summary_text(comparison: Comparison, rows: Sequence[Row]) -> str:
    """Write the summary for a person, as Markdown."""
    by_name = {row["strategy"]: row for row in rows}
    ranked = [by_name[name] for name in comparison.ranked]
    parts = ["# Comparison of strategies", protocol(comparison), _results_table(comparison, ranked)]
    if len(ranked) > 1:
        parts += [f"## Did not beat {comparison.baseline}", _did_not_beat(comparison, ranked)]
        parts += ["## Pairwise penalties", _penalty_table(comparison)]
    return "\n\n".join(parts) + "\n"


def protocol(comparison: Comparison) -> str:
    """Describe in a paragraph the measurement, its range, and how sure the numbers are."""
    seeds, sizes, words = comparison.seeds, comparison.num_labeled, comparison.metric_words
    num_tests = (len(comparison.curves) - 1) * (2 if len(sizes) > 1 else 1)
    start, end = comparison.interval
    over, area = f"{sizes[0]:,} labels", "One size: no AUBC can be given."
    if len(sizes) > 1:
        steps = sorted({after - before for before, after in pairwise(sizes)})
        cycle = f", {steps[0]:,} a cycle" if len(steps) == 1 else ""
        over = f"{len(sizes)} sizes from {sizes[0]:,} to {sizes[-1]:,} labels{cycle}"
        area = f"AUBC: area under {words} from {start:,} to {end:,} labels, divided by the width."
    text = [
        f"Measured: {words} (`{comparison.metric}`) at {over}; strategies: "
        f"{len(comparison.curves)}, each with {len(seeds)} seed{'s' * (len(seeds) > 1)} "
        f"({', '.join(map(str, seeds))}).",
        area,
        "Labels are counted as rows in the training set of the model that was tested, the initial "
        "ones included; labels to x: the smallest such size at which a run reaches x.",
    ]
    if not comparison.thresholds:
        text.append(f"Here x is what {comparison.baseline} ended with on average, rounded down.")
    if len(seeds) < 2:
        text.append("One seed: no interval or test can be given; run at least two, better five.")
    else:
        text.append(
            "Labels to x are quartiles over seeds by nearest rank. Intervals (also after ±) are "
            "pointwise 95 % t intervals of the mean over seeds; p is of two-sided paired t-tests "
            "by seed, not corrected for their number, which is "
            f"{num_tests} in this table and more in the penalties: where nothing differs, about "
            "one in twenty falls below 0.05 all the same."
        )
    return " ".join(text)


def _results_table(comparison: Comparison, rows: Sequence[Row]) -> str:
    baseline, last = comparison.baseline, comparison.num_labeled[-1]
    several = len(comparison.seeds) > 1
    quarters = (25, 50, 75) if several else (50,)
    columns: dict[str, list[str]] = {
        "strategy": [row["strategy"] for row in rows],
        f"{comparison.metric_words} at {last:,} labels": [_mean(row, "final") for row in rows],
        "AUBC": [_mean(row, "aubc") for row in rows],
    }
    if len(rows) > 1:
        for words, name in _differences(comparison).items():
            columns[f"minus {baseline}, {words}"] = [_change(row, name) for row in rows]
    for level in comparison.levels:
        columns[f"labels to {level}{' (25/50/75 %)' * several}"] = [
            " / ".join(_size(row[f"labels_to_{level}_q{q}"], last) for q in quarters)
            for row in rows
        ]
    return _markdown(list(columns), list(zip(*columns.values(), strict=True)))


def _differences(comparison: Comparison) -> dict[str, str]:
    """Return the columns of differences to the baseline, by their words for a person."""
    names = {"at the end": "final", "by AUBC": "aubc"}
    return {words: f"{name}_minus_{comparison.baseline}" for words, name in names.items()}


def _did_not_beat(comparison: Comparison, rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        verdicts = [
            (f"{words} {_change(row, column, True)}", _verdict(row, column))
            for words, column in _differences(comparison).items()
            if row[column] is not None
        ]
        if not {verdict for _, verdict in verdicts} <= {"significantly better", "higher"}:
            lines.append(f"- {row['strategy']}: {'; '.join(map(': '.join, verdicts))}")
    wanted = "significantly better" if len(comparison.seeds) > 1 else "higher"
    if not lines:
        by_area = " and by AUBC" * (len(comparison.num_labeled) > 1)
        return f"None: every other strategy was {wanted}, at the end{by_area}."
    return f"Not {wanted} at the end, by AUBC, or both:\n\n" + "\n".join(lines)


def _verdict(row: Row, column: str) -> str:
    difference, p = row[column], row[f"{column}_p"]
    if row["seeds"] < 2:
        return "higher" if difference > 0 else "lower" if difference < 0 else "equal"
    if _lacks_spread(row, column):
        return "no test can weigh differences that are all equal"
    if p is not None and p < ALPHA:
        return "significantly better" if difference > 0 else "**significantly worse**"
    return "not significantly different"


def _lacks_spread(row: Row, column: str) -> bool:
    """Tell whether all differences are equal, so that p = 0 says nothing; two seeds often are."""
    return bool(row[column] != 0 and row[f"{column}_low"] == row[f"{column}_high"])


def _penalty_table(comparison: Comparison) -> str:
    penalties = comparison.penalties()
    if penalties is None:
        return "None: they need at least two seeds and two sizes."
    cells = np.vectorize(_share)(penalties).astype(object)
    np.fill_diagonal(cells, "-")
    rows = [[name, *line] for name, line in zip(comparison.ranked, cells, strict=True)]
    rows.append(["mean", *map(_share, penalties.mean(0))])
    return (
        "Share of checkpoints at which the row beats the column significantly; the lower a "
        "column's mean the better.\n\n"
    ) + _markdown(["beats", *comparison.ranked], rows)


def _mean(row: Row, name: str) -> str:
    mean, high = row[f"{name}_mean"], row[f"{name}_high"]
    if mean is None:
        return ""
    return f"{mean:.4f}" if high is None else f"{mean:.4f} ± {high - mean:.4f}"


def _change(row: Row, column: str, with_interval: bool = False) -> str:
    difference, low, high, p = (row[f"{column}{end}"] for end in ("", "_low", "_high", "_p"))
    if difference is None:
        return ""
    inside = [f"{low:+.4f} to {high:+.4f}"] if with_interval and low is not None else []
    if p is not None and not _lacks_spread(row, column):
        inside.append("p < 0.001" if p < 0.001 else f"p = {p:.3f}")
    return f"{difference:+.4f}" + (f" ({', '.join(inside)})" if inside else "")


def _size(num: float, last: int) -> str:
    return f">{last:,}" if math.isinf(num) else f"{num:,.0f}"


def _share(value: float) -> str:
    return f"{value:.2f}" if value else "0"


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(c.replace('|', '&#124;') for c in line)} |" for line in lines)
