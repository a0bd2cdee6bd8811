"""The active-learning loop: ask, tell, and ``run``, which is the two in turn.

One cycle is three ordinary Trainer calls and a choice::

    fit on the labeled rows -> test -> predict the pool -> select -> (labels come) -> next cycle

The journal is the state: a step that it holds is not done again, whether in this process or in one
that resumed after a crash.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from al_lightning.beginning import check_same_beginning, described
from al_lightning.continuation import check_root, forget_preemption
from al_lightning.datamodule import ActiveDataModule
from al_lightning.journal import Journal, Record, read_records
from al_lightning.ranks import is_first_rank
from al_lightning.records import CycleResult, Query
from al_lightning.run_folder import (
    INITIAL_WEIGHTS,
    JOURNAL,
    check_vacant,
    checksum,
    load_state,
    save_state,
    sync,
)
from al_lightning.run_lock import lock, unlock
from al_lightning.steps import Steps
from al_lightning.strategies import Select, Strategy, find_strategy, strategy_name
from al_lightning.trainers import TrainerFactory, check_factory, new_trainer, quiet


class Monitor:
    """Watches a loop, on the first rank alone; may read everything, and changes nothing.

    What it shows should derive from ``loop.results``, so that a resumed run shows what an
    uninterrupted one does.
    """

    def on_start(self, loop: "ActiveLearningLoop") -> None:
        """Before the first cycle of this process; ``loop.results`` holds those resumed."""

    def on_cycle(self, loop: "ActiveLearningLoop", result: CycleResult) -> None:
        """A cycle was fitted, tested and, but for the last, asked."""

    def on_labels(self, loop: "ActiveLearningLoop", result: CycleResult) -> None:
        """The labels of ``result.query`` arrived."""

    def on_end(self, loop: "ActiveLearningLoop") -> None:
        """No cycle follows."""


DEFAULT_MONITORS: list[Callable[[], Monitor]] = []
"""What watches a loop with a run folder unless it is told otherwise; the package fills it."""


class ActiveLearningLoop:
    """Trains, asks for labels, and trains again.

    Args:
        model: Any LightningModule. Its weights of this moment are where each cold start begins.
        data: The split and the loaders.
        trainer: Makes a new Trainer for each cycle: ``partial(L.Trainer, max_epochs=10)`` or a
            function that passes keyword arguments on.
        strategy: A name in ``STRATEGIES``, a ``Strategy``, or a function
            ``select(pool, num, generator) -> positions``.
        acquisition_size: Rows to ask for in a cycle; a smaller rest of the pool is asked whole.
        num_cycles: Fits in all; after the last nothing is asked.
        run_dir: Folder for the journal, tables, pictures and TensorBoard; must not hold a run.
            Without it nothing is written.
        seed: Each cycle's randomness derives from it; ``data.seed`` when not given.
        warm_start: Keeps the weights from cycle to cycle.
        candidate_size: Scores a random subset of that size instead of the whole pool.
        strategy_args: The strategy's own arguments, by name: ``{"beta": 4.0}`` for ``power_bald``.
        mc_samples: Predicts the pool with that many samples of MC dropout, for any model with
            dropout layers; see :class:`~al_lightning.mc_dropout.MCDropout`.
        embedding_layer: Name of a layer of the model, the input of which is the embedding; for a
            model whose ``predict_step`` returns none.
        target: A metric's name and value; the run ends once the metric reaches it from below.
        monitors: What watches; the run folder's tables, pictures and TensorBoard when not given.

    Raises:
        ValueError, TypeError: for arguments that cannot work, before anything runs or is written.
    """

    def __init__(
        self,
        model: L.LightningModule,
        data: ActiveDataModule,
        *,
        trainer: TrainerFactory = L.Trainer,
        strategy: str | Strategy | Select = "least_confidence",
        acquisition_size: int = 500,
        num_cycles: int = 5,
        run_dir: str | Path | None = None,
        seed: int | None = None,
        warm_start: bool = False,
        candidate_size: int | None = None,
        strategy_args: dict[str, Any] | None = None,
        mc_samples: int | None = None,
        embedding_layer: str | None = None,
        target: tuple[str, float] | None = None,
        monitors: Sequence[Monitor] | None = None,
    ) -> None:
        for name, value in (
            ("acquisition_size", acquisition_size),
            ("num_cycles", num_cycles),
            ("candidate_size", candidate_size),
        ):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if candidate_size is not None and candidate_size < acquisition_size:
            raise ValueError(
                f"candidate_size must be at least acquisition_size={acquisition_size}, got "
                f"{candidate_size}"
            )
        self.strategy = find_strategy(strategy, strategy_args)
        with quiet():
            example = check_factory(trainer)
        data.prepare_data()
        data.setup()
        self.model = model
        self.data = data
        self.trainer = trainer
        self.acquisition_size = acquisition_size
        self.num_cycles = num_cycles
        self.run_dir = None if run_dir is None else Path(run_dir)
        self.seed = data.seed if seed is None else seed
        self.warm_start = warm_start
        self.candidate_size = candidate_size
        self.strategy_args = strategy_args
        self.mc_samples = mc_samples
        self.embedding_layer = embedding_layer
        self.target = target
        self.monitors = monitors
        self._steps = Steps(
            model,
            data,
            self.strategy,
            seed=self.seed,
            acquisition_size=acquisition_size,
            warm_start=warm_start,
            candidate_size=candidate_size,
            mc_samples=mc_samples,
            embedding_layer=embedding_layer,
        )
        self._journal = Journal()
        self._watching: list[Monitor] | None = None
        if self.run_dir is not None and is_first_rank():
            check_vacant(self.run_dir)
        active = {
            "strategy": strategy_name(strategy),
            "acquisition_size": acquisition_size,
            "num_cycles": num_cycles,
            "seed": self.seed,
            "warm_start": warm_start,
            "candidate_size": candidate_size,
            "strategy_args": strategy_args,
            "mc_samples": mc_samples,
            "embedding_layer": embedding_layer,
            "target": target,
        }
        self._config = described(active, model, data, example)

    @classmethod
    def resume(
        cls,
        run_dir: str | Path,
        model: L.LightningModule,
        data: ActiveDataModule,
        *,
        trainer: TrainerFactory = L.Trainer,
        strategy: str | Strategy | Select | None = None,
        monitors: Sequence[Monitor] | None = None,
        **config: Any,
    ) -> "ActiveLearningLoop":
        """The loop of ``run_dir`` as its journal left it; ``run``, ``ask`` and ``tell`` carry on.

        Args:
            run_dir: Folder of a run.
            model: A module like the one that the run began with; it gets the run's weights.
            data: The data module that the run began with, in any split; it gets the run's.
            trainer: As the run began with; on which and how many devices is free.
            strategy: Needed when it is a function or a Strategy of the user's own.
            monitors: As in the constructor.
            config: Any other argument of the constructor; left out, it is the run's.

        Raises:
            ValueError: when the folder holds no run, its journal or weights are damaged, another
                process is at work on it, or something differs from what the run began with: lists
                the keys.
        """
        folder = Path(run_dir)
        records = read_records(folder / JOURNAL)
        if not records:
            raise ValueError(f"{run_dir} holds no run to resume: {JOURNAL} is missing or empty")
        start = records[0]
        began = start["config"]
        given = {**config, **({} if strategy is None else {"strategy": strategy})}
        loop = cls(model, data, trainer=trainer, monitors=monitors, **{**began["active"], **given})
        check_same_beginning(began, loop._config)
        weights = load_state(folder / INITIAL_WEIGHTS, start["weights"])
        loop.run_dir = folder
        loop._journal = loop._open_journal() if is_first_rank() else Journal.in_memory(records)
        try:
            loop._steps.begin_from(weights)
            data.load_state_dict(_split_of(start))
            for record in loop._journal.of("labels"):
                data.label(record["indices"], record["labels"])
            if fits := loop._journal.of("fit"):
                loop._steps.take_fit(fits[-1], folder / f"cycle_{fits[-1]['cycle']}")
        except ValueError:
            unlock(folder)
            raise
        if loop.finished:
            unlock(folder)
        return loop

    # ---- the machine -----------------------------------------------------------------------------

    def run(self) -> list[CycleResult]:
        """Asks and tells, with the data set's own labels, until the run is over.

        Returns:
            One record a cycle.
        """
        while (query := self.ask()) is not None:
            self.tell(query.indices)
        return self.results

    def ask(self) -> Query | None:
        """Fits, tests, predicts and selects; gives the query to label.

        Called again before :meth:`tell` it gives the same query.

        Returns:
            The query, or None when the run is over: after ``num_cycles`` fits, at ``target``, or
            when the pool is empty.
        """
        self.prepare()
        cycle = self._cycle
        if not self.finished and self._journal.find("query", cycle) is None:
            with quiet(validates=self.data.has_validation):
                self._run_cycle(cycle)
            self._notify("on_cycle", self.results[-1])
            if self.finished:
                self._notify("on_end")
        return self.results[-1].query

    def tell(
        self, indices: Sequence[int] | Tensor, labels: Sequence[Any] | Tensor | None = None
    ) -> None:
        """Labels rows of the query; the next :meth:`ask` trains on them.

        Args:
            indices: Data-set indices, all or some of the query's; what is left out returns to the
                pool.
            labels: One for each index, in plain values. None takes the data set's own.

        Raises:
            ValueError: when nothing was asked, an index was not asked for or repeats, or the labels
                are of another count; nothing has changed then.
        """
        record = self._journal.find("query", self._cycle)
        if record is None:
            raise ValueError("tell needs a query to answer, got none open; call ask() first")
        rows, values = self.data.check_labels(indices, labels)
        strangers = sorted(set(rows).difference(record["indices"]))
        if strangers or not rows:
            raise ValueError(
                "tell takes data-set indices of the open query, got "
                + (f"{strangers[:5]} that were not asked for" if strangers else "none")
            )
        self._journal.append("labels", cycle=record["cycle"], indices=rows, labels=values)
        self.data.label(rows, values)
        self._notify("on_labels", self.results[-1])

    @property
    def finished(self) -> bool:
        """Whether no further cycle follows."""
        return bool(self._journal.of("end"))

    @property
    def results(self) -> list[CycleResult]:
        """One record for each cycle that was fitted, tested and, but for the last, asked."""
        done = self._journal.of("query") + self._journal.of("end")
        return [self._result(record["cycle"]) for record in done]

    @property
    def _cycle(self) -> int:
        """The cycle in hand, from 1: it lasts until its labels are told."""
        return 1 + len(self._journal.of("labels"))

    # ---- the start -------------------------------------------------------------------------------

    def prepare(self, settings: dict[str, Any] | None = None) -> None:
        """Tries the module on one batch and opens the run folder; :meth:`ask` does it by itself.

        Args:
            settings: Plain values for the journal's first record, such as a program's
                configuration.

        Raises:
            ValueError: when the module's predictions cannot be read.
        """
        if self._watching is not None:
            return
        if self.strategy.needs and self.data.num_unlabeled and not self.finished:
            with quiet():
                self._steps.try_asking(self._trial_trainer())
        if not self._journal.records:
            self._begin(settings)
        makers = DEFAULT_MONITORS if self.run_dir is not None else []
        watching = [make() for make in makers] if self.monitors is None else self.monitors
        self._watching = list(watching) if is_first_rank() else []
        self._notify("on_start")

    def _begin(self, settings: dict[str, Any] | None) -> None:
        """Writes the first record; it comes last, so a folder with a journal is complete."""
        weights = None
        if self.run_dir is not None and is_first_rank():
            self._journal = self._open_journal()
            check_vacant(self.run_dir)  # once more, now that nobody else can fill it
            path = self.run_dir / INITIAL_WEIGHTS
            save_state(self._steps.start_weights, path)
            sync(path)
            weights = checksum(path)
        split = self.data.state_dict()
        self._journal.append(
            "start",
            run=secrets.token_hex(8),  # tells two runs of one configuration apart
            config=self._config,
            split={
                **split,
                "labeled_indices": split["labeled_indices"].tolist(),
                "given_labels": list(split["given_labels"].items()),
            },
            weights=weights,
            settings=settings,
        )

    def _open_journal(self) -> Journal:
        assert self.run_dir is not None
        try:
            self.run_dir.mkdir(parents=True, exist_ok=True)
            lock(self.run_dir)
            return Journal(self.run_dir / JOURNAL)
        except OSError as error:
            raise ValueError(
                f"run_dir must be a folder that can be written, got {self.run_dir} "
                f"({error.strerror}); name another folder"
            ) from error

    def _notify(self, event: str, *details: Any) -> None:
        for monitor in self._watching or []:
            getattr(monitor, event)(self, *details)

    # ---- one cycle -------------------------------------------------------------------------------

    def _run_cycle(self, cycle: int) -> None:
        folder = None if self.run_dir is None else self.run_dir / f"cycle_{cycle}"
        trainer, steps, history = self._cycle_trainer(folder), self._steps, self._journal.history

        def once(event: str, do: Callable[[], Record]) -> Record:
            """What the journal holds is not done again; what is done, all ranks hold alike."""
            done = self._journal.find(event, cycle)
            if done is not None:
                return done
            fields = trainer.strategy.broadcast(do())
            return self._journal.append(event, cycle=cycle, **fields)

        fit = once("fit", lambda: steps.fit(trainer, cycle, history, folder))
        if folder is not None:
            forget_preemption(folder)
        test = once("test", lambda: steps.test(trainer, cycle))
        reason = self._why_end(cycle, {**fit["metrics"], **test["metrics"]})
        if reason is None:
            once("query", lambda: steps.query(trainer, cycle))
            return
        self._journal.append("end", cycle=cycle, reason=reason)
        if self.run_dir is not None:
            unlock(self.run_dir)

    def _cycle_trainer(self, folder: Path | None) -> L.Trainer:
        # With few labels an epoch has fewer batches than the 50 Lightning waits before it logs.
        batches = len(self.data.train_dataloader())
        arguments: dict[str, Any] = {"log_every_n_steps": max(1, min(50, batches // 4))}
        if folder is not None:
            arguments["default_root_dir"] = folder
            arguments["logger"] = TensorBoardLogger(folder.parent, name="", version=folder.name)
        trainer = self._new_trainer(**arguments)
        if folder is not None:
            check_root(trainer, folder)
        return trainer

    def _trial_trainer(self) -> L.Trainer:
        arguments: dict[str, Any] = {"logger": False, "enable_progress_bar": False}
        if self.run_dir is not None:
            # In the present folder SLURM may have left a checkpoint of something else.
            arguments["default_root_dir"] = self.run_dir / "trial"
        return self._new_trainer(**arguments)

    def _new_trainer(self, **arguments: Any) -> L.Trainer:
        return new_trainer(self.trainer, enable_model_summary=False, **arguments)

    def _why_end(self, cycle: int, metrics: Mapping[str, float]) -> str | None:
        if self.target is not None:
            name, value = self.target
            if name not in metrics:
                raise ValueError(
                    f"target must name a metric that the module logs, got {name!r}; it logs "
                    f"{sorted(metrics)}"
                )
            if metrics[name] >= value:
                return "target"
        if cycle >= self.num_cycles:
            return "num_cycles"
        return "pool is empty" if self.data.num_unlabeled == 0 else None

    def _result(self, cycle: int) -> CycleResult:
        fit, test = self._journal.find("fit", cycle), self._journal.find("test", cycle)
        assert fit is not None
        assert test is not None
        asked = self._journal.find("query", cycle)
        query = asked and Query(cycle, asked["indices"], asked["scores"], asked["predicted"])
        return CycleResult(
            cycle=cycle,
            num_labeled=fit["num_labeled"],
            metrics={**fit["metrics"], **test["metrics"]},
            seconds={**fit["seconds"], **test["seconds"], **(asked["seconds"] if asked else {})},
            query=query or None,
        )


def _split_of(start: Record) -> dict[str, Any]:
    """The split of a journal's first record, as a data module takes it."""
    return {
        **start["split"],
        "labeled_indices": torch.tensor(start["split"]["labeled_indices"]),
        "given_labels": dict(start["split"]["given_labels"]),
    }
