"""The active-learning loop: ask, tell, and ``run``, which is the two in turn.

One cycle is three ordinary Trainer calls and a choice::

    fit on the labeled rows -> test -> predict the pool -> select -> (labels come) -> next cycle

The journal is the state: a step that it holds is not done again, whether in this process or in one
that resumed after a crash. While labels are awaited others may write to it: a page on which people
label, say.
"""

import copy
import operator
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from al_lightning.data.datamodule import ActiveDataModule, as_indices
from al_lightning.data.views import plain
from al_lightning.distributed import is_first_rank, processes_have_met
from al_lightning.label.answers import Answer, AnswersError, Mark, OpenQuery
from al_lightning.label.oracle import Oracle, check_oracle, collected
from al_lightning.run.folder import (
    INITIAL_WEIGHTS,
    JOURNAL,
    check_vacant,
    checksum,
    load_state,
    query_folder,
    save_state,
    set_aside,
    sync,
)
from al_lightning.run.journal import Journal, Record, read_records
from al_lightning.run.lock import lock, unlock
from al_lightning.run.records import CycleResult, Query, result_of, results_of
from al_lightning.strategies import Select, Strategy, find_strategy, strategy_name
from al_lightning.training.checkpoints import check_root, forget_preemption
from al_lightning.training.cycle import Steps
from al_lightning.training.provenance import Provenance
from al_lightning.training.trainers import TrainerFactory, check_factory, new_trainer, quiet


class Monitor:
    """Watches a loop, on the first rank alone; may read everything, and changes nothing.

    What it shows should derive from ``loop.results``, so that a resumed run shows what an
    uninterrupted one does.
    """

    def on_start(self, loop: "ActiveLearningLoop") -> None:
        """Before the first cycle of this process; ``loop.results`` holds those resumed."""

    def on_cycle(self, loop: "ActiveLearningLoop", result: CycleResult) -> None:
        """A cycle was fitted, tested and, but for the last, asked."""

    def on_wait(self, loop: "ActiveLearningLoop", query: Query) -> None:
        """Labels of ``query`` are to come later, and the run stops until then."""

    def on_labels(self, loop: "ActiveLearningLoop", result: CycleResult) -> None:
        """The labels of ``result.query`` arrived."""

    def on_end(self, loop: "ActiveLearningLoop") -> None:
        """No cycle follows."""


