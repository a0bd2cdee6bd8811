"""The whole of a comparison: plan the runs, carry out those that are missing, read them, report."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning as L
from lightning.pytorch.utilities import rank_zero_warn

from al_lightning.cli import FREE_ON_RESUME
from al_lightning.compare.comparison import Comparison
from al_lightning.compare.executors import (
    LOG,
    check_not_begun_by_import,
    default_jobs,
    in_processes,
    on_ray,
    visible_gpus,
)
from al_lightning.compare.progress import Progress
from al_lightning.compare.protocol import check_protocol, described, write_protocol
from al_lightning.compare.report import write_report
from al_lightning.compare.runs import (
    CHOOSING,
    OneRun,
    Recipe,
    Run,
    check_begun,
    check_interval,
    check_metric,
    check_shared,
    fits,
    plan,
    read_comparison,
    share_their_labels,
)
from al_lightning.data.datamodule import ActiveDataModule
from al_lightning.loop import ActiveLearningLoop
from al_lightning.run.journal import Record
from al_lightning.seeds import seeded
from al_lightning.training.trainers import TrainerFactory, check_factory, quiet

Executor = Literal["processes", "ray"]
OURS = ("seed", "run_dir", "resume", "target", "monitors")
"""Arguments of a run that a comparison sets, or has no use for."""


class RunsFailedError(RuntimeError):
    """Some runs failed; those that did not are kept."""


@dataclass(frozen=True)
class Options:
    """How a comparison is carried out and what is made of it; see :func:`compare`."""

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
    """Runs every strategy under every seed, and reports what came of it in ``out``.

    Runs at one seed share initial labels and initial weights. Each is an ordinary run folder,
    ``out/STRATEGY/seed_N``: called again, finished runs are read and others go on where they
    stopped. Call it under ``if __name__ == "__main__":``, since processes import the program.

    Args:
        model: Makes a module: a class, a ``partial`` or a function; called for each run, with
            torch seeded by the run's seed.
        data: Makes a data module of ``seed=``, as ``partial(ActiveMNISTDataModule, val_size=1000)``
            does.
        strategies: Names in ``STRATEGIES``; or a mapping of names of your own to a name, a
            Strategy, a function, or arguments of the loop:
            ``{"power 8": {"strategy": "power_bald", "strategy_args": {"beta": 8.0}}}``.
        seeds: Distinct; intervals and tests need two at least, and say little below five.
        out: Folder of the comparison.
        trainer: As for :class:`~al_lightning.loop.ActiveLearningLoop`; one device.
        metric: What is compared, higher = better: a name that the module logs in test or fit.
        interval: Labels over which AUBC is taken; from the first size to the last when not given.
        thresholds: Accuracies for "labels to x"; what the baseline ended with when not given. The
            baseline is ``random``, or else the first strategy.
        executor: ``"processes"`` of this machine, or ``"ray"``: the cluster that ``RAY_ADDRESS``
            names, or one begun on this machine.
        jobs: Processes at a time; one for each GPU, or for each core, when not given. They share
            the cores evenly, so they also set with how many threads a run computes.
        active: Further arguments of the loop, for all runs.

    Returns:
        The curves, which :mod:`al_lightning.statistics` has functions for.

    Raises:
        ValueError, TypeError: for arguments that cannot work, before any run begins; when runs in
            ``out`` began otherwise; when runs cannot be compared.
        RunsFailedError: when runs failed: names them and why; nothing is reported then.
    """
    options = Options(Path(out), metric, interval, tuple(thresholds), executor, jobs)
    own = as_arguments(strategies)
    if taken := sorted(active.keys() & {*OURS, *CHOOSING[:2]}):
        raise ValueError(
            f"{', '.join(taken)} is not for a comparison to be given: strategies and seeds say it, "
            "it has folders of its own, and all runs must be of the same sizes"
        )
    for what, given, kind in (
        ("model", model, L.LightningModule),
        ("data", data, ActiveDataModule),
    ):
        if isinstance(given, kind) or not callable(given):
            raise TypeError(
                f"{what} must be a function that makes one for each run, got an instance of "
                f"{type(given).__name__}; pass the class, or partial(...) of it"
            )
    check_oracle_answers(active.get("oracle"))
    with quiet():
        example = check_factory(trainer)
    device = example.strategy.root_device.type
    if device != "cuda":  # of several GPUs here each process will see one
        check_one_process(example)
    return carry_out(Parts(model, data, trainer, own, active, device), list(own), seeds, options)


def as_arguments(strategies: Sequence[str] | Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """By name the arguments of the loop that are a strategy's own.

    >>> as_arguments(["random"])
    {'random': {'strategy': 'random'}}
    >>> as_arguments({"sharp": {"strategy": "power_bald", "strategy_args": {"beta": 8.0}}})
    {'sharp': {'strategy': 'power_bald', 'strategy_args': {'beta': 8.0}}}
    """
    if isinstance(strategies, str):
        strategies = [strategies]
    if not isinstance(strategies, Mapping):
        repeated = sorted({name for name in strategies if list(strategies).count(name) > 1})
        if repeated:
            raise ValueError(f"strategies must be distinct, got {', '.join(repeated)} repeated")
        strategies = {name: name for name in strategies}
    for name, value in strategies.items():
        if isinstance(value, Mapping) and (strange := sorted(value.keys() - set(CHOOSING))):
            raise ValueError(
                f"a strategy must not set {', '.join(strange)}, found in {name!r}; it may set "
                f"{', '.join(CHOOSING)}, and all else is for all runs"
            )
    return {
        name: {"strategy": name, **value}
        if isinstance(value, Mapping)
        else {"strategy": name if value is None else value}
        for name, value in strategies.items()
    }


def carry_out(
    recipe: Recipe, strategies: Sequence[str], seeds: Sequence[int], options: Options
) -> Comparison:
    """What :func:`compare` does once it knows how each run is made."""
    check_not_begun_by_import()
    runs = plan(strategies, seeds, options.out)
    check_begun(recipe, runs, options.out)
    check_protocol(options.out, recipe.protocol)
    begun = {run: records for run in runs if (records := run.records())}
    check_shared(begun)
    for run, records in begun.items():
        check_metric(run, options.metric, fits(records))
    missing = [run for run in runs if not run.finished]
    if missing:
        _try_out(recipe, strategies, seeds[0], options)
        _execute(recipe, runs, missing, options)
    comparison = read_comparison(runs, options.metric, options.interval, options.thresholds)
    if share_their_labels({run: run.records() for run in runs}):
        rank_zero_warn(
            "the runs of all seeds began with the same labels, so intervals and tests leave out "
            "how much the first labels matter; let the data module draw them from its seed"
        )
    write_report(comparison, options.out)
    return comparison


def _try_out(recipe: Recipe, strategies: Sequence[str], seed: int, options: Options) -> None:
    """Has each strategy choose from one batch: what cannot work must say so before any run."""
    trials = recipe.trials(strategies, seed)
    for strategy in strategies:
        try:
            loop = next(trials)
            loop.prepare()
        except (ValueError, TypeError) as error:
            raise ValueError(f"strategy {strategy!r} cannot run: {error}") from error
        first, rows = loop.data.num_labeled, loop.data.pool.num_askable
        last = first + min(loop.acquisition_size * (loop.num_cycles - 1), rows)
        if first:
            check_interval(options.interval, (first, last))


def _execute(recipe: Recipe, runs: Sequence[Run], missing: Sequence[Run], options: Options) -> None:
    gpus = visible_gpus() if recipe.device == "cuda" else []
    if options.executor == "ray":
        submitting = on_ray(recipe.one_run, num_gpus=min(1, len(gpus)))
    else:
        # Of all runs, so that those which go on after an interruption compute with as many threads.
        jobs = options.jobs or default_jobs(len(runs), recipe.device, len(gpus))
        submitting = in_processes(recipe.one_run, jobs, gpus)
    with submitting as submit, Progress(runs, missing, options.metric) as progress:
        write_protocol(options.out, recipe.protocol)
        futures = {submit(run): run for run in missing}
        waiting = set(futures)
        while waiting:
            _, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
            progress.look()
    # An exception is the executor's own: a process that was killed, a machine that was lost.
    outcomes = {run: future.exception() or future.result() for future, run in futures.items()}
    failed = [f"{run}: {why} (see {run.folder / LOG})" for run, why in outcomes.items() if why]
    if failed:
        more = f"; and {len(failed) - 4} more" if len(failed) > 4 else ""
        raise RunsFailedError(
            f"{len(failed)} of {len(missing)} runs failed, so nothing is averaged: "
            f"{'; '.join(failed[:4])}{more}; the others are kept, and the same call goes on"
        )


@dataclass(frozen=True)
class Parts:
    """The recipe of :func:`compare`: makes each run from functions."""

    model: Callable[[], L.LightningModule]
    data: Callable[..., ActiveDataModule]
    trainer: TrainerFactory
    strategies: dict[str, dict[str, Any]]
    active: dict[str, Any]
    device: str

    @property
    def protocol(self) -> dict[str, Any]:
        return {
            "model": described(self.model),
            "trainer": described(self.trainer, FREE_ON_RESUME["trainer"]),
            "oracle": described(self.active.get("oracle", "dataset")),
        }

    def trials(self, strategies: Sequence[str], seed: int) -> Iterator[ActiveLearningLoop]:
        # On one model and one data module, which a run would change and a trial does not.
        parts = {**self._parts(seed), **self.active, "seed": seed}
        for name in strategies:
            yield ActiveLearningLoop(**{**parts, **self.strategies[name]})

    def beginnings(self, strategies: Sequence[str], seed: int) -> dict[str, dict[str, Any]]:
        loops = self.trials(strategies, seed)
        return {name: loop.config for name, loop in zip(strategies, loops, strict=True)}

    def began(self, start: Record) -> dict[str, Any]:
        if start["settings"] is not None:
            raise ValueError("a command line began it, which makes other weights of the same seed")
        config: dict[str, Any] = start["config"]
        return config

    @property
    def one_run(self) -> OneRun:
        return self._run

    def _run(self, strategy: str, seed: int, folder: Path) -> None:
        with quiet():
            check_one_process(check_factory(self.trainer))
        parts: Any = self._parts(seed)
        arguments = {**self.active, **self.strategies[strategy], "seed": seed}
        if Run(strategy, seed, folder).records():
            ActiveLearningLoop.resume(folder, **parts, **arguments).run()
        else:
            ActiveLearningLoop(**parts, **arguments, run_dir=folder).run()

    def _parts(self, seed: int) -> dict[str, Any]:
        with seeded(seed, "model"):
            model = self.model()
        with seeded(seed, "data"):
            data = self.data(seed=seed)
        return {"model": model, "data": data, "trainer": self.trainer}


def check_oracle_answers(oracle: Any) -> None:
    """Raises ValueError when the labels are to come from people: no run would end by itself."""
    if oracle == "files":
        raise ValueError(
            'the runs of a comparison must get their labels by themselves, found oracle="files"; '
            'give "dataset", or a function'
        )


def check_one_process(trainer: L.Trainer) -> None:
    """Raises ValueError for a Trainer of several processes, or of a GPU that it names by number."""
    if trainer.world_size > 1 or trainer.strategy.root_device.index:
        raise ValueError(
            "each run of a comparison must be one process, on a GPU that the comparison gives it, "
            f"found a Trainer of {trainer.world_size} on {trainer.strategy.root_device}; give it "
            "devices=1, and name GPUs by CUDA_VISIBLE_DEVICES"
        )
