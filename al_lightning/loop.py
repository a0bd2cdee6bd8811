"""The active-learning loop: ask, tell, and ``run``, which is the two in turn.

One cycle is three ordinary Trainer calls and a choice::

    fit on the labeled rows -> test -> predict the pool -> select -> (labels come) -> next cycle

The journal is the state: a step that it holds is not done again, also not after a crash.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning as L
from torch import Tensor

from al_lightning.data.datamodule import ActiveDataModule, check_active
from al_lightning.data.pool import as_indices
from al_lightning.label import intake
from al_lightning.label.answers import OpenQuery
from al_lightning.label.fold import Answer
from al_lightning.label.oracle import attended, check_oracle, check_reveals, collected
from al_lightning.monitor import Monitor
from al_lightning.monitor.defaults import watching
from al_lightning.run.growth import last_fit
from al_lightning.run.journal import Record
from al_lightning.run.label_form import LabelForm
from al_lightning.run.records import CycleResult, Query
from al_lightning.run.run import Run
from al_lightning.settings import PEOPLE, Settings, WithOptions
from al_lightning.strategies import Strategy, strategy_name, strategy_of
from al_lightning.training.cycle import Cycles
from al_lightning.training.provenance import Provenance
from al_lightning.training.start import ModelSource
from al_lightning.training.trainers import TrainerFactory, check_factory, quiet


class ActiveLearningLoop(WithOptions):
    """Trains, asks for labels, and trains again; its options are attributes, ``loop.num_cycles``.

    Args:
        model: A function that makes a LightningModule for each cycle, ``partial(MyModule, lr=1)``.
            Or a module: each cycle begins with it, and each cold start with its weights, as now.
        data: The split and the loaders.
        trainer: Makes a new Trainer for each cycle: ``partial(L.Trainer, max_epochs=10)`` or a
            function that passes keyword arguments on.
        run_dir: Folder for all that is written, which must not hold a run; without it, nothing is.
        monitors: They watch the run; when not given, those that fill the run folder.
        settings: The options of :class:`~al_lightning.settings.Settings`: ``strategy``, ``task``,
            ``acquisition_size``, ``num_cycles``, ``seed``, ``warm_start``, ``oracle``, ...

    Raises:
        ValueError, TypeError: for arguments that cannot work, before anything runs or is written.
    """

    def __init__(
        self,
        model: ModelSource,
        data: ActiveDataModule,
        *,
        trainer: TrainerFactory,
        run_dir: str | Path | None = None,
        monitors: Sequence[Monitor] | None = None,
        **settings: Any,
    ) -> None:
        check_active(data)
        given = Settings.of(settings)
        strategy = strategy_of(given)
        with quiet():
            self._example = check_factory(trainer, given.ckpt_path)
        self.settings = replace(given, seed=data.seed if given.seed is None else given.seed)
        self.data = data
        self.trainer = trainer
        self.monitors = monitors
        self._cycles = Cycles(model, data, trainer, strategy, self.settings)
        self._run = Run.new(run_dir)
        self._watching: list[Monitor] | None = None
        self._waiting: OpenQuery | None = None

    @classmethod
    def resume(
        cls,
        run_dir: str | Path,
        model: ModelSource,
        data: ActiveDataModule,
        *,
        trainer: TrainerFactory,
        monitors: Sequence[Monitor] | None = None,
        **settings: Any,
    ) -> "ActiveLearningLoop":
        """Return the loop of ``run_dir`` as its journal left it, to carry on.

        Args:
            run_dir: Folder of a run.
            model: A module like the one that the run began with; it gets the run's weights.
            data: The data module that the run began with, in any split; it gets the run's.
            trainer: Makes Trainers as the run began with; kind and number of devices may differ.
            monitors: As in the constructor.
            settings: Options; left out, they are the run's. Budgets, target and how later queries
                are chosen may change. Functions and strategies without a name must be given again.

        Raises:
            ValueError: when the folder holds no run, is damaged or in use by another process, or
                something differs from what the run began with.
        """
        run = Run.existing(run_dir)
        options = run.options(**settings)
        loop = cls(model, data, trainer=trainer, monitors=monitors, **options)
        data.follow(run, loop._example, loop.settings)
        Provenance(run.start["config"]).check_same(loop._provenance)
        loop._run = run
        run.open()
        try:
            run.change(loop.config["active"], weights=loop._cycles.start.whole, **data.growth)
            loop._cycles.begin_from(run.initial_weights())
            data.begin(run, run.start["split"])
            loop._replay(run.journal.records)
        except Exception:
            run.release()
            raise
        return loop

    def run(self) -> list[CycleResult]:
        """Ask and label until the run is over, or labels are to come; return one record a cycle.

        In the second case the query waits in the run folder, which is free for others until you
        call this again, here or after :meth:`resume`. With a page it waits for people itself.

        Raises:
            ValueError: when the oracle is the data set, which holds no labels.
            AnswersError: when an answer of the oracle cannot be accepted.
        """
        self.data.ensure_read(self._example)
        if self.oracle == "dataset":
            check_reveals(self.data.holds_labels)
        self.prepare()
        with attended(self.oracle, self.run_dir) as labels_came:
            while (query := self.ask()) is not None:
                if (closing := self._answers_to(query)) is not None:
                    self._close(closing)
                    continue
                self._notify("on_wait", query)
                self._run.release()
                if not labels_came():
                    break
        return self.results

    def ask(self) -> Query | None:
        """Fit, test, predict and select; return the query to label.

        Until labels come it is the same; with nothing labeled yet, cycle 0's. None: it is over.
        """
        self.prepare()
        self._catch_up()
        cycle = self._run.cycle
        if not self.finished and self._run.journal.find("query", cycle) is None:
            with quiet(validates=self.data.has_validation):
                self._cycles.carry_out(self._run, cycle)
            self._notify("on_cycle", self.results[-1])
            if self.finished:
                self._notify("on_end")
        return self.results[-1].query

    def tell(
        self,
        indices: Sequence[int] | Tensor,
        labels: Sequence[Any] | Tensor | None = None,
        *,
        by: str | None = None,
    ) -> None:
        """Label rows of the query and close it; the next :meth:`ask` trains on them.

        Args:
            indices: Data-set indices, all or some of the query's. A row that is left out and has no
                earlier answer returns to the pool.
            labels: One an index, in plain values, ``SKIP`` or ``INVALID``; None: the data set's.
            by: The person who labeled.

        Raises:
            ValueError: when nothing was asked, an index was not asked for or repeats, or the labels
                are of another count. On any error nothing has changed.
        """
        query = self._open_query()
        self._close(intake.tell(query, self.data.row_labels, as_indices(indices), labels, by))

    def answer(
        self,
        answers: Mapping[int, Answer],
        *,
        by: str | None = None,
        settles: bool = False,
        accept_unasked: bool = False,
    ) -> None:
        """Keep some answers to the query, which stays open; :meth:`finish` closes it.

        Args:
            answers: By data-set index: a label in plain values, ``SKIP`` (stays in the pool and is
                not asked again) or ``INVALID`` (leaves the pool). A label for a row of an earlier
                query corrects it.
            by: The person who answered. Where two people differ on a row, one must settle it.
            settles: These answers hold, whatever others answered.
            accept_unasked: Accept answers to rows of the pool that were not asked.

        Raises:
            ValueError: when nothing was asked, a row was not asked for, or a label is no class.
        """
        how = {"by": by, "settles": settles, "accept_unasked": accept_unasked}
        intake.answer(self._open_query(), self.data.row_labels, answers, **how)

    def undo(self, *, by: str | None = None) -> list[int]:
        """Undo the last answer, of that person or with None of anybody; return its rows.

        Raises:
            ValueError: when there is no answer.
        """
        return self._open_query().undo(by=by, how="api")

    def finish(self, *, by: str | None = None) -> None:
        """Close the query with its answers; rows without an answer return to the pool.

        It raises ValueError while people differ on a row, or when nothing at all is labeled.
        """
        self._close(self._open_query().finish(by=by, how="api"))

    @property
    def model(self) -> L.LightningModule:
        """The module; a new one in each cycle when a function makes it."""
        return self._cycles.model

    @property
    def strategy(self) -> Strategy:
        """The strategy that chooses; its name is in :attr:`settings`."""
        return self._cycles.strategy

    @property
    def loggers(self) -> list[Any]:
        """The loggers of the user's Trainers; none before the first cycle."""
        return self._cycles.loggers.users

    @property
    def run_dir(self) -> Path | None:
        """The run's folder, if it has one."""
        return self._run.folder

    @property
    def finished(self) -> bool:
        """True when no further cycle follows."""
        return self._run.finished

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of the run when it began, by group, in plain values; a copy."""
        return copy.deepcopy(dict(self._provenance.groups))

    @property
    def records(self) -> Sequence[Record]:
        """The journal, oldest first: to be read, not changed."""
        return tuple(self._run.journal.records)

    @property
    def results(self) -> list[CycleResult]:
        """One record for each cycle that was fitted, tested and, but for the last, asked."""
        return self._run.results

    @cached_property
    def _provenance(self) -> Provenance:
        self.data.ensure_read(self._example)
        active = self.settings.plain(free=False)
        active["strategy"] = strategy_name(self.settings.strategy)
        return Provenance.of_run(active, self.model, self.data, self._example)

    def prepare(self, settings: dict[str, Any] | None = None) -> None:
        """Try the module on one batch and open the run folder; :meth:`ask` does it by itself.

        Args:
            settings: Plain values for the journal's first record: a program's configuration.

        Raises:
            ValueError: when the module's predictions cannot be read.
        """
        if self._watching is not None:
            return
        self.data.ensure_read(self._example)
        form = LabelForm(self.settings.task, self.data.classes)
        check_oracle(self.oracle, self.run_dir, form, self._example.world_size)
        is_new = not self._run.journal.records
        if is_new:
            self.data.leave_out_unreadable()
            if self.oracle in PEOPLE:  # an answer must find its place in an item
                self.data.row_labels.check_values([form.example])
        config = self.config  # reads and checks rows, before the module is tried on them
        with quiet():
            self._cycles.try_asking(self._run)
        if is_new:
            self._run.begin(
                self._cycles.start.whole,
                names=self.data.all_names,
                config=config,
                split=self.data.split_record(),
                asking=self.settings.plain(free=True),
                settings=settings,
            )
            self.data.begin(self._run)
        self._watching = watching(self.monitors, self.run_dir)
        self._notify("on_start")

    def _answers_to(self, query: Query) -> Record | None:
        """Keep what the oracle answers; return the closing record once nothing is open."""
        waiting = self._open_query()
        if self.oracle == "dataset":
            return intake.reveal(waiting, self.data.row_labels)
        folder = self._run.query_folder(query.cycle)
        answers = collected(self.oracle, query, waiting, folder, self._example.world_size)
        return intake.take_in(waiting, self.data.row_labels, answers, self.accept_unasked)

    def _open_query(self) -> OpenQuery:
        self._catch_up()
        self._waiting = OpenQuery.of(self._run.journal, self._waiting)
        return self._waiting

    def _close(self, closing: Record) -> None:
        self.data.replay(closing)
        self._notify("on_labels", self._run.result(closing["cycle"]))

    def _catch_up(self) -> None:
        """Take the run folder back, with what others have answered or trained meanwhile."""
        new = self._run.catch_up()
        self._replay(new)
        told = {"labels": "on_labels", "query": "on_cycle", "end": "on_cycle"}
        for record in new:
            if record["event"] in told:
                self._notify(told[record["event"]], self._run.result(record["cycle"]))
        if new and self.finished:
            self._notify("on_end")

    def _replay(self, records: Sequence[Record]) -> None:
        """Bring split and weights to what these records say, the last of the journal."""
        for record in records:
            self.data.replay(record)
        if fit := last_fit(records):
            self._cycles.take_fit(self._run, fit)
        if self.finished:
            self._run.release()

    def _notify(self, event: str, *details: Any) -> None:
        for monitor in self._watching or []:
            getattr(monitor, event)(self, *details)
