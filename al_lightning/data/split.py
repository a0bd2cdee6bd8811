"""The split as a part of a LightningDataModule: who may change it, and how it is saved."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from al_lightning.data.growth import check_unchanged, further_class, ordered
from al_lightning.data.labels import Labels
from al_lightning.data.pool import Pool, as_indices
from al_lightning.data.row_values import Key, checked_costs, group_numbers, values_under
from al_lightning.data.sets import DataSets, extras, find_unreadable, names_of
from al_lightning.distributed import prepare_once_a_node
from al_lightning.run.growth import num_rows_of
from al_lightning.run.journal import SETTINGS, Record
from al_lightning.run.run import Run
from al_lightning.settings import Settings

CHANGES_SPLIT = ("labels", SETTINGS)
"""Events after which other rows may be labeled or invalid."""


class SplitDataModule(L.LightningDataModule):
    """Holds the split and the labels; the base of :class:`~al_lightning.ActiveDataModule`.

    While a run is on, its journal alone says which rows are labeled: nothing else may change them.
    """

    seed: int
    first_indices: list[int]
    group_key: Key | None
    cost_key: Key | None

    def __init__(self) -> None:
        super().__init__()
        self._row_labels: Labels | None = None
        self._run: Callable[[], Run | None] = lambda: None
        self._known_classes: list[str] | None = None  # of a run, with those that came later
        self._read_values: tuple[DataSets, dict[str, Any]] | None = None
        self.growth: dict[str, Any] = {}
        """Rows and classes that a run does not know yet, as :meth:`Run.change` takes them."""

    def ensure_read(self, trainer: L.Trainer | None = None) -> None:
        """Prepare the data once a node and read it, unless it was read before.

        Args:
            trainer: Knows the processes.
        """
        if self._row_labels is None:
            prepare_once_a_node(self.prepare_data, trainer, per_node=self.prepare_data_per_node)
            self.setup("fit")
            if self._row_labels is None:
                raise ValueError(
                    f"{type(self).__name__}.setup must split the data; call super().setup(stage) "
                    "in it, or override load_sets instead"
                )

    @property
    def row_labels(self) -> Labels:
        """The labels of all rows; RuntimeError before :meth:`setup` has read the data sets."""
        if self._row_labels is None:
            raise RuntimeError(
                f"{type(self).__name__} has not read its data yet: call prepare_data() and setup()"
            )
        return self._row_labels

    @property
    def sets(self) -> DataSets:
        """The data sets; RuntimeError before :meth:`setup`."""
        return self.row_labels.sets

    @property
    def pool(self) -> Pool:
        """The split; RuntimeError before :meth:`setup`."""
        return self.row_labels.pool

    @property
    def has_validation(self) -> bool:
        """True when there are validation rows, given or held out."""
        return self.sets.val is not None or bool(self.pool.held_out)

    @property
    def has_test(self) -> bool:
        """True when there are rows to test on."""
        return self.sets.test is not None

    @property
    def groups_N(self) -> Tensor:
        """The group of each row as a whole number (N,); ValueError where ``group_key`` names none.

        Rows with equal values are of one group; one with None or NaN is a group of its own.
        """
        if self.group_key is None:
            raise ValueError(
                "max_per_group needs to know the group of each row; name it in the data module "
                'with group_key=, such as group_key="patient"'
            )
        groups: Tensor = self._once("group_key", self.group_key, group_numbers)
        return groups

    @property
    def costs(self) -> list[float] | None:
        """The cost of a label of each row, by ``cost_key``; None without one.

        Raises:
            ValueError: for a cost below zero, or one that is no finite number.
        """
        if self.cost_key is None:
            return None
        costs: list[float] = self._once("cost_key", self.cost_key, checked_costs)
        return costs

    def _once(self, name: str, key: Key, read: Callable[[Sequence[Any]], Any]) -> Any:
        """Return what ``read`` makes of the values under a key, read once for the data sets."""
        if self._read_values is None or self._read_values[0] is not self.sets:
            self._read_values = self.sets, {}
        found = self._read_values[1]
        if name not in found:
            found[name] = read(values_under(self.sets.for_people, key, name))
        return found[name]

    def names_of(self, indices: Sequence[int]) -> list[str] | None:
        """Return people's names of rows; None for a data set without ``paths``."""
        return names_of(self.sets.pool, indices)

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes, by label; None when nobody gave them."""
        classes = self._known_classes or extras(self.sets.train).classes
        return None if classes is None else [str(name) for name in classes]

    @property
    def has_further_class(self) -> bool:
        """True when a class was added after the run had begun."""
        return self._known_classes is not None

    @property
    def all_names(self) -> Sequence[str] | None:
        """People's names of all rows; None for a data set without ``paths``."""
        return extras(self.sets.pool).paths

    def follow(self, run: Run, trainer: L.Trainer, settings: Settings) -> None:
        """Bring rows and classes into the order of a run, with further ones behind them.

        Args:
            run: To be resumed.
            trainer: Knows the processes.
            settings: With ``add_class``. Rows may be more where people give the labels.

        Raises:
            ValueError: when a row of the run is gone or is another one; names the rows.
        """
        self.ensure_read(trainer)
        labels, records = self.row_labels, run.journal.records
        self._known_classes, added = further_class(run, self.classes, settings)
        self.growth = {"classes": added} if added else {}
        if labels.are_held and settings.oracle == "dataset":
            return
        began, known = run.start["split"]["num_rows"], num_rows_of(records)
        labels = ordered(labels, run.names, self.all_names)
        if len(labels.pool.labeled_N) > began:
            labels = replace(labels, num_began=began)
            check_unchanged(labels, run.start["config"]["data"]["fingerprint"])
        self._row_labels = labels
        num_rows = len(labels.pool.labeled_N)
        if num_rows > known:
            broken, found = find_unreadable(self.sets.pool)
            invalid = [row for row in broken if row >= known]
            if invalid:
                rank_zero_warn(found)
            grown = {"num_rows": num_rows, "added": num_rows - known, "invalid": invalid}
            self.growth |= {"grown": grown, "names": self.all_names}
            rank_zero_info(f"{num_rows - known} further rows join the pool of {known} rows")

    def leave_out_unreadable(self) -> None:
        """Mark unreadable rows invalid and warn; raise ValueError when none is left to begin with.

        The data set must be able to name them, see :class:`~al_lightning.data.sets.Extras`.
        """
        broken, found = find_unreadable(self.sets.pool)
        if not broken:
            return
        self.row_labels.mark_invalid(broken)
        if not (self.num_labeled or set(self.first_indices).difference(broken)):
            raise ValueError(f"at least one row to begin with must be readable, {found}")
        rank_zero_warn(found)

    @property
    def labeled_indices(self) -> Tensor:
        """Data-set indices of the labeled rows, ascending, int64."""
        return self.pool.labeled_indices

    @property
    def unlabeled_indices(self) -> Tensor:
        """Data-set indices of the pool, ascending, int64."""
        return self.pool.unlabeled_indices

    @property
    def num_labeled(self) -> int:
        """Number of rows that training sees."""
        return self.pool.num_labeled

    @property
    def num_unlabeled(self) -> int:
        """Number of rows in the pool."""
        return self.pool.num_unlabeled

    @property
    def holds_labels(self) -> bool:
        """False when the items of the data set are inputs alone, with no labels to reveal."""
        return self.row_labels.are_held

    @property
    def given_labels(self) -> dict[int, Any]:
        """Labels that came by hand, by data-set index."""
        return self.row_labels.given

    def labels_of(self, indices: Sequence[int]) -> list[Any]:
        """Return the labels of these rows: the given one, else the data set's own."""
        return self.row_labels.of(indices)

    def label(
        self, indices: Sequence[int] | Tensor, labels: Sequence[Any] | Tensor | None = None
    ) -> None:
        """Move rows from the pool to the training set; on an error nothing has changed.

        Args:
            indices: Data-set indices.
            labels: One for each index, in plain values; None keeps the data set's own.

        Raises:
            ValueError: when an index is out of range, repeated, labeled already or held out, when
                there are more or fewer labels than indices, or while a run labels.
        """
        self._check_free()
        self.row_labels.take(*self.row_labels.check(indices, labels))

    def skip(self, indices: Sequence[int] | Tensor) -> None:
        """Keep rows in the pool, and never ask for them; raise ValueError as :meth:`label`."""
        self._check_free()
        self.pool.skip(as_indices(indices))

    def mark_invalid(self, indices: Sequence[int] | Tensor) -> None:
        """Take rows out of the data for good, labeled or not; ValueError for held-out ones."""
        self._check_free()
        self.row_labels.mark_invalid(as_indices(indices))

    def replay(self, record: Record) -> None:
        """Change the split as a record of a journal says; most say nothing of it."""
        if record.get("event", "labels") in CHANGES_SPLIT:
            self.row_labels.replay(record)

    def begin(self, run: Run, split: Record | None = None) -> None:
        """Follow a run, whose journal alone says which rows are labeled, until it is finished.

        Args:
            run: The run.
            split: Take over this split.
        """
        self._run = lambda: None
        if split is not None:
            self.load_state_dict(split)
        self._run = weakref.ref(run)

    def check_split(self, run: Run) -> None:
        """Raise ValueError when other rows are labeled than the journal says."""
        expected = self.row_labels.with_split(run.start["split"])
        for record in run.journal.records:
            if record["event"] in CHANGES_SPLIT:
                expected.replay(record)
        if not self.row_labels.is_split_as(expected):
            raise ValueError(
                "the split must be as the run's journal says, found "
                f"{self.num_labeled} labeled rows against {expected.pool.num_labeled}, or other "
                "labels; label by tell or answer of the loop, and resume the run now"
            )

    @property
    def _follows(self) -> bool:
        run = self._run()
        return run is not None and bool(run.journal.records) and not run.finished

    def _check_free(self) -> None:
        if self._follows:
            raise ValueError(
                "labels of a run must come through it, or a resumed run would not know them; use "
                "tell or answer of the loop (answer(..., accept_unasked=True) for other rows)"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the split and its seed, in tensors and plain values for ``weights_only``."""
        given = dict(self.row_labels.given)
        own = {"labeled_indices": self.labeled_indices, "given_labels": given, "seed": self.seed}
        return {**self.row_labels.record(), **own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a saved split; raise ValueError for a data set of another length.

        While a run is on, its journal says which rows are labeled, and nothing is taken over.

        Warns:
            UserWarning: when the split of a run would have been another one.
        """
        self.setup("fit")
        loaded = self.row_labels.with_split(state_dict)
        if not self._follows:
            self._row_labels, self.seed = loaded, state_dict["seed"]
        elif not self.row_labels.is_split_as(loaded):
            rank_zero_warn(
                f"this checkpoint was saved with {loaded.pool.num_labeled} labeled rows; the split "
                f"stays as the run's journal says, {self.num_labeled} labeled rows"
            )

    def load_own_state(self, state_dict: Mapping[str, Any]) -> None:
        """Load from a saved state what is not of the split; here there is nothing else."""

    def split_record(self) -> Record:
        """Return :meth:`state_dict` in values for JSON, as a journal's first record holds it."""
        state = self.state_dict()
        state.pop("datamodule", None)  # of a project; it is in the checkpoints
        rows, given = state["labeled_indices"].tolist(), list(state["given_labels"].items())
        return {**state, "labeled_indices": rows, "given_labels": given}
