"""``ActiveDataModule``: trains on the labeled rows of a data set, predicts on the rest."""

import inspect
import operator
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import replace
from typing import Any, Literal, cast

import lightning as L
from torch import Tensor
from torch.utils.data import Dataset

from al_lightning.data.class_numbers import numbered
from al_lightning.data.frames import FrameRows, is_frame
from al_lightning.data.initial import Initial
from al_lightning.data.items import collate
from al_lightning.data.labels import Labels, look_for_labels
from al_lightning.data.lightning_internals import logs_hyperparameters
from al_lightning.data.loaders import Collate, check_options, reading
from al_lightning.data.pool import Pool, as_indices
from al_lightning.data.project import HOOKS, Project, are_there, check_datamodule
from al_lightning.data.serving import ServingDataModule
from al_lightning.data.sets import DataSets, extras, with_transform
from al_lightning.run.records import plain
from al_lightning.settings import check_at_least, hint


class ActiveDataModule(ServingDataModule):
    """Makes any map-style data set active.

    The split is one boolean mask, from which every loader is built on request. Every index is a
    data-set index, never a position in the pool. For data that must be downloaded or read first,
    make a subclass that overrides ``prepare_data`` and :meth:`load_sets`. A project that has a
    LightningDataModule goes on with it, see :meth:`from_datamodule`.

    Args:
        train_set: Map-style data set of all rows, labeled and not, under training transforms; or a
            pandas DataFrame, whose rows become dicts.
        pool_set: The same rows under evaluation transforms; ``train_set`` when not given.
        pool_transform: Instead, the evaluation transform: the pool is a copy of ``train_set`` with
            this in the place of its ``transform``.
        val_set, test_set: Validation and test data.
        initial_labeled_size: Number of rows that are labeled from the start, drawn by ``seed``.
        initial_indices: Instead, exactly these rows.
        initial_labels: Instead, known labels by data-set index.
        initial_sampling: ``"random"`` shuffles all rows and takes the first. ``"balanced"`` takes
            the same number of each class, and a remainder from the first classes. ``"typiclust"``
            and ``"max_herding"`` choose on ``initial_embeddings``, whatever the labels are.
        initial_embeddings: (rows, D), one for each row of ``train_set`` in its order, from a
            pretrained network; :func:`~al_lightning.cache_features` gives them itself.
        val_size: Number of rows to hold out of the pool for validation, drawn by ``seed``.
        batch_size: Rows in a training batch. Where the last one would be a single row, on which
            BatchNorm fails, batches are smaller, see :mod:`al_lightning.data.loaders`.
        epoch_size, steps_per_epoch: Rows in a training epoch, drawn with replacement, or batches of
            each process; else each labeled row once.
        unlabeled_batch_size: Rows of the pool beside each training batch, without their labels and
            under training transforms; ``eval_collate_fn`` makes their batches. A training batch is
            then a dict of ``"labeled"`` and, while there are such rows, ``"unlabeled"``.
        eval_batch_size: Rows in a batch of validation, test and prediction, if not ``batch_size``.
        seed: Draws the initial rows, the held-out rows and the order of training batches.
        label_key: The place of the label in an item, to read and to write it: a position in a tuple
            (default 1; needed when it has more than two parts), a field of a named one, or a key of
            a dict (default ``"label"``).
        group_key, cost_key: The place of a row's group, such as a patient, and of the cost of its
            label; as ``label_key``, or a column or an attribute of the data set.
        num_workers: Loader processes.
        collate_fn: Makes a training batch from a list of items; torch's default when not given.
        eval_collate_fn: The same for validation, test and the pool.
        loader: Any further arguments of a ``DataLoader``, such as ``{"persistent_workers": True}``;
            ``drop_last`` is for training alone. On a GPU ``pin_memory`` is True if not said here.
        classes: Names of the classes, else ``train_set.classes``. A label is then a position in
            them, and a label that is a word gets its position, if no ``collate_fn`` is given.

    An item holds a label when there is something under ``label_key``; a data set may also say
    ``holds_labels``. A label that is given by hand goes there: a dict gets the key, a tuple the
    position, and a single input becomes ``(input, label)``. What else a data set may have is in
    :class:`~al_lightning.data.sets.Extras`.

    Raises:
        TypeError: for a data set without length or indexing.
        ValueError: for sizes or indices that do not fit the data; when it is not clear where a
            label is.

    Attributes:
        first_indices: Rows to ask for before the first fit, for a data set without labels.

    >>> import torch
    >>> from torch.utils.data import TensorDataset
    >>> rows = TensorDataset(torch.arange(10.0)[:, None], torch.arange(10) % 2)
    >>> data = ActiveDataModule(rows, initial_indices=[3, 1])
    >>> data.label([7])
    >>> data.labeled_indices, data.num_unlabeled
    (tensor([1, 3, 7]), 7)
    """

    def __init__(
        self,
        train_set: Dataset[Any] | None = None,
        *,
        pool_set: Dataset[Any] | None = None,
        pool_transform: Callable[..., Any] | None = None,
        val_set: Dataset[Any] | None = None,
        test_set: Dataset[Any] | None = None,
        initial_labeled_size: int | None = None,
        initial_indices: Sequence[int] | Tensor | None = None,
        initial_labels: Mapping[int, Any] | None = None,
        initial_sampling: Literal["random", "balanced", "typiclust", "max_herding"] = "random",
        initial_embeddings: Tensor | None = None,
        val_size: int = 0,
        batch_size: int = 64,
        epoch_size: int | None = None,
        steps_per_epoch: int | None = None,
        unlabeled_batch_size: int | None = None,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 42,
        label_key: int | str | None = None,
        group_key: int | str | None = None,
        cost_key: int | str | None = None,
        collate_fn: Collate | None = None,
        eval_collate_fn: Collate | None = None,
        loader: Mapping[str, Any] | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        sizes = {"batch_size": batch_size, "eval_batch_size": eval_batch_size}
        sizes |= {"epoch_size": epoch_size, "steps_per_epoch": steps_per_epoch}
        check_at_least(1, unlabeled_batch_size=unlabeled_batch_size, **sizes)
        check_at_least(0, num_workers=num_workers)
        if epoch_size and steps_per_epoch:
            raise ValueError("give either epoch_size or steps_per_epoch, got both")
        if val_set is not None and val_size:
            raise ValueError(f"give either val_set or val_size, got both, val_size={val_size}")
        if pool_set is not None and pool_transform is not None:
            raise ValueError("give either pool_set or pool_transform, got both")
        self._initial = Initial(
            size=initial_labeled_size,
            indices=None if initial_indices is None else as_indices(initial_indices),
            labels=initial_labels
            and {operator.index(i): plain(y) for i, y in initial_labels.items()},
            sampling=initial_sampling,
            embeddings=initial_embeddings,
            val_size=val_size,
            classes=classes,
        )
        self.batch_size = batch_size
        self.epoch_size, self.steps_per_epoch = epoch_size, steps_per_epoch
        self.unlabeled_batch_size = unlabeled_batch_size
        self.eval_batch_size = eval_batch_size or batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.label_key, self.group_key, self.cost_key = label_key, group_key, cost_key
        self.collate_fn = collate_fn or collate
        self.eval_collate_fn = eval_collate_fn or reading(collate_fn)
        self.loader = dict(loader or {})
        check_options(self.loader)
        self.first_indices: list[int] = []
        self._pool_set, self._pool_transform = pool_set, pool_transform
        if train_set is not None:
            self._attach(DataSets(train_set, pool_set or train_set, val_set, test_set))

    @staticmethod
    def from_datamodule(datamodule: L.LightningDataModule, **split: Any) -> "ActiveDataModule":
        """Make a project's own LightningDataModule active; nothing in it has to change.

        The rows are those of its ``train_dataloader``. Its hooks and its loaders stay in use, with
        their batch sizes, collate functions, workers and other options. The pool is read with the
        options of its ``predict_dataloader``, or else of the one for validation, or the test.

        ``prepare_data`` is called as ever. ``setup`` is called once a stage, under the seed, so a
        random split in it is the same when a run is resumed. ``teardown`` is not called.

        Args:
            datamodule: Its ``train_dataloader`` serves a map-style data set in order or shuffled.
            split: Arguments of :class:`ActiveDataModule` that say how rows are split and read:
                ``initial_labeled_size``, ``pool_set``, ``pool_transform``, ``seed``, ...

        Raises:
            TypeError: when it is no LightningDataModule, for a stream, for other arguments.
            ValueError: as the constructor; when there is no such train loader.
        """
        return ProjectDataModule(datamodule, **split)

    def load_sets(self) -> DataSets:
        """Read the data sets; the first :meth:`setup` calls it once. Override it in a subclass."""
        raise ValueError(
            f"{type(self).__name__} has no data: pass train_set, or override load_sets()"
        )

    def setup(self, stage: str | None = None) -> None:
        """Load and split the data once; Lightning calls it before every fit, test and predict."""
        if self._row_labels is None:
            self._attach(self.load_sets())

    def _attach(self, sets: DataSets) -> None:
        sets = sets.mapped(self._as_rows)
        if self._pool_transform is not None:
            sets = sets._replace(pool=with_transform(sets.train, self._pool_transform))
        sets.check()
        sets = self._numbered(sets)
        num_rows = len(cast(Sized, sets.train))
        self._initial.check_fits(num_rows)
        are_held = look_for_labels(sets, self.label_key, self.seed)
        given = dict(self._initial.labels or {})
        labels = Labels(sets, Pool(num_rows, []), self.label_key, are_held, given)
        labels.check_values(list(given.values()))
        own = labels.of if are_held else None
        first, held_out = self._initial.split(num_rows, self.seed, own)
        if not (are_held or given):
            first, self.first_indices = [], first
        self._row_labels = replace(labels, pool=Pool(num_rows, first, held_out))

    def _as_rows(self, dataset: Any) -> Any:
        return FrameRows(dataset, self.label_key) if is_frame(dataset) else dataset

    def _numbered(self, sets: DataSets) -> DataSets:
        """Give words their positions among the classes; a ``collate_fn`` gets them as they are."""
        if self.collate_fn is not collate:
            return sets
        classes = self._initial.classes or extras(sets.train).classes
        return numbered(sets, classes, self.label_key, self.seed)

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes, by label; None when nobody gave them."""
        if self._known_classes is None and self._initial.classes is not None:
            return [str(name) for name in self._initial.classes]
        return super().classes


def check_active(data: Any) -> None:
    """Raise TypeError for anything but an :class:`ActiveDataModule`, with the cure."""
    if not isinstance(data, ActiveDataModule):
        is_module = isinstance(data, L.LightningDataModule)
        cure = "from_datamodule(datamodule, " if is_module else "(train_set, "
        raise TypeError(
            f"data must be an ActiveDataModule, got {type(data).__name__}; make one with "
            f"ActiveDataModule{'.' * is_module}{cure}initial_labeled_size=...)"
        )


OF_PROJECT = (
    *("train_set", "val_set", "test_set"),
    *("batch_size", "eval_batch_size", "num_workers", "collate_fn", "loader"),
)
"""Arguments that a project's own data module decides."""
SPLIT = [n for n in inspect.signature(ActiveDataModule).parameters if n not in OF_PROJECT]
"""Arguments of :meth:`ActiveDataModule.from_datamodule`."""


class ProjectDataModule(ActiveDataModule):
    """Serves a project's own data module, see :meth:`ActiveDataModule.from_datamodule`."""

    def __init__(self, datamodule: L.LightningDataModule, **split: Any) -> None:
        check_datamodule(datamodule)
        name = type(datamodule).__name__
        if isinstance(datamodule, ActiveDataModule):
            raise TypeError(f"datamodule must not be active already, got {name}; use it as it is")
        for unknown in split.keys() - set(SPLIT):
            cure = f"{name} decides it" if unknown in OF_PROJECT else hint(unknown, SPLIT)
            raise TypeError(f"unexpected argument {unknown!r}; {cure}; arguments are {SPLIT}")
        self.datamodule = datamodule
        super().__init__(**split)
        self._reads_as_others = split.get("eval_collate_fn") is None
        self._project: Project | None = None
        self.prepare_data_per_node = datamodule.prepare_data_per_node
        for hook in HOOKS:
            setattr(self, hook, getattr(datamodule, hook))
        if datamodule.hparams:
            logged = logs_hyperparameters(datamodule)
            self.save_hyperparameters(dict(datamodule.hparams), logger=logged)

    @property
    def trainer(self) -> L.Trainer | None:
        """The Trainer, which the hooks of the project may ask."""
        return self.datamodule.trainer

    @trainer.setter
    def trainer(self, trainer: L.Trainer | None) -> None:
        self.datamodule.trainer = trainer

    def ensure_read(self, trainer: L.Trainer | None = None) -> None:
        before, self.trainer = self.trainer, self.trainer or trainer
        try:
            super().ensure_read(trainer)
        finally:
            self.trainer = before

    @property
    def project(self) -> Project:
        """Loaders that the project's hooks made; RuntimeError before :meth:`setup`."""
        if self._project is None:
            raise RuntimeError("the data is not read yet: call prepare_data() and setup()")
        return self._project

    def load_sets(self) -> DataSets:
        """Set up the project's module, and take over how its loaders make batches."""
        made = Project.of(self.datamodule, self.seed)
        if are_there(made.val) and self._initial.val_size:
            raise ValueError(
                f"{made.name} has validation rows of its own, got val_size="
                f"{self._initial.val_size} beside them; leave it out"
            )
        read = made.read or made.train
        self._project, self._shuffles = made, made.shuffles
        self.batch_size, self.eval_batch_size = made.train.batch_size, read.batch_size
        self.num_workers = made.train.options["num_workers"]
        self.collate_fn = made.train.collate_fn or collate
        if self._reads_as_others:
            own = None if made.read is None else made.read.collate_fn
            self.eval_collate_fn = own or reading(made.train.collate_fn)
        return made.sets(self._pool_set)

    def _numbered(self, sets: DataSets) -> DataSets:
        return sets  # the project's loaders serve labels as they are

    @property
    def has_validation(self) -> bool:
        return are_there(self.project.val) or super().has_validation

    @property
    def has_test(self) -> bool:
        return are_there(self.project.test)

    def val_dataloader(self) -> Any:
        """Serve what the project's hook made, or the rows held out of the pool."""
        return self.project.val if are_there(self.project.val) else super().val_dataloader()

    def test_dataloader(self) -> Any:
        """Serve what the project's hook made; with several processes, all of it in each."""
        is_shared = self.trainer is not None and self.trainer.world_size > 1
        return self.project.whole_test() if is_shared else self.project.test

    def options(self, *, training: bool) -> dict[str, Any]:
        """Return the further arguments of a loader, as the project's loaders have them."""
        train, read = self.project.train, self.project.read
        return dict(train.options) if training else {**(read or train).options, "drop_last": False}

    def state_dict(self) -> dict[str, Any]:
        """Return the split, and under ``datamodule`` the state of the project's module."""
        own = self.datamodule.state_dict()
        return {**super().state_dict(), **({"datamodule": own} if own else {})}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.load_own_state(state_dict)

    def load_own_state(self, state_dict: Mapping[str, Any]) -> None:
        if "datamodule" in state_dict:
            self.datamodule.load_state_dict(state_dict["datamodule"])
