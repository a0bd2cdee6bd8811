"""The results of a comparison: curves by strategy and seed, and numbers that follow from them."""

import math
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from al_lightning.statistics import Curve, aubc, mean_curve, penalty_matrix

ALPHA = 0.05
"""Differences with a smaller p are called significant."""

WORDS = {"acc": "accuracy", "test": "test", "train": "train", "val": "validation"}


@dataclass(frozen=True)
class Comparison:
    """Holds the results of all runs of a comparison.

    Args:
        metric: Name of the accuracy that the curves hold, such as ``test_acc``.
        curves: A curve by strategy and seed; the same seeds and sizes everywhere.
        rows: A row for each cycle of each run, for ``results.csv``; a cell may be missing.
        interval: Labels over which AUBC is taken.
        thresholds: Accuracies for "labels to x"; when empty, the last accuracy of the baseline.
    """

    metric: str
    curves: dict[str, dict[int, Curve]]
    rows: list[dict[str, Any]]
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
        """List the strategies, best final mean first."""
        return sorted(self.curves, key=lambda name: -self.mean(name).accuracy[-1])

    @property
    def metric_words(self) -> str:
        """Return ``test accuracy`` for ``test_acc``, and any other name as it is."""
        parts = self.metric.split("_")
        known = all(part in WORDS for part in parts)
        return " ".join(WORDS[part] for part in parts) if known else self.metric

    @property
    def levels(self) -> tuple[float, ...]:
        """Return the thresholds; when none were given, the last mean accuracy of the baseline."""
        # Rounded down to what a column's name can say, so that the baseline's mean reaches it.
        final = math.floor(self.mean(self.baseline).accuracy[-1] * 1e4 + 1e-6) / 1e4
        return self.thresholds or (final,)

    def mean(self, strategy: str) -> Curve:
        """Return the mean over seeds at each size."""
        return mean_curve(list(self.curves[strategy].values()))

    def finals(self, strategy: str) -> dict[int, float]:
        """Return the last accuracy by seed."""
        return {seed: curve.accuracy[-1] for seed, curve in self.curves[strategy].items()}

    def areas(self, strategy: str) -> dict[int, float]:
        """Return AUBC by seed; empty when the curves are single points, which have no area."""
        if len(self.num_labeled) < 2:
            return {}
        return {seed: aubc(curve, self.interval) for seed, curve in self.curves[strategy].items()}

    def _repr_html_(self) -> str:
        lines = [
            f"<tr><td>{escape(name)}</td><td>{self.mean(name).accuracy[-1]:.4f}</td></tr>"
            for name in self.ranked
        ]
        head = f"<th>strategy</th><th>last {escape(self.metric_words)}</th>"
        told = f"mean of {len(self.seeds)} seeds at {self.num_labeled[-1]:,} labels"
        return f"<table><tr>{head}</tr>{''.join(lines)}</table>{told}"

    def penalties(self) -> np.ndarray | None:
        """Return how often row beats column, in ``ranked`` order; None for one seed or one size."""
        if len(self.seeds) < 2 or len(self.num_labeled) < 2:
            return None
        return penalty_matrix({name: self.curves[name] for name in self.ranked}, alpha=ALPHA)
