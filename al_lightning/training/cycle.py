"""One cycle: fit on the labeled rows, test, predict the pool and choose.

Each step gives the fields of a record, plain values for the journal, and is done once: a step that
the journal holds is not done again.
"""

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from al_lightning.data.datamodule import ActiveDataModule
from al_lightning.distributed import from_first_rank, is_first_rank
from al_lightning.monitor.notebook import NotebookBar, in_notebook
from al_lightning.prediction.ensemble import mean_of, networks_of
from al_lightning.prediction.read_pool import read_pool
from al_lightning.prediction.tasks import find_task
from al_lightning.run.folder import WEIGHTS
from al_lightning.run.journal import Record
from al_lightning.run.records import NUM_PICTURED, packed_map
from al_lightning.run.run import Run
from al_lightning.run.stop_rules import StopRules
from al_lightning.run.weights import load_state
from al_lightning.seeds import generator, seeded_step
from al_lightning.settings import Settings
from al_lightning.strategies import Strategy
from al_lightning.training.checkpoints import (
    CycleFit,
    changes_in,
    check_root,
    forget_preemption,
    keep_whole,
    last_checkpoint,
    numbers,
    save_weights,
)
from al_lightning.training.loggers import UserLoggers
from al_lightning.training.looks import Looks
from al_lightning.training.spent import spent_on_labels
from al_lightning.training.start import Completing, ModelSource, Start, Weights
from al_lightning.training.trainers import (
    TrainerFactory,
    choosing_bar,
    cycle_trainer,
    without_tuners,
)
from al_lightning.training.trial import Trial

MAPS = Strategy(lambda pool, num, generator: torch.arange(num), keep={"maps": "map"})


@dataclass(frozen=True)
class Part:
    """Holds a network that a fit of its own trains: the model, or a member of an ensemble."""

    network: L.LightningModule
    trainer: L.Trainer
    folder: Path | None
    """Where its weights are kept."""