FUNCTION = "a function"
"""What a journal calls an oracle that is one."""

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
            dropout layers; see :class:`~al_lightning.prediction.mc_dropout.MCDropout`.
        embedding_layer: Name of a layer of the model, the input of which is the embedding; for a
            model whose ``predict_step`` returns none.
        target: A metric's name and value; the run ends once the metric reaches it from below.
        oracle: Who labels in :meth:`run`: ``"dataset"`` reveals the data set's own labels;
            ``"files"`` are people, who fill in files of the run folder or label on a page, and the
            run stops until they have; or a function, see :data:`~al_lightning.label.oracle.Oracle`.
        accept_unasked: Takes answers of files and functions to rows that were not asked, too.
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
        oracle: Literal["dataset", "files"] | Oracle = "dataset",
        accept_unasked: bool = False,
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
        self.oracle = oracle
        self.accept_unasked = accept_unasked
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
        self._waits = False
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
        self._config = Provenance.of_run(active, model, data, example).groups

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
            config: Any other argument of the constructor; left out, it is the run's. A function
                that labels must be given again.

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
        given = {**start["asking"], **config}
        if strategy is not None:
            given["strategy"] = strategy
        if given["oracle"] == FUNCTION:
            raise ValueError(
                "the labels of this run came from a function, which is not kept; give it again, "
                'oracle=..., or "files" or "dataset"'
            )
        loop = cls(model, data, trainer=trainer, monitors=monitors, **{**began["active"], **given})
        Provenance(began).check_same(Provenance(loop._config))
        weights = load_state(folder / INITIAL_WEIGHTS, start["weights"])
        loop.run_dir = folder
        loop._journal = loop._open_journal() if is_first_rank() else Journal.in_memory(records)
        try:
            loop._steps.begin_from(weights)
            data.load_state_dict(_split_of(start))
            loop._take_up(loop._journal.records)
        except Exception:
            unlock(folder)
            raise
        return loop

    # ---- the machine -----------------------------------------------------------------------------

    def run(self) -> list[CycleResult]:
        """Asks and labels until the run is over, or until labels are to come later.

        Then the query waits in the run folder, which is free for others until this is called again,
        here or after :meth:`resume`: on a page or in files people answer, and the run goes on.

        Returns:
            One record a cycle.

        Raises:
            ValueError: when the oracle is the data set, which holds no labels.
            AnswersError: when what the oracle answered cannot be taken.
        """
        if self.oracle == "dataset" and not self.data.holds_labels:
            raise ValueError(
                "run needs somebody who labels, and this data set's items are inputs alone; give "
                'oracle="files", or a function, or call ask() and tell() by hand'
            )
        while (query := self.ask()) is not None:
            if not self._label(query):
                self._wait(query)
                break
        return self.results

    def ask(self) -> Query | None:
        """Fits, tests, predicts and selects; gives the query to label.

        Called again before its labels came it gives the same query. With nothing labeled yet it
        gives the first rows to label, cycle 0.

        Returns:
            The query, or None when the run is over: after ``num_cycles`` fits, at ``target``, or
            when nothing is left to ask.
        """
        self.prepare()
        self._catch_up()
        cycle = self._cycle
        if not self.finished and self._journal.find("query", cycle) is None:
            with quiet(validates=self.data.has_validation):
                self._run_cycle(cycle)
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
        """Labels rows of the query and closes it; the next :meth:`ask` trains on them.

        Args:
            indices: Data-set indices, all or some of the query's; what is left out, and has no
                answer from before, returns to the pool.
            labels: One for each index, in plain values, ``SKIP`` or ``INVALID``. None takes the
                data set's own.
            by: Who labeled.

        Raises:
            ValueError: when nothing was asked, an index was not asked for or repeats, or the labels
                are of another count; nothing has changed then.
        """
        query = self._open_query("tell")
        rows = as_indices(indices)
        strangers = sorted(set(rows).difference(query.indices))
        if strangers or not rows:
            raise ValueError(
                "tell takes data-set indices of the open query, got "
                + (f"{strangers[:5]} that were not asked for" if strangers else "none")
            )
        marks: dict[int, Answer] = {}
        if labels is not None and len(labels) == len(rows):
            pairs = list(zip(rows, labels, strict=True))
            marks = {row: label for row, label in pairs if isinstance(label, Mark)}
            labels = [label for _, label in pairs if not isinstance(label, Mark)]
        self.data.pool.check(rows)
        rows, values = self.data.check_labels([row for row in rows if row not in marks], labels)
        if values is None and not query.rows:
            self._close(query.close({"indices": rows, "labels": None}, by=by, how="tell"))
            return
        answers = self.data.labels_of(rows) if values is None else values
        last = {**dict(zip(rows, answers, strict=True)), **marks}
        self._close(query.finish(last, by=by, how="tell"))

    def answer(
        self,
        answers: Mapping[int, Answer],
        *,
        by: str | None = None,
        settles: bool = False,
        accept_unasked: bool = False,
    ) -> None:
        """Keeps some answers to the query, which stays open; :meth:`finish` closes it.

        Args:
            answers: By data-set index: a label in plain values, ``SKIP`` (stays in the pool and is
                not asked again) or ``INVALID`` (leaves the pool). A label for a row of an earlier
                query corrects it.
            by: Who answered. Two people may answer the same rows; where they differ somebody has to
                settle it.
            settles: These hold, whatever others answered.
            accept_unasked: Takes answers to rows of the pool that were not asked.

        Raises:
            ValueError: when nothing was asked, a row was not asked for, or a label is no class;
                nothing has changed then.
        """
        query = self._open_query("answer")
        given = {operator.index(index): plain(answer) for index, answer in answers.items()}
        if None in given.values():
            raise ValueError("an answer must be a label, SKIP or INVALID, got None; leave it out")
        self._check_values(given)
        query.answer(given, by=by, how="api", settles=settles, accept_unasked=accept_unasked)

    def undo(self, *, by: str | None = None) -> list[int]:
        """Takes the last answer to the query back: of that person, or with None of anybody.

        Returns:
            Data-set indices of its rows.

        Raises:
            ValueError: when there is none.
        """
        return self._open_query("undo").undo(by=by, how="api")

    def finish(self, *, by: str | None = None) -> None:
        """Closes the query with what was answered; rows without an answer return to the pool.

        Raises:
            ValueError: while people differ on a row, or when nothing at all is labeled.
        """
        self._close(self._open_query("finish").finish(by=by, how="api"))

    @property
    def finished(self) -> bool:
        """Whether no further cycle follows."""
        return bool(self._journal.of("end"))

    @property
    def config(self) -> dict[str, Any]:
        """What the run began with, by group, in plain values; a copy."""
        return copy.deepcopy(dict(self._config))

    @property
    def records(self) -> Sequence[Record]:
        """The journal, oldest first: to be read, not changed."""
        return tuple(self._journal.records)

    @property
    def results(self) -> list[CycleResult]:
        """One record for each cycle that was fitted, tested and, but for the last, asked.

        In a run that began without labels the first is cycle 0, which asked alone.
        """
        return results_of(self._journal.records)

    @property
    def _cycle(self) -> int:
        """The cycle in hand, from 1: it lasts until its labels came; 0 with nothing labeled yet."""
        last = self._journal.records[-1]
        if last["event"] == "start":
            return 1 if self.data.num_labeled else 0
        cycle: int = last["cycle"] + (last["event"] == "labels")
        return cycle

    # ---- labels ----------------------------------------------------------------------------------

    def _label(self, query: Query) -> bool:
        """Whether the oracle labeled the whole query; what it answered is kept in any case."""
        waiting = self._open_query("run")
        if self.oracle == "dataset":
            if waiting.open_indices:
                self.tell(waiting.open_indices, by="data set")
            else:
                self.finish(by="data set")
            return True
        self._check_first_rank_is_there()
        folder = self.run_dir and query_folder(self.run_dir, query.cycle)
        batches = collected(self.oracle, query, waiting, folder)
        accepted = self.accept_unasked
        try:
            for batch in batches:
                waiting.check(batch.answers, accept_unasked=accepted)
                self._check_values(batch.answers)
            for batch in batches:
                given = asdict(batch)
                waiting.answer(given.pop("answers"), **given, accept_unasked=accepted)
            record = None if waiting.open_indices else waiting.finish(how="run")
        except ValueError as error:
            raise AnswersError(str(error)) from error
        if record is not None:
            self._close(record)
        return record is not None

    def _check_first_rank_is_there(self) -> None:
        """A function, such as one that asks a person, must be called once for all processes."""
        if callable(self.oracle) and not processes_have_met():
            with quiet():
                num_processes = self._trial_trainer().world_size
            if num_processes > 1:
                raise ValueError(
                    f"{num_processes} processes cannot share the answers of a function before they "
                    'have trained or predicted together; give oracle="files", or answer this query '
                    "in one process"
                )

    def _check_values(self, answers: Mapping[int, Answer]) -> None:
        self.data.check_values([a for a in answers.values() if not isinstance(a, Mark)])

    def _wait(self, query: Query) -> None:
        """Lets others write to the run folder until labels are there."""
        self._notify("on_wait", query)
        self._waits = True
        if self.run_dir is not None:
            unlock(self.run_dir)

    def _catch_up(self) -> None:
        """Takes the run folder back, with what others have answered meanwhile."""
        if not self._waits or self.run_dir is None:
            return
        known = len(self._journal.records)
        path = self.run_dir / JOURNAL
        first = is_first_rank()
        self._journal = self._open_journal() if first else Journal.in_memory(read_records(path))
        self._waits = False
        new = self._journal.records[known:]
        self._take_up(new)
        for record in new:
            if record["event"] == "labels":
                self._notify("on_labels", self._result(record["cycle"]))
            if record["event"] in ("query", "end"):
                self._notify("on_cycle", self._result(record["cycle"]))
        if new and self.finished:
            self._notify("on_end")

    def _take_up(self, records: Sequence[Record]) -> None:
        """Brings split and weights to what these records say, the last of the journal."""
        for record in records:
            if record["event"] == "labels":
                self._take(record)
        fits = [record for record in records if record["event"] == "fit"]
        if fits and self.run_dir is not None:
            self._steps.take_fit(fits[-1], self.run_dir / f"cycle_{fits[-1]['cycle']}")
        if self.finished and self.run_dir is not None:
            unlock(self.run_dir)

    def _open_query(self, what: str) -> OpenQuery:
        self._catch_up()
        try:
            return OpenQuery(self._journal)
        except ValueError as error:
            raise ValueError(f"{what} needs an open query; call ask() first") from error

    def _close(self, record: Record) -> None:
        self._take(record)
        self._notify("on_labels", self._result(record["cycle"]))

    def _take(self, record: Record) -> None:
        """Brings the split to what labels in the journal say."""
        self.data.take_labels(record["indices"], record["labels"])
        self.data.skip(record["skipped"])
        self.data.mark_invalid(record["invalid"])
        self.data.correct(dict(record["corrected"]))

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
        check_oracle(self.oracle, self.run_dir, self.data.classes)
        if not self._journal.records:
            self.data.leave_out_unreadable()
            if self.oracle == "files":
                self.data.check_values([0])  # people answer with positions in the classes
        if self.strategy.needs and self.data.pool.num_askable and not self.finished:
            with quiet():
                last = self._journal.of("query")[-1:]
                asked = [index for record in last for index in record["indices"]]
                self._steps.try_asking(self._trial_trainer(), asked)
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
            asking={
                "oracle": FUNCTION if callable(self.oracle) else self.oracle,
                "accept_unasked": self.accept_unasked,
            },
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
        if self.run_dir is not None and is_first_rank():
            # Files of another query of this cycle, from before lines were cut off the journal.
            set_aside(query_folder(self.run_dir, cycle))
        if cycle == 0:
            self._ask_first_labels()
            return
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

    def _ask_first_labels(self) -> None:
        rows = [i for i in self.data.first_indices if i not in self.data.pool.invalid]
        nothing: Record = {"scores": None, "predicted": None, "seconds": {}}
        names = self.data.names_of(rows)
        self._journal.append("query", cycle=0, indices=rows, names=names, **nothing)

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
        return "pool is empty" if self.data.pool.num_askable == 0 else None

    def _result(self, cycle: int) -> CycleResult:
        return result_of(self._journal.records, cycle)


def _split_of(start: Record) -> dict[str, Any]:
    """The split of a journal's first record, as a data module takes it."""
    return {
        **start["split"],
        "labeled_indices": torch.tensor(start["split"]["labeled_indices"]),
        "given_labels": dict(start["split"]["given_labels"]),
    }
