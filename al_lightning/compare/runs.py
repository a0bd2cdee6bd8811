"""The runs of a comparison, one for each strategy and seed, and what their journals say."""

import copy
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from al_lightning.compare.comparison import Comparison
from al_lightning.loop import ActiveLearningLoop
from al_lightning.run.folder import JOURNAL
from al_lightning.run.journal import Record, read_records
from al_lightning.run.records import CycleResult, results_of
from al_lightning.statistics import Curve
from al_lightning.training.provenance import differences

CHOOSING = (
    "strategy",
    "strategy_args",
    "candidate_size",
    "mc_samples",
    "embedding_layer",
    "warm_start",
)
"""Keys of the group ``active`` that may be a strategy's own, and are no part of the protocol."""

FOLDER_NAME = re.compile(r"(?![ .])[\w .,;()\[\]=+-]+(?<![ .])")

OneRun = Callable[[str, int, Path], None]
"""Of strategy, seed and folder: begins a run or goes on with it, until it is over. Pickled."""


class Recipe(Protocol):
    """How the runs of a comparison are made."""

    @property
    def one_run(self) -> OneRun:
        """Makes one, in another process."""

    @property
    def device(self) -> str:
        """Type of the device that the runs train on: ``"cpu"``, ``"cuda"``, ..."""

    @property
    def protocol(self) -> dict[str, Any]:
        """What all runs share, in plain values, as far as their journals do not say it."""

    def trials(self, strategies: Sequence[str], seed: int) -> Iterator[ActiveLearningLoop]:
        """A loop without a run folder for each strategy, to see that it works."""

    def beginnings(self, strategies: Sequence[str], seed: int) -> dict[str, dict[str, Any]]:
        """By strategy, what its run begins with, by group."""

    def began(self, start: Record) -> dict[str, Any]:
        """The same of a run that is there, from its first record.

        Raises:
            ValueError: says what began it, if that was another kind of program.
        """


@dataclass(frozen=True)
class Run:
    """One strategy under one seed, in an ordinary run folder."""

    strategy: str
    seed: int
    folder: Path

    def __str__(self) -> str:
        return f"{self.strategy}, seed {self.seed}"

    def records(self) -> list[Record]:
        """The journal, as far as it has come; ValueError when it is damaged."""
        return read_records(self.folder / JOURNAL)

    @property
    def finished(self) -> bool:
        """Whether no cycle follows."""
        return _is_over(self.records())


def plan(strategies: Iterable[str], seeds: Sequence[int], out: Path) -> list[Run]:
    """All runs, the first seed of each strategy first: what is there early can be compared.

    Raises:
        ValueError: for no strategy or seed, one given twice, or a name that cannot be a folder's.
    """
    names = list(strategies)
    if strange := [seed for seed in seeds if type(seed) is not int]:
        raise ValueError(f"seeds must be whole numbers, got {strange}; give some such as 42, 43")
    for name in names:
        # What every file system takes.
        if not isinstance(name, str) or not re.fullmatch(
            r"(?![ .])[\w .,;()\[\]=+-]*(?<![ .])", name
        ):
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


def check_begun(recipe: Recipe, runs: Sequence[Run], out: Path) -> None:
    """Holds every run in ``out`` to what it would begin with now, also those not asked for.

    Raises:
        ValueError: names each run that began otherwise, and in what.
    """
    names = list(dict.fromkeys(run.strategy for run in runs))
    beginnings: dict[int, dict[str, dict[str, Any]]] = {}
    wrong = []
    for run in _found_in(out):
        records = run.records()
        if not records:
            continue
        if run.seed not in beginnings:
            beginnings[run.seed] = recipe.beginnings(names, run.seed)
        now = copy.deepcopy(beginnings[run.seed].get(run.strategy, beginnings[run.seed][names[0]]))
        try:
            began = recipe.began(records[0])
        except ValueError as error:
            wrong.append(f"{run}: {error}")
            continue
        if run.strategy not in names:
            now["active"] |= {own: began["active"].get(own) for own in CHOOSING}
        if different := list(differences(began, now)):
            wrong.append(f"{run}: {'; '.join(different[:4])}")
    if wrong:
        more = f"; and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise ValueError(
            f"all runs in {out} must follow one protocol, found {'; '.join(wrong[:4])}{more}; give "
            "what they began with, or compare in another folder"
        )


def _found_in(out: Path) -> list[Run]:
    """Every run folder of a comparison, whatever it was asked for."""
    found = []
    for path in sorted(out.glob(f"*/seed_*/{JOURNAL}")):
        number = path.parent.name.removeprefix("seed_")
        if number.lstrip("-").isdigit():
            found.append(Run(path.parent.parent.name, int(number), path.parent))
    return found