class Cycles:
    """Carries out the cycles of a run; the loop says when.

    Args:
        model: Trained by each fit, from the weights in ``start``.
        data: Serves the rows.
        trainer: Makes a new Trainer for each cycle.
        strategy: Chooses.
        settings: What the run is asked to do, with a seed.

    Attributes:
        start: The module, and the weights where the next fit begins.
        loggers: The user's, known once a cycle has begun.

    Raises:
        TypeError: when ``model`` is no module.
        ValueError: when the task does not have the strategy.
    """

    def __init__(
        self,
        model: ModelSource,
        data: ActiveDataModule,
        trainer: TrainerFactory,
        strategy: Strategy,
        settings: Settings,
    ) -> None:
        self.data = data
        self.trainer = trainer
        self.strategy = strategy
        self.settings = settings
        assert settings.seed is not None
        self.seed = settings.seed
        self.task = find_task(settings.task, strategy)
        self.rules = StopRules(settings)
        self.looks = Looks(data, self.task, settings, self.rules.reads)
        self.start = Start(model, self.seed, settings.task)
        self.loggers = UserLoggers()
        self._bar = NotebookBar() if in_notebook() else None
        self._taken: tuple[list[Weights], list[Any]] | None = None  # of a fit done before

    @property
    def model(self) -> L.LightningModule:
        """The module; another object in each cycle when a function makes it."""
        return self.start.model

    def try_asking(self, run: Run) -> None:
        """Ask once before any training; the module is as before afterwards.

        The weights from which cold starts begin are taken now, since Lightning has made all layers.
        """
        is_new = not run.journal.records
        self.rules.check_rows(len(self.data.pool.labeled_N) - len(self.data.pool.held_out))
        spent_on_labels(self.data, run)  # costs are checked when they are read
        self.looks.check_labels()
        tried = [one for one in (*self.strategy.parts, *self.looks.strategies) if one.keep]
        trial = Trial(self.start, self.data, self.trainer, tried, self.task, self.settings)
        if tried and not run.finished:
            trial.ask_once(run)
        elif is_new and self.start.is_late:
            trial.make_layers(run)
        if is_new:
            self.start.settle()
        self._bring_back()
        if self._taken is not None and self.start.is_late:
            trial.make_layers(run)

    def carry_out(self, run: Run, cycle: int) -> None:
        """Do what the journal does not hold yet of a cycle, up to its query or the run's end."""
        self.data.check_split(run)
        run.set_query_aside(cycle)
        if cycle == 0:
            run.journal.append("query", cycle=0, **self._first_rows())
            return
        folder, history = run.cycle_folder(cycle), run.journal.history
        find = run.journal.find
        if find("fit", cycle) is None:
            self._taken = None
            self.start.renew()
        parts = [
            Part(network, self._new_trainer(place), place)
            for network, place in self._places(folder)
        ]
        is_joint = parts[0].network is not self.model
        whole = self._new_trainer(folder) if is_joint else parts[0].trainer

        def keep(event: str, fields: Record) -> Record:
            return run.journal.append(event, cycle=cycle, **whole.strategy.broadcast(fields))

        step = sum(record.get("steps", 0) for record in run.journal.of("fit"))
        if find("fit", cycle) is None:
            spent = spent_on_labels(self.data, run)
            keep("fit", {**self.fit(parts, cycle, history, step), "spent": spent})
        for part in parts:
            without_tuners(part.trainer)
            if part.folder is not None:
                forget_preemption(part.folder)
        step = sum(record.get("steps", 0) for record in run.journal.of("fit"))
        if find("test", cycle) is None:
            tested = self.test(parts, whole, cycle, step)
            looked = self.looks.at(whole, self.model, run, cycle)
            metrics = {**tested["metrics"], **looked.pop("metrics", {})}
            keep("test", {**tested, **looked, "metrics": metrics})
        end = self._why_end(run, cycle)
        if end is None:
            keep("query", self.query(whole, cycle))
        else:
            run.end(cycle, *end)

    def _places(self, folder: Path | None) -> list[tuple[L.LightningModule, Path | None]]:
        """Return each network that is trained, with the folder of its weights."""
        networks = networks_of(self.model)
        if networks == [self.model]:
            return [(self.model, folder)]
        return [(one, folder and folder / f"member_{m}") for m, one in enumerate(networks)]

    def _new_trainer(self, folder: Path | None) -> L.Trainer:
        trainer = cycle_trainer(self.trainer, self.data, folder, self.loggers, self._bar)
        if folder is not None:
            check_root(trainer, folder)
        trainer.callbacks.insert(0, Completing(self.start))  # type: ignore[attr-defined]
        return trainer

    def _first_rows(self) -> Record:
        rows = [i for i in self.data.first_indices if i not in self.data.pool.invalid]
        nothing: Record = {"scores": None, "predicted": None, "seconds": {}}
        return {"indices": rows, "names": self.data.names_of(rows), **nothing}

    def _why_end(self, run: Run, cycle: int) -> tuple[str, str] | None:
        """Return the reason why no cycle follows, and a sentence about it; None to go on."""
        results = [one for one in run.results if 0 < one.cycle < cycle]
        results.append(run.result(cycle))
        end = from_first_rank(lambda: self.rules.reason(results))
        if end is not None:
            if end[0] == "target" and cycle == 1 and len(self.settings.target or ()) == 2:
                rank_zero_warn(
                    f"the first fit has reached the target {self.settings.target}; if smaller is "
                    'better, add "min" to it and resume the run'
                )
            return end
        if cycle >= self.settings.num_cycles:
            return "num_cycles", f"{cycle} cycles are done"
        return ("pool is empty", "") if self.data.pool.num_askable == 0 else None

    # ---- fit -------------------------------------------------------------------------------------

    def fit(self, parts: Sequence[Part], cycle: int, history: str, step: int) -> Record:
        """Train from the start weights, or on from where this fit was interrupted.

        Args:
            parts: The networks, each trained by a fit of its own, one after the other.
            cycle: From 1.
            history: Checksum of all that was decided before.
            step: Steps of the fits before, for loggers.
        """
        begin, before = time.perf_counter(), step
        metrics: list[dict[str, float]] = []
        kept: list[dict[str, Any]] = []
        weights = []
        for m, part in enumerate(parts):
            # The first one's seeds and checkpoints are those of a model that is trained alone.
            purpose = ("fit", cycle, m) if m else ("fit", cycle)
            with self.loggers.continued(part.trainer, step):
                found, best = self._fit_alone(part, f"{history}-{m}" if m else history, *purpose)
            metrics.append(found)
            kept += [] if best is None else [best]
            step += part.trainer.global_step
            weights.append(part.folder and save_weights(part.trainer, part.folder, best))
        warm = self.settings.warm_start
        if kept:
            states = [one["state_dict"] for one in kept]
            self.start.fitted_before(states, [*map(changes_in, kept)], warm=warm)
        else:
            self.start.fitted(warm=warm)
        return {
            "num_labeled": self.data.num_labeled,
            "steps": step - before,
            "metrics": mean_of(metrics),
            "seconds": {"fit": time.perf_counter() - begin},
            "weights": weights[0] if parts[0].network is self.model else weights,
        }

    def _fit_alone(
        self, part: Part, history: str, *purpose: str | int
    ) -> tuple[dict[str, float], dict[str, Any] | None]:
        """Fit one network; return what it logged, and its best checkpoint where that counts."""
        trainer, folder = part.trainer, part.folder
        is_best = self.settings.ckpt_path == "best"
        goes_on = folder and last_checkpoint(trainer, history, folder, best=is_best)
        if folder and goes_on is None and is_first_rank():
            # Curves and checkpoints of an attempt that was interrupted.
            shutil.rmtree(folder, ignore_errors=True)
        if goes_on:
            self.start.leave(part.network)
        given = self.start.given(part.network)
        if folder or is_best:
            keep_whole(trainer, given)
        cycle_fit = CycleFit(given, self.data, history, goes_on, self.seed, *purpose)
        trainer.callbacks.insert(0, cycle_fit)  # type: ignore[attr-defined]
        with seeded_step(trainer, self.seed, *purpose):
            trainer.fit(part.network, datamodule=self.data, ckpt_path=goes_on)
        return cycle_fit.best(trainer) if is_best else (cycle_fit.metrics(trainer), None)

    def begin_from(self, weights: Mapping[str, Any]) -> None:
        """Take over the initial weights of a run; ValueError when the model is another one."""
        self.start.weights = self.start.split(weights)
        self._bring_back()

    def take_fit(self, run: Run, record: Record) -> None:
        """Take over the weights of a fit that was done before; ValueError when damaged."""
        folder, sums = run.cycle_folder(record["cycle"]), record["weights"]
        places = [place for _, place in self._places(folder)]
        if not isinstance(sums, list):  # of one file, also of an ensemble in earlier versions
            places, sums = [folder], [sums]
        files = zip([place / WEIGHTS for place in places if place], sums, strict=True)
        states = [load_state(path, crc) for path, crc in files]
        weights: list[Weights] = [state["state_dict"] for state in states]
        is_whole = len(weights) < len(self.start.networks)
        weights = self.start.split(weights[0]) if is_whole else weights
        if self.settings.warm_start:
            self.start.weights = weights
        self.data.load_own_state(states[0].get(type(self.data).__qualname__, {}))
        changes = [None if is_whole else changes_in(one) for one in states]
        self._taken = weights, changes if len(changes) == len(weights) else [None] * len(weights)
        self._bring_back()

    def _bring_back(self) -> None:
        """Bring the module to the start of a fit, or to the end of the one that was taken over."""
        self.start.renew()
        if self._taken is not None:
            self.start.expect(*self._taken)

    # ---- test ------------------------------------------------------------------------------------

    def test(self, parts: Sequence[Part], whole: L.Trainer, cycle: int, step: int) -> Record:
        """Test the model; of an ensemble also each member. Without a test set nothing is said.

        Args:
            parts: The networks that were trained.
            whole: Tests the model.
            cycle: From 1.
            step: Steps of all fits so far, for loggers.
        """
        if not self.data.has_test:
            return {"metrics": {}, "seconds": {}}
        begin = time.perf_counter()
        members = [part for part in parts if part.network is not self.model]
        alone = mean_of([self._tested(one.trainer, one.network, cycle, step) for one in members])
        metrics = {f"member_{name}": value for name, value in alone.items()}
        metrics |= self._tested(whole, self.model, cycle, step)
        return {"metrics": metrics, "seconds": {"test": time.perf_counter() - begin}}

    def _tested(
        self, trainer: L.Trainer, network: L.LightningModule, cycle: int, step: int
    ) -> dict[str, float]:
        logged = self.loggers.continued(trainer, step - trainer.global_step)
        with logged, seeded_step(trainer, self.seed, "test", cycle):
            trainer.test(network, datamodule=self.data, verbose=False)
        return numbers(trainer.callback_metrics)

    # ---- query -----------------------------------------------------------------------------------

    def query(self, trainer: L.Trainer, cycle: int) -> Record:
        """Predict the pool, or its candidates, on all ranks, and choose on the first."""
        begin = time.perf_counter()
        strategy = self.strategy.at(self.data.num_labeled)
        num = self.rules.at_most(self.settings.size_of_query(cycle), self.data.num_labeled)
        with seeded_step(trainer, self.seed, "predict", cycle):
            pool = read_pool(
                trainer,
                self.model,
                self.data,
                strategy,
                self.task,
                rows=self._candidates(cycle),
                cycle=cycle,
                embedding_layer=self.settings.embedding_layer,
                mc_samples=self.settings.mc_samples,
            )
        predicted = time.perf_counter()

        def choose() -> Record:
            draw = generator(self.seed, "select", cycle)
            with choosing_bar(trainer):
                positions = strategy.choose(pool, num, draw)
            indices = pool.indices[positions.cpu()].tolist()
            columns = {
                name: pool.columns[name][positions].tolist() if name in pool.columns else None
                for name in ("scores", "predicted")
            }
            seconds = {"predict": predicted - begin, "query": time.perf_counter() - predicted}
            names = self.data.names_of(indices)
            return {"indices": indices, "names": names, "seconds": seconds, **columns}

        record = from_first_rank(choose)
        maps = self._maps(trainer, cycle, record["indices"][:NUM_PICTURED])
        return {**record, "maps": maps}

    def _maps(self, trainer: L.Trainer, cycle: int, rows: Sequence[int]) -> list[str] | None:
        """Return what is predicted of the pixels of these rows, for pictures; None without pixels.

        The pool keeps no table of pixels, so these few rows are predicted once more.
        """
        if not MAPS.needs <= self.task.gives or not rows:
            return None
        ascending = torch.tensor(sorted(rows))
        with seeded_step(trainer, self.seed, "maps", cycle):
            found = read_pool(trainer, self.model, self.data, MAPS, self.task, rows=ascending)

        def packed() -> list[str] | None:
            by_row = dict(zip(found.indices.tolist(), found.maps.cpu(), strict=True))
            return [packed_map(by_row[row]) for row in rows] if found.maps.numel() else None

        return from_first_rank(packed)

    def _candidates(self, cycle: int) -> Tensor | None:
        """Draw data-set indices to choose from, ascending; None for the whole pool."""
        size, askable = self.settings.candidate_size, self.data.pool.askable_indices
        if size is None or size >= len(askable):
            return None
        draw = generator(self.seed, "candidates", cycle)
        return askable[torch.randperm(len(askable), generator=draw)[:size].msort()]
