"""The runs of a comparison, one for each strategy and seed, and the results in their journals."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from al_lightning.compare.comparison import Comparison
from al_lightning.run.folder import JOURNAL
from al_lightning.run.journal import Record, read_records
from al_lightning.run.records import CycleResult, listed, results_of
from al_lightning.statistics import Curve

NAME_OF_FOLDER = re.compile(r"(?![ .])[\w .,;()\[\]=+-]*(?<![ .])")
"""Names that every file system accepts."""


@dataclass(frozen=True)
class Run:
    """Names one strategy under one seed, in an ordinary run folder."""

    strategy: str
    seed: int
    folder: Path

    def __str__(self) -> str:
        return f"{self.strategy}, seed {self.seed}"

    def records(self) -> list[Record]:
        """Read the journal as far as it has come; raise ValueError when it is damaged."""
        return read_records(self.folder / JOURNAL)

    @property
    def finished(self) -> bool:
        """Tell whether no cycle follows."""
        records = self.records()
        return bool(records) and records[-1]["event"] == "end"


Journals = Mapping[Run, Sequence[Record]]
"""The records of each run; none is empty."""


def plan(strategies: Iterable[str], seeds: Sequence[int], out: Path) -> list[Run]:
    """List all runs, seed by seed, so that first results can be compared early.

    Raises:
        ValueError: for no strategy or seed, one given twice, or a name that cannot be a folder's.
    """
    names = list(strategies)
    if strange := [seed for seed in seeds if type(seed) is not int]:
        raise ValueError(f"seeds must be whole numbers, got {strange}; give some such as 42, 43")
    for name in names:
        if not isinstance(name, str) or not NAME_OF_FOLDER.fullmatch(name):
            raise ValueError(
                f"a strategy's name is that of a folder here, of letters, digits and .,;()[]=+-_, "
                f"got {name!r}; in a mapping it may have another name"
            )
    names_of_folders = [name.casefold() for name in names]
    if len(set(names_of_folders)) < len(set(names)):
        raise ValueError(f"strategies must differ by more than upper and lower case, got {names}")
    for what, given in (("strategies", names), ("seeds", list(seeds))):
        if not given or len(set(given)) < len(given):
            raise ValueError(f"{what} must be at least one and all distinct, got {given}")
    return [Run(name, seed, out / name / f"seed_{seed}") for seed in seeds for name in names]


def journals_in(out: Path) -> Journals:
    """Read the journal of every run in ``out``, also of runs that were not asked for."""
    journals = {}
    for path in sorted(out.glob(f"*/seed_*/{JOURNAL}")):
        number = path.parent.name.removeprefix("seed_")
        if number.lstrip("-").isdigit() and (records := read_records(path)):
            journals[Run(path.parent.parent.name, int(number), path.parent)] = records
    return journals


def read_comparison(
    runs: Sequence[Run],
    metric: str,
    interval: tuple[int, int] | None = None,
    thresholds: Sequence[float] = (),
) -> Comparison:
    """Read the curves and rows of runs that are over.

    Args:
        runs: All runs of a comparison.
        metric: Name of the accuracy.
        interval: Labels over which AUBC is taken; from the first size to the last when not given.
        thresholds: Accuracies for "labels to x".

    Raises:
        ValueError: when a run is missing or not over, a cycle lacks the metric, or runs have
            different sizes; names the runs.
    """
    unfinished = [str(run) for run in runs if not run.finished]
    if unfinished:
        raise ValueError(
            "all runs must be over before they are compared, found "
            f"{listed(unfinished, 4, '; ')} missing or unfinished; run the comparison again to go "
            "on with them"
        )
    curves: dict[str, dict[int, Curve]] = {run.strategy: {} for run in runs}
    rows: list[dict[str, Any]] = []
    for run in sorted(runs, key=lambda run: (list(curves).index(run.strategy), run.seed)):
        results = fits(run.records())
        check_metric(run, metric, results)
        rows += [_row(run, result) for result in results]
        curves[run.strategy][run.seed] = Curve(
            tuple(result.num_labeled for result in results),
            tuple(result.metrics[metric] for result in results),
        )
    sizes = curves[runs[0].strategy][runs[0].seed].num_labeled
    for run in runs:
        if odd := sorted(set(sizes) ^ set(curves[run.strategy][run.seed].num_labeled)):
            raise ValueError(
                f"all runs must be of the same training-set sizes, found {runs[0]} and {run} apart "
                f"at {odd[:5]}; a strategy must choose the same number of rows as all others"
            )
    check_interval(interval, sizes)
    return Comparison(metric, curves, rows, interval or (sizes[0], sizes[-1]), tuple(thresholds))


def _row(run: Run, result: CycleResult) -> dict[str, Any]:
    return {
        "strategy": run.strategy,
        "seed": run.seed,
        "cycle": result.cycle,
        "num_labeled": result.num_labeled,
        **result.metrics,
        **{f"{name}_seconds": value for name, value in result.seconds.items()},
    }


def fits(records: Sequence[Record]) -> list[CycleResult]:
    """Return the results of the cycles that trained: cycle 0 of a run without labels only asks."""
    return [result for result in results_of(records) if result.num_labeled]


def check_metric(run: Run, metric: str, results: Sequence[CycleResult]) -> None:
    """Raise ValueError when a cycle of a run did not log the metric as a finite number."""
    for result in results:
        if metric not in result.metrics:
            raise ValueError(
                f"{run} has no {metric!r} in cycle {result.cycle}, it has "
                f"{sorted(result.metrics)}; log it in test_step, or name another metric"
            )
        if not math.isfinite(result.metrics[metric]):
            raise ValueError(
                f"{run} has {metric} = {result.metrics[metric]} in cycle {result.cycle}, which "
                "cannot be compared; look for the cause in the module, and begin in another folder"
            )


def check_interval(interval: tuple[float, float] | None, sizes: Sequence[int]) -> None:
    """Raise ValueError when the interval leaves the sizes of the runs."""
    if interval and not sizes[0] <= interval[0] < interval[1] <= sizes[-1]:
        raise ValueError(
            f"interval must lie within the sizes of the runs, {sizes[0]} to {sizes[-1]}, got "
            f"{interval}; it is a range of labels"
        )


def share_their_labels(journals: Journals) -> bool:
    """Tell whether runs of several seeds all began with the same labels."""
    seeds = {run.seed for run in journals}
    labels = {str(start["split"]["labeled_indices"]) for start, *_ in journals.values()}
    return len(seeds) > 1 and len(labels) == 1