def read_comparison(
    runs: Sequence[Run],
    metric: str,
    interval: tuple[int, int] | None = None,
    thresholds: Sequence[float] = (),
) -> Comparison:
    """The curves and rows of runs that are over.

    Args:
        runs: All of a comparison.
        metric: Name of the accuracy.
        interval: Labels over which AUBC is taken; from the first size to the last when not given.
        thresholds: Accuracies for "labels to x".

    Raises:
        ValueError: when a run is missing or not over, a cycle lacks the metric, or runs have
            different sizes, initial labels or initial weights: names them.
    """
    journals = {run: run.records() for run in runs}
    unfinished = [run for run, records in journals.items() if not _is_over(records)]
    if unfinished:
        raise ValueError(
            f"all runs must be over before they are compared, found {_listed(unfinished)} missing "
            "or unfinished; run the comparison again to go on with them"
        )
    check_shared(journals)
    curves: dict[str, dict[int, Curve]] = {}
    rows: list[dict[str, Any]] = []
    for run in sorted(runs, key=lambda run: (_position(runs, run.strategy), run.seed)):
        results = fits(journals[run])
        check_metric(run, metric, results)
        for result in results:
            seconds = {f"{name}_seconds": value for name, value in result.seconds.items()}
            sizes = {"cycle": result.cycle, "num_labeled": result.num_labeled}
            row = {"strategy": run.strategy, "seed": run.seed, **sizes}
            rows.append({**row, metric: result.metrics[metric], **result.metrics, **seconds})
        curve = Curve(
            tuple(result.num_labeled for result in results),
            tuple(result.metrics[metric] for result in results),
        )
        curves.setdefault(run.strategy, {})[run.seed] = curve
    sizes_of = {run: curves[run.strategy][run.seed].num_labeled for run in runs}
    _check_sizes(sizes_of)
    first = sizes_of[runs[0]]
    check_interval(interval, first)
    return Comparison(metric, curves, rows, interval or (first[0], first[-1]), tuple(thresholds))


def fits(records: Sequence[Record]) -> list[CycleResult]:
    """Results of the cycles that trained; the first of a run that begins without labels asks."""
    return [result for result in results_of(records) if result.num_labeled]


def check_metric(run: Run, metric: str, results: Sequence[CycleResult]) -> None:
    """Raises ValueError when a cycle of a run did not log the metric, or no number."""
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
    """Raises ValueError when the area is to be taken where no run has been."""
    if interval and not sizes[0] <= interval[0] < interval[1] <= sizes[-1]:
        raise ValueError(
            f"interval must lie within the sizes of the runs, {sizes[0]} to {sizes[-1]}, got "
            f"{interval}; it is a range of labels"
        )


def _position(runs: Sequence[Run], strategy: str) -> int:
    return [run.strategy for run in runs].index(strategy)


def _is_over(records: Sequence[Record]) -> bool:
    return bool(records) and records[-1]["event"] == "end"


def _check_sizes(sizes_of: dict[Run, tuple[int, ...]]) -> None:
    first, sizes = next(iter(sizes_of.items()))
    for run, others in sizes_of.items():
        if others != sizes:
            odd = sorted(set(sizes) ^ set(others))
            raise ValueError(
                f"all runs must be of the same training-set sizes, found {first} and {run} apart "
                f"at {odd[:5]}; a strategy must choose the same number of rows as all others"
            )


def check_shared(journals: dict[Run, list[Record]]) -> None:
    """Raises ValueError when runs at one seed began with other labels, weights or data.

    Names two of them.
    """
    begun: dict[int, tuple[Run, dict[str, Any]]] = {}
    for run, (start, *_) in journals.items():
        ours = {
            "labels": start["split"],
            "weights": start["weights"],
            "data": start["config"]["data"],
            "hyperparameters": start["config"]["model"],
        }
        other, theirs = begun.setdefault(run.seed, (run, ours))
        for what, value in ours.items():
            if value != theirs[what]:
                raise ValueError(
                    f"runs at one seed must begin alike, found other initial {what} in {run} than "
                    f"in {other}; make model and data by functions that draw from the seed alone"
                )


def share_their_labels(journals: dict[Run, list[Record]]) -> bool:
    """Whether runs of several seeds all began with the same labels."""
    seeds = {run.seed for run in journals}
    labels = {str(start["split"]["labeled_indices"]) for start, *_ in journals.values()}
    return len(seeds) > 1 and len(labels) == 1


def _listed(runs: Sequence[Run]) -> str:
    more = f" and {len(runs) - 5} more" if len(runs) > 5 else ""
    return "; ".join(map(str, runs[:5])) + more
