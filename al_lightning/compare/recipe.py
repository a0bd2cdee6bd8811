"""How the runs of a comparison are made: of functions here, of a command line in ``cli``."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import lightning as L

from al_lightning.compare.runs import Run
from al_lightning.compare.worker import OneRun
from al_lightning.data.datamodule import ActiveDataModule
from al_lightning.loop import ActiveLearningLoop
from al_lightning.seeds import seeded
from al_lightning.settings import Settings
from al_lightning.training.provenance import Provenance
from al_lightning.training.trainers import TrainerFactory, check_factory, quiet

OURS = ("strategy", "seed", "run_dir", "resume", "target")
"""Keys of the group ``active`` that a comparison sets for each run, or has no use for."""


class Recipe(Protocol):
    """Says how the runs of a comparison are made."""

    by_command_line: bool
    """Two kinds of program make other weights of the same seed."""

    @property
    def strategies(self) -> Mapping[str, Mapping[str, Any]]:
        """By name, the arguments of the loop that are a strategy's own."""

    @property
    def one_run(self) -> OneRun:
        """Carries out a run in another process."""

    @property
    def device(self) -> str:
        """Type of the device that the runs train on: ``"cpu"``, ``"cuda"``, ..."""

    @property
    def protocol(self) -> dict[str, Any]:
        """What all runs share, as far as their journals do not say it."""

    def trials(self, seed: int) -> Iterator[ActiveLearningLoop]:
        """Make a loop without a run folder for each strategy in turn, to see that it works."""

    def beginnings(self, seed: int) -> dict[str, Provenance]:
        """Return by strategy what its run begins with."""


@dataclass(frozen=True)
class Parts:
    """Makes each run of functions; see :func:`~al_lightning.compare.study.compare`."""

    model: Callable[[], L.LightningModule]
    data: Callable[..., ActiveDataModule]
    trainer: TrainerFactory
    strategies: Mapping[str, Mapping[str, Any]]
    active: Mapping[str, Any]
    device: str

    by_command_line = False

    @property
    def protocol(self) -> dict[str, Any]:
        oracle = self.active.get("oracle", "dataset")
        return {"model": self.model, "trainer": self.trainer, "oracle": oracle}

    @property
    def one_run(self) -> OneRun:
        return self._run

    def trials(self, seed: int) -> Iterator[ActiveLearningLoop]:
        # On one model and one data module, which a run would change and a trial does not.
        parts = self._parts(seed)
        for name in self.strategies:
            yield ActiveLearningLoop(**parts, **self._arguments(name, seed))

    def beginnings(self, seed: int) -> dict[str, Provenance]:
        loops = zip(self.strategies, self.trials(seed), strict=True)
        return {name: Provenance(loop.config) for name, loop in loops}

    def _run(self, run: Run) -> None:
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
    """Return by name the arguments of the loop that are a strategy's own.

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
        strategies = dict.fromkeys(strategies)
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


def check_oracle_answers(oracle: Any) -> None:
    """Raise ValueError when the labels are to come from people: no run would end by itself."""
    if oracle == "files":
        raise ValueError(
            'the runs of a comparison must get their labels by themselves, found oracle="files"; '
            'give "dataset", or a function'
        )


def check_one_process(trainer: L.Trainer) -> None:
    """Raise ValueError for a Trainer of several processes, or of a GPU that it names by number."""
    if trainer.world_size > 1 or trainer.strategy.root_device.index:
        raise ValueError(
            "each run of a comparison must be one process, on a GPU that the comparison gives it, "
            f"found a Trainer of {trainer.world_size} on {trainer.strategy.root_device}; give it "
            "devices=1, and name GPUs by CUDA_VISIBLE_DEVICES"
        )
