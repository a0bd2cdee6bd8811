"""The steps of a comparison: plan the runs, carry out the missing ones, read them, report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning as L
from lightning.pytorch.utilities import rank_zero_warn

from al_lightning.compare.cluster import check_ray_is_installed, on_ray
from al_lightning.compare.comparison import Comparison
from al_lightning.compare.processes import (
    check_can_travel,
    check_not_begun_by_import,
    default_jobs,
    in_processes,
    visible_gpus,
)
from al_lightning.compare.progress import Progress
from al_lightning.compare.protocol import check_same_protocol, check_shared, write_protocol
from al_lightning.compare.recipe import Recipe, recipe_of_parts
from al_lightning.compare.report import write_report
from al_lightning.compare.runs import (
    Run,
    check_interval,
    check_metric,
    fits,
    journals_in,
    plan,
    read_comparison,
    share_their_labels,
)
from al_lightning.compare.worker import LOG, Outcomes
from al_lightning.data.datamodule import ActiveDataModule
from al_lightning.run.records import listed
from al_lightning.stopping import is_refusal
from al_lightning.training.trainers import TrainerFactory

Executor = Literal["processes", "ray"]


class RunsFailedError(RuntimeError):
    """Says that some runs failed; those that did not are kept."""


@dataclass(frozen=True)
class Options:
    """Says how to carry out a comparison and what to report; see :func:`compare`."""

    out: Path
    metric: str = "test_acc"
    interval: tuple[int, int] | None = None
    thresholds: tuple[float, ...] = ()
    executor: Executor = "processes"
    jobs: int | None = None

    def __post_init__(self) -> None:
        if self.executor not in ("processes", "ray"):
            raise ValueError(f'executor must be "processes" or "ray", got {self.executor!r}')
        if self.jobs is not None and (self.jobs < 1 or self.executor == "ray"):
            raise ValueError(
                f"jobs must be at least 1, and for processes alone, got {self.jobs} for "
                f"{self.executor}; how much a Ray cluster does at a time is Ray's to say"
            )
        for what, given in (("interval", self.interval or ()), ("thresholds", self.thresholds)):
            if strange := [value for value in given if not isinstance(value, int | float)]:
                raise ValueError(f"{what} must be numbers, got {strange}")
        ends = self.interval
        if ends is not None and (len(ends) != 2 or not ends[0] < ends[1]):
            raise ValueError(f"interval must be two sizes, the lower first, got {self.interval}")


def compare(
    model: Callable[[], L.LightningModule],
    data: Callable[..., ActiveDataModule],
    *,
    strategies: Sequence[str] | Mapping[str, Any],
    seeds: Sequence[int],
    out: str | Path,
    trainer: TrainerFactory = L.Trainer,
    metric: str = "test_acc",
    interval: tuple[int, int] | None = None,
    thresholds: Sequence[float] = (),
    executor: Executor = "processes",
    jobs: int | None = None,
    **active: Any,
) -> Comparison:
    """Run every strategy under every seed, and report the results in ``out``.

    Runs at one seed share initial labels and initial weights. Each has an ordinary run folder,
    ``out/STRATEGY/seed_N``. When you call it again, it reads finished runs, and goes on with the
    others. Call it under ``if __name__ == "__main__":``, since processes import the program.

    Args:
        model: Makes a module: a class, a ``partial`` or a function. It is called for each run, with
            torch seeded by the run's seed.
        data: Makes a data module from ``seed=``, such as ``partial(ActiveMNISTDataModule,
            val_size=1000)``.
        strategies: Names in ``STRATEGIES``; or a mapping of names of your own to a name, a
            Strategy, a function, or arguments of the loop:
            ``{"power 8": {"strategy": "power_bald", "strategy_args": {"beta": 8.0}}}``.
        seeds: Distinct; intervals and tests need two at least, and say little below five.
        out: Folder of the comparison.
        trainer: As for :class:`~al_lightning.loop.ActiveLearningLoop`; one device.
        metric: The metric to compare, higher = better: a name that the module logs in test or fit.
        interval: Labels over which AUBC is taken; from the first size to the last when not given.
        thresholds: Accuracies for "labels to x". When not given, the last accuracy of the baseline,
            which is ``random``, or else the first strategy.
        executor: ``"processes"`` of this machine, or ``"ray"``: the cluster that ``RAY_ADDRESS``
            names, or a new one on this machine.
        jobs: Processes at a time; when not given, one for each GPU, or else for each core. They
            share the cores evenly, so this also decides the number of threads of a run.
        active: Further arguments of the loop, for all runs.

    Returns:
        The curves, for the functions of :mod:`al_lightning.statistics`.

    Raises:
        ValueError, TypeError: for arguments that cannot work, before any run begins; when runs in
            ``out`` began otherwise; when runs cannot be compared.
        RunsFailedError: when runs failed; names them and the reasons. Nothing is reported then.
    """
    options = Options(Path(out), metric, interval, tuple(thresholds), executor, jobs)
    recipe = recipe_of_parts(model, data, trainer, strategies, active)
    return carry_out(recipe, seeds, options)


def carry_out(recipe: Recipe, seeds: Sequence[int], options: Options) -> Comparison:
    """Carry out a comparison by a recipe for its runs."""
    check_not_begun_by_import()
    runs = plan(recipe.strategies, seeds, options.out)
    begun = journals_in(options.out)
    check_same_protocol(recipe, begun, options.out)
    journals = {run: begun[run] for run in runs if run in begun}
    check_shared(journals)
    for run, records in journals.items():
        check_metric(run, options.metric, fits(records))
    missing = [run for run in runs if not run.finished]
    if missing:
        _try_out(recipe, seeds[0], options.interval)
        _check_none_failed(_execute(recipe, runs, missing, options))
    comparison = read_comparison(runs, options.metric, options.interval, options.thresholds)
    journals = {run: run.records() for run in runs}
    check_shared(journals)
    if share_their_labels(journals):
        rank_zero_warn(
            "the runs of all seeds began with the same labels, so intervals and tests leave out "
            "how much the first labels matter; let the data module draw them from its seed"
        )
    write_report(comparison, options.out)
    return comparison


def _try_out(recipe: Recipe, seed: int, interval: tuple[int, int] | None) -> None:
    """Let each strategy choose from one batch, so that a bad one fails before any run."""
    trials = recipe.trials(seed)
    for strategy in recipe.strategies:
        try:
            loop = next(trials)
            loop.prepare()
        except (ValueError, TypeError) as error:
            if not is_refusal(error):
                raise
            raise ValueError(f"strategy {strategy!r} cannot run: {error}") from error
        first, rows = loop.data.num_labeled, loop.data.pool.num_askable
        asked = sum(map(loop.settings.size_of_query, range(1, loop.num_cycles)))
        last = first + min(asked, rows)
        if first:
            check_interval(interval, (first, last))


def _execute(
    recipe: Recipe, runs: Sequence[Run], missing: Sequence[Run], options: Options
) -> Outcomes:
    gpus = visible_gpus() if recipe.device == "cuda" else []
    carry_out: Callable[..., Outcomes]
    if options.executor == "ray":
        check_ray_is_installed()
        carry_out = partial(on_ray, num_gpus=min(1, len(gpus)))
    else:
        check_can_travel(recipe.one_run)
        # Of all runs, so that those which go on after an interruption compute with as many threads.
        jobs = options.jobs or default_jobs(len(runs), recipe.device, len(gpus))
        carry_out = partial(in_processes, jobs=jobs, gpus=gpus)
    write_protocol(recipe, options.out)
    with Progress(runs, missing, options.metric) as progress:
        outcomes = carry_out(recipe.one_run, missing, progress.look)
    return {run: outcomes[run] for run in missing}  # in this order


def _check_none_failed(outcomes: Outcomes) -> None:
    failed = [f"{run}: {why} (see {run.folder / LOG})" for run, why in outcomes.items() if why]
    if failed:
        raise RunsFailedError(
            f"{len(failed)} of {len(outcomes)} runs failed, so nothing is averaged: "
            f"{listed(failed, 4, '; ')}; the others are kept, and the same call goes on"
        )
