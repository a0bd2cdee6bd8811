"""Recipes for the runs of a comparison: made of functions here, of a command line in ``cli``."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L

from al_lightning.compare.runs import Run
from al_lightning.compare.worker import OneRun
from al_lightning.data.datamodule import ActiveDataModule
from al_lightning.loop import ActiveLearningLoop
from al_lightning.seeds import seeded
from al_lightning.settings import PEOPLE, Settings
from al_lightning.training.provenance import Provenance
from al_lightning.training.trainers import TrainerFactory, check_factory, quiet

OURS = ("strategy", "seed", "run_dir", "resume", "target", "stop_when")
"""Keys of the group ``active`` that a comparison sets for each run, or does not use."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Says how to make the runs of a comparison."""

    strategies: Mapping[str, Mapping[str, Any]]
    """By name of the strategy, its own arguments of the loop."""
    one_run: OneRun
    trials: Callable[[int], Iterator[ActiveLearningLoop]]
    """Makes from a seed a loop without a run folder for each strategy in turn."""
    beginnings: Callable[[int], dict[str, Provenance]]
    """Gives by strategy the provenance with which its run at a seed begins."""
    protocol: Mapping[str, Any]
    """The parts that all runs share and that their journals do not hold."""
    device: str
    """Type of the device that the runs train on: ``"cpu"``, ``"cuda"``, ..."""
    by_command_line: bool
    """True for a command line, which makes other weights of the same seed than functions do."""


def recipe_of_parts(
    model: Callable[[], L.LightningModule],
    data: Callable[..., ActiveDataModule],
    trainer: TrainerFactory,
    strategies: Sequence[str] | Mapping[str, Any],
    active: Mapping[str, Any],
) -> Recipe:
    """Make the recipe of functions; see :func:`~al_lightning.compare.study.compare`.

    Raises:
        ValueError, TypeError: for arguments that cannot work.
    """
    if taken := sorted(active.keys() & {*OURS, "strategy_args", "monitors"}):
        raise ValueError(
            f"{', '.join(taken)} is not for a comparison to be given: strategies and seeds say it, "
            "it has folders of its own, and all runs must be of the same sizes"
        )
    _check_makes("model", model, L.LightningModule)
    _check_makes("data", data, ActiveDataModule)
    check_oracle_answers(oracle := active.get("oracle", "dataset"))
    with quiet():
        example = check_factory(trainer)
    device = example.strategy.root_device.type
    if device != "cuda":  # of several GPUs here each process will see one
        check_one_process(example)
    parts = Parts(model, data, trainer, as_arguments(strategies), active)
    return Recipe(
        strategies=parts.strategies,
        one_run=parts.run,
        trials=parts.trials,
        beginnings=parts.beginnings,
        protocol={"model": model, "trainer": trainer, "oracle": oracle},
        device=device,
        by_command_line=False,
    )


@dataclass(frozen=True)
class Parts:
    """Makes each run from functions; is sent to the process of the run."""

    model: Callable[[], L.LightningModule]
    data: Callable[..., ActiveDataModule]
    trainer: TrainerFactory
    strategies: Mapping[str, Mapping[str, Any]]
    active: Mapping[str, Any]

    def trials(self, seed: int) -> Iterator[ActiveLearningLoop]:
        """Yield a loop for each strategy, on one model and data module; a trial changes neither."""
        parts = self._parts(seed)
        for name in self.strategies:
            yield ActiveLearningLoop(**parts, **self._arguments(name, seed))

    def beginnings(self, seed: int) -> dict[str, Provenance]:
        """Return by strategy the provenance that its run begins with."""
        loops = zip(self.strategies, self.trials(seed), strict=True)
        return {name: Provenance(loop.config) for name, loop in loops}

    def run(self, run: Run) -> None:
        """Begin the run or go on with it."""
        with quiet():
            check_one_process(check_factory(self.trainer))
        parts, arguments = self._parts(run.seed), self._arguments(run.strategy, run.seed)
        if run.records():
            loop = ActiveLearningLoop.resume(run.folder, **parts, **arguments)
        else:
            loop = ActiveLearningLoop(**parts, **arguments, run_dir=run.folder)
        loop.run()

    def _parts(self, seed: int) -> dict[str, Any]:
        with seeded(seed, "model"):
            model = self.model()
        with seeded(seed, "data"):
            data = self.data(seed=seed)
        return {"model": model, "data": data, "trainer": self.trainer}

    def _arguments(self, strategy: str, seed: int) -> dict[str, Any]:
        return {**self.active, **self.strategies[strategy], "seed": seed}


def as_arguments(strategies: Sequence[str] | Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return by name of the strategy its own arguments of the loop.

    >>> as_arguments(["random"])
    {'random': {'strategy': 'random'}}
    >>> as_arguments({"sharp": {"strategy": "power_bald", "strategy_args": {"beta": 8.0}}})
    {'sharp': {'strategy': 'power_bald', 'strategy_args': {'beta': 8.0}}}
    """
    if not isinstance(strategies, Mapping):
        names = [strategies] if isinstance(strategies, str) else list(strategies)
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"strategies must be distinct, got {', '.join(repeated)} repeated")
        strategies = dict.fromkeys(names)
    own = Settings.names("of_strategy")
    found = {}
    for name, value in strategies.items():
        if not isinstance(value, Mapping):
            value = {} if value is None else {"strategy": value}
        if strange := sorted(value.keys() - set(own)):
            raise ValueError(
                f"a strategy must not set {', '.join(strange)}, found in {name!r}; it may set "
                f"{', '.join(own)}, and all else is for all runs"
            )
        found[name] = {"strategy": name, **value}
    return found


def _check_makes(what: str, given: Any, kind: type) -> None:
    if isinstance(given, kind) or not callable(given):
        raise TypeError(
            f"{what} must be a function that makes one for each run, got an instance of "
            f"{type(given).__name__}; pass the class, or partial(...) of it"
        )


def check_oracle_answers(oracle: Any) -> None:
    """Raise ValueError when people label, because no run would end by itself."""
    if oracle in PEOPLE:
        raise ValueError(
            "the runs of a comparison must get their labels by themselves, found "
            f'oracle="{oracle}"; give "dataset", or a function'
        )


def check_one_process(trainer: L.Trainer) -> None:
    """Raise ValueError for a Trainer of several processes, or of a GPU that it names by number."""
    if trainer.world_size > 1 or trainer.strategy.root_device.index:
        raise ValueError(
            "each run of a comparison must be one process, on a GPU that the comparison gives it, "
            f"found a Trainer of {trainer.world_size} on {trainer.strategy.root_device}; give it "
            "devices=1, and name GPUs by CUDA_VISIBLE_DEVICES"
        )
