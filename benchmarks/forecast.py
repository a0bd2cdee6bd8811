"""Forecasts on all learning curves in ``benchmarks/results``: are their intervals honest?

Each curve of five points or more is forecast from its first half. The promises: 70 to 90 % of the
points of the second half fall into the 80 % interval, and the median error of the last accuracy is
below that of "it stays as it is". The widths were set on these curves, so study by study is shown
too.

python benchmarks/forecast.py          # seconds
"""

import csv
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import RESULTS, arguments, verdict

from al_lightning.statistics import Curve, forecast

LEAST = 5
"""Points of a curve that is forecast."""


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    studies = {}
    for study, found in sorted(curves_in(args.results).items()):
        if outcomes := [looked_ahead(curve) for curve in found if len(curve.accuracy) >= LEAST]:
            studies[study] = outcomes
    print(f"{'study':<24}{'curves':>7}{'inside':>8}{'error':>9}{'as it is':>10}")
    for study, outcomes in studies.items():
        print(f"{study:<24}{len(outcomes):>7}{row(outcomes)}")
    everything = [outcome for outcomes in studies.values() for outcome in outcomes]
    print(f"{'all':<24}{len(everything):>7}{row(everything)}")
    inside = share_inside(everything)
    print(f"inside the 80 % interval {inside:.3f}  {verdict(inside, at_least=0.7)}")
    print(f"inside the 80 % interval {inside:.3f}  {verdict(inside, at_most=0.9)}")
    error, stays = (statistics.median(one[end] for one in everything) for end in ("error", "stays"))
    print(f"median error {error:.4f} against {stays:.4f}  {verdict(error / stays, at_most=1)}")


def looked_ahead(curve: Curve) -> dict[str, Any]:
    """Return which points of the second half were inside, and the errors of the last one."""
    half = (len(curve.accuracy) + 1) // 2
    ahead = forecast(Curve(curve.num_labeled[:half], curve.accuracy[:half]))
    later = list(zip(curve.num_labeled[half:], curve.accuracy[half:], strict=True))
    outlooks = [ahead.at(size) for size, _ in later]
    return {
        "inside": [o.low <= a <= o.high for o, (_, a) in zip(outlooks, later, strict=True)],
        "error": abs(outlooks[-1].accuracy - curve.accuracy[-1]),
        "stays": abs(curve.accuracy[half - 1] - curve.accuracy[-1]),
    }


def share_inside(outcomes: list[dict[str, Any]]) -> float:
    """Return the share of later points inside their intervals."""
    return statistics.mean(inside for one in outcomes for inside in one["inside"])


def row(outcomes: list[dict[str, Any]]) -> str:
    """Return the cells of a study."""
    medians = [statistics.median(one[end] for one in outcomes) for end in ("error", "stays")]
    return f"{share_inside(outcomes):>8.2f}{medians[0]:>9.4f}{medians[1]:>10.4f}"


# ---- the curves of all studies -------------------------------------------------------------------


def curves_in(results: Path) -> dict[str, list[Curve]]:
    """Return the curves by study: of comparisons, and of whatever lists accuracy by labels."""
    found: dict[str, list[Curve]] = {}
    for path in sorted(results.glob("*/results.csv")):
        points: dict[tuple[str, str], dict[int, float]] = {}
        with open(path, newline="", encoding="utf-8") as file:
            for line in csv.DictReader(file):
                run = points.setdefault((line["strategy"], line["seed"]), {})
                run[int(line["num_labeled"])] = float(line["test_acc"])
        found[path.parent.name] = [curve_of(run) for run in points.values()]
    for path in sorted(results.glob("*.json")):
        content = json.loads(path.read_text())
        if curves := [curve_of(one) for one in points_in(content) if len(one) >= LEAST]:
            found[path.stem] = curves
    return found


def points_in(content: Any) -> Iterator[dict[int, float]]:
    """Yield accuracy by number of labels, wherever a file holds it."""
    if isinstance(content, list):
        of_cycles = [one for one in content if isinstance(one, dict) and "test_acc" in one]
        if of_cycles and len(of_cycles) == len(content) and "num_labeled" in content[0]:
            yield {int(one["num_labeled"]): one["test_acc"] for one in content}
            return
        for one in content:
            yield from points_in(one)
    if not isinstance(content, dict):
        return
    sizes, metrics, accuracy = (content.get(n) for n in ("num_labeled", "metrics", "test_acc"))
    if isinstance(sizes, list) and isinstance(metrics, list):
        yield {n: one["test_acc"] for n, one in zip(sizes, metrics, strict=True)}
    elif isinstance(accuracy, dict):
        yield {int(n): value for n, value in accuracy.items()}
    elif isinstance(accuracy, list):  # of the default sizes
        yield {1000 + 500 * n: value for n, value in enumerate(accuracy)}
    else:
        for one in content.values():
            yield from points_in(one)


def curve_of(points: dict[int, float]) -> Curve:
    sizes = sorted(points)
    return Curve(tuple(sizes), tuple(points[size] for size in sizes))


if __name__ == "__main__":
    main()
