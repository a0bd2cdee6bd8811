"""``ActiveDataModule``: trains on the labeled rows of a data set, predicts on the rest."""

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, cast

import lightning as L
import numpy as np
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from al_lightning.acquisition import typiclust
from al_lightning.data.pool import Pool
from al_lightning.data.samplers import BatchShards, EpochShuffle
from al_lightning.data.views import (
    ListedRows,
    RowIndex,
    RowView,
    collate,
    holds_label,
    plain,
    read_label,
    replace_label,
)
from al_lightning.seeds import generator, seeded


class DataSets(NamedTuple):
    """What an :class:`ActiveDataModule` works on; each is map-style."""

    train: Dataset[Any]
    pool: Dataset[Any]
    """The same rows as ``train``, under evaluation transforms."""
    val: Dataset[Any] | None = None
    test: Dataset[Any] | None = None


class ActiveDataModule(L.LightningDataModule):
    """Makes any map-style data set active.

    The split is one boolean mask; every loader is built from it on request, so none goes stale.
    Every index is a data-set index, never a position in the pool. For data that must be downloaded
    or read first, subclass and override ``prepare_data`` and :meth:`load_sets`.

    Args:
        train_set: Map-style data set of all rows, labeled and not, under training transforms.
        pool_set: The same rows under evaluation transforms; ``train_set`` when not given.
        val_set: Validation data from elsewhere.
        test_set: Test data.
        initial_labeled_size: Rows labeled from the start, drawn by ``seed``.
        initial_indices: Or exactly these.
        initial_labels: Or the rows whose labels are known, by data-set index, with their labels.
        initial_sampling: ``"random"`` shuffles all rows and takes the first; ``"balanced"`` takes
            equally many of each class, a remainder going to the first classes; ``"typiclust"``
            takes typical rows of ``initial_embeddings``, whatever their labels.
        initial_embeddings: (rows, D), one a row of ``train_set`` in its order, from a pretrained
            network, for ``initial_sampling="typiclust"``.
        val_size: Rows to hold out of the pool for validation, drawn by ``seed``.
        batch_size: Rows a training batch.
        epoch_size: Rows of a training epoch, drawn with replacement from the labeled ones: epochs
            of one length however few are labeled. Each labeled row once when not given.
        eval_batch_size: Rows a batch in validation, test and prediction; ``batch_size`` when not
            given.
        num_workers: Loader processes.
        seed: Draws the initial rows, the held-out rows and the order of training batches.
        label_key: Where an item holds its label: a position in a tuple (default 1) or a key of a
            dict (default ``"label"``). Read for balanced sampling and for the query tables, written
            when labels are given to :meth:`label`.
        collate_fn: Makes a batch of a list of items; torch's default when not given.
        classes: Names of the classes, for people who label; a label is then a position in them.
            ``train_set.classes`` when not given.

    A data set without labels has items that are inputs alone: tensors, not tuples or dicts. Rows
    drawn for it by ``initial_labeled_size`` are not labeled yet; see :attr:`first_indices`.

    A data set may have more attributes: ``paths``, a name for each row; ``picture(index)``, a PIL
    image of the row for a person to see; ``unreadable()``, rows that cannot be read, by data-set
    index, with the reason; ``holds_labels``, or its first item is looked at.

    Raises:
        TypeError: for a data set without length or indexing.
        ValueError: for sizes or indices that do not fit the data.

    Attributes:
        given_labels: Labels that came by hand, by data-set index.
        first_indices: Rows whose labels must be asked for before there is anything to train on, for
            a data set without labels; else none.

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
        val_set: Dataset[Any] | None = None,
        test_set: Dataset[Any] | None = None,
        initial_labeled_size: int | None = None,
        initial_indices: Sequence[int] | Tensor | None = None,
        initial_labels: Mapping[int, Any] | None = None,
        initial_sampling: Literal["random", "balanced", "typiclust"] = "random",
        initial_embeddings: Tensor | None = None,
        val_size: int = 0,
        batch_size: int = 64,
        epoch_size: int | None = None,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 42,
        label_key: int | str | None = None,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        beginnings = {
            "initial_labeled_size": initial_labeled_size,
            "initial_indices": initial_indices,
            "initial_labels": initial_labels,
        }
        given = [name for name, value in beginnings.items() if value is not None]
        if len(given) != 1:
            raise ValueError(
                f"give one of {', '.join(beginnings)}, got {' and '.join(given) or 'none'}"
            )
        if initial_sampling not in ("random", "balanced", "typiclust"):
            raise ValueError(
                'initial_sampling must be "random", "balanced" or "typiclust", got '
                f"{initial_sampling!r}"
            )
        if (initial_sampling == "typiclust") != (initial_embeddings is not None):
            raise ValueError(
                'initial_sampling="typiclust" and initial_embeddings go together, got '
                f"{initial_sampling!r} {'without' if initial_embeddings is None else 'with'} "
                "embeddings"
            )
        for name, value, least in (
            ("initial_labeled_size", initial_labeled_size, 1),
            ("val_size", val_size, 0),
            ("batch_size", batch_size, 1),
            ("epoch_size", epoch_size, 1),
            ("eval_batch_size", eval_batch_size, 1),
            ("num_workers", num_workers, 0),
        ):
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if val_set is not None and val_size:
            raise ValueError(f"give either val_set or val_size, got both, val_size={val_size}")
        self.initial_labeled_size = initial_labeled_size
        self.initial_indices = None if initial_indices is None else as_indices(initial_indices)
        self.initial_labels = {
            operator.index(row): plain(label) for row, label in (initial_labels or {}).items()
        }
        self.initial_sampling = initial_sampling
        self.initial_embeddings = initial_embeddings
        self.val_size = val_size
        self.batch_size = batch_size
        self.epoch_size = epoch_size
        self.eval_batch_size = eval_batch_size or batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.label_key = label_key
        self.collate_fn = collate_fn or collate
        self.given_labels: dict[int, Any] = {}
        self.first_indices: list[int] = []
        self._classes = classes
        self._holds_labels = True
        self._sets: DataSets | None = None
        self._pool: Pool | None = None
        self._candidates: Sequence[int] | None = None
        # A pool of fewer batches than there are processes leaves some of them without.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        if train_set is not None:
            self._attach(DataSets(train_set, pool_set or train_set, val_set, test_set))

    # ---- data sets and the split -----------------------------------------------------------------

    def load_sets(self) -> DataSets:
        """Reads the data sets; called once, by the first :meth:`setup`. Override in a subclass."""
        raise ValueError(
            f"{type(self).__name__} has no data: pass train_set, or override load_sets()"
        )

    def setup(self, stage: str | None = None) -> None:
        """Loads and splits the data once; Lightning calls it before every fit, test and predict."""
        if self._sets is None:
            self._attach(self.load_sets())

    def _attach(self, sets: DataSets) -> None:
        for name, dataset in sets._asdict().items():
            if dataset is not None:
                _check_map_style(f"{name}_set", dataset)
        num_rows, num_pool = len(cast(Sized, sets.train)), len(cast(Sized, sets.pool))
        if num_rows != num_pool:
            raise ValueError(
                "pool_set must hold the same rows as train_set under other transforms, got "
                f"{num_pool} rows against {num_rows}"
            )
        self._sets = sets
        try:
            self._pool = self._split(num_rows)
        except ValueError:
            self._sets = None
            raise

    def _split(self, num_rows: int) -> Pool:
        known = self.initial_indices if self.initial_indices is not None else [*self.initial_labels]
        num_initial = len(known) if self.initial_labeled_size is None else self.initial_labeled_size
        if num_initial == 0:
            raise ValueError("at least one row must be labeled at the start, got none")
        if num_initial + self.val_size > num_rows:
            raise ValueError(
                "initial_labeled_size and val_size must fit the data set, got "
                f"{num_initial + self.val_size} rows of {num_rows} in all"
            )
        strange = [label for label in self.initial_labels.values() if not self._is_class(label)]
        if strange:
            raise ValueError(
                f"initial_labels must be positions in classes {self._classes}, got {strange[:5]}"
            )
        without_labels = not self._look_for_labels()
        if without_labels and (self.val_size or self.initial_sampling == "balanced"):
            raise ValueError(
                'val_size and initial_sampling="balanced" need a data set that holds labels, and '
                "this one's items are inputs alone; give val_set, or label rows of each class first"
            )
        # The legacy generator on purpose: its shuffle is what `np.random.seed(42)` gives in the
        # tutorial, so the same seed means the same first thousand rows.
        shuffled = np.random.RandomState(self.seed).permutation(num_rows)
        if known:
            initial = known
        elif self.initial_sampling == "balanced":
            initial = self._balanced(shuffled, num_initial)
        elif self.initial_embeddings is not None:
            initial = self._typical(num_rows, self.initial_embeddings)
        else:
            initial = shuffled[:num_initial].tolist()
        if without_labels and not self.initial_labels:
            self.first_indices = initial
            return Pool(num_rows, [])
        held_out = shuffled[~np.isin(shuffled, initial)][: self.val_size] if self.val_size else ()
        pool = Pool(num_rows, initial, [int(i) for i in held_out])
        self.given_labels.update(self.initial_labels)
        return pool

    def _typical(self, num_rows: int, embeddings_ND: Tensor) -> list[int]:
        if len(embeddings_ND) != num_rows:
            raise ValueError(
                f"initial_embeddings must be one a row of train_set, got {len(embeddings_ND)} for "
                f"{num_rows} rows"
            )
        draw = generator(self.seed, "initial")
        num, nothing_labeled = cast(int, self.initial_labeled_size), embeddings_ND[:0]
        return typiclust(embeddings_ND, nothing_labeled, num, draw).tolist()

    def _balanced(self, shuffled: np.ndarray, num: int) -> list[int]:
        rows_by_class: dict[Any, list[int]] = {}
        for index, label in zip(shuffled.tolist(), self.labels_of(shuffled.tolist()), strict=True):
            rows_by_class.setdefault(label, []).append(index)
        quota, remainder = divmod(num, len(rows_by_class))
        chosen: list[int] = []
        for rank, label in enumerate(sorted(rows_by_class)):
            share = quota + (rank < remainder)
            if len(rows_by_class[label]) < share:
                raise ValueError(
                    f'initial_sampling="balanced" needs {share} rows of class {label!r}, found '
                    f"{len(rows_by_class[label])}; lower initial_labeled_size"
                )
            chosen += rows_by_class[label][:share]
        return chosen

    @property
    def sets(self) -> DataSets:
        """The data sets; RuntimeError before :meth:`setup` has read them."""
        self._require_setup()
        return cast(DataSets, self._sets)

    @property
    def pool(self) -> Pool:
        """The split; RuntimeError before :meth:`setup`."""
        self._require_setup()
        return cast(Pool, self._pool)

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes, by label; None when nobody gave them."""
        classes = self._classes or getattr(self.sets.train, "classes", None)
        return None if classes is None else [str(name) for name in classes]

    def _is_class(self, label: Any) -> bool:
        classes = self._classes
        return classes is None or not isinstance(label, int) or 0 <= label < len(classes)

    @property
    def holds_labels(self) -> bool:
        """Whether the data set has labels to reveal; else its items are inputs alone."""
        self._require_setup()
        return self._holds_labels

    def _look_for_labels(self) -> bool:
        rows: Any = cast(DataSets, self._sets).train
        said: bool | None = getattr(rows, "holds_labels", None)  # where the first row may be broken
        if said is None:
            with seeded(self.seed, "look"):  # a transform may draw
                said = holds_label(rows[0])
        self._holds_labels = said
        return said

    def names_of(self, indices: Sequence[int]) -> list[str] | None:
        """What a person knows rows by; None for a data set without ``paths``."""
        paths = getattr(self.sets.pool, "paths", None)
        return None if paths is None else [str(paths[index]) for index in indices]

    def leave_out_unreadable(self) -> None:
        """Marks rows invalid that cannot be read, where the data set can tell, and names them."""
        look = getattr(self.sets.pool, "unreadable", None)
        broken: dict[int, str] = {} if look is None else dict(look())
        if not broken:
            return
        self.mark_invalid(list(broken))
        shown = list(broken)[:5]
        names = self.names_of(shown) or [f"row {index}" for index in shown]
        named = "; ".join(f"{n}: {broken[i]}" for n, i in zip(names, shown, strict=True))
        more = f"; and {len(broken) - len(shown)} more" if len(broken) > len(shown) else ""
        found = f"{len(broken)} rows cannot be read and are left out: {named}{more}"
        if not (self.num_labeled or set(self.first_indices).difference(broken)):
            raise ValueError(f"at least one row to begin with must be readable, {found}")
        rank_zero_warn(found)

    def _require_setup(self) -> None:
        if self._pool is None:
            raise RuntimeError(
                f"{type(self).__name__} has not read its data yet: call prepare_data() and setup()"
            )

    # ---- labels ----------------------------------------------------------------------------------

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
        """Rows that training sees."""
        return self.pool.num_labeled

    @property
    def num_unlabeled(self) -> int:
        """Rows of the pool."""
        return self.pool.num_unlabeled

    @property
    def has_validation(self) -> bool:
        """Whether there are validation rows, given or held out."""
        return self.sets.val is not None or bool(self.pool.held_out)

    def label(
        self, indices: Sequence[int] | Tensor, labels: Sequence[Any] | Tensor | None = None
    ) -> None:
        """Moves rows from the pool to the training set; on an error nothing has changed.

        Args:
            indices: Data-set indices.
            labels: One for each index, in plain values; they replace the data set's own. None keeps
                what the data set says.

        Raises:
            ValueError: when an index is out of range, repeated, labeled already or held out, or
                when there are more or fewer labels than indices.
        """
        self.take_labels(*self.check_labels(indices, labels))

    def take_labels(self, rows: list[int], values: list[Any] | None) -> None:
        """What :meth:`label` does with rows and labels that :meth:`check_labels` gave.

        Nothing is read, so it can be done again when a row cannot be read any more.
        """
        self.pool.label(rows)
        if values is not None:
            self.given_labels.update(zip(rows, values, strict=True))

    def skip(self, indices: Sequence[int] | Tensor) -> None:
        """Rows that stay in the pool and are not to be asked for; ValueError as :meth:`label`."""
        self.pool.skip(as_indices(indices))

    def mark_invalid(self, indices: Sequence[int] | Tensor) -> None:
        """Takes rows out of the data for good, labeled or not.

        Raises:
            ValueError: when an index is out of range or held out; nothing has changed then.
        """
        rows = as_indices(indices)
        self.pool.mark_invalid(rows)
        for row in rows:
            self.given_labels.pop(row, None)

    def correct(self, labels: Mapping[int, Any]) -> None:
        """Replaces the labels of rows that are labeled.

        Raises:
            ValueError: when a row is not; nothing has changed then.
        """
        strangers = [index for index in labels if not self.pool.labeled_N[index]]
        if strangers:
            raise ValueError(f"only a label that is there can be corrected, found {strangers[:5]}")
        self.given_labels.update(labels)

    def check_labels(
        self, indices: Sequence[int] | Tensor, labels: Sequence[Any] | Tensor | None = None
    ) -> tuple[list[int], list[Any] | None]:
        """What :meth:`label` would take, as plain lists; raises as it does, and changes nothing."""
        rows = as_indices(indices)
        self.pool.check(rows)
        if labels is None:
            if rows and not self.holds_labels:
                raise ValueError(
                    "this data set's items are inputs alone, so a label must be given for each "
                    f"index, got none for {len(rows)}"
                )
            return rows, None
        values = [plain(value) for value in labels]
        if len(values) != len(rows):
            raise ValueError(f"labels must be one an index, got {len(values)} for {len(rows)}")
        self.check_values(values)
        return rows, values

    def check_values(self, labels: Sequence[Any]) -> None:
        """Looks whether items can hold such labels: now, not in a loader process or after a fit.

        Raises:
            ValueError: when they hold none in the place where we look, or of another kind.
        """
        if labels and self.holds_labels and self.num_labeled:
            first = int(self.pool.labeled_N.numpy().argmax())
            item = cast(Any, self.sets.pool)[first]
            for label in labels:
                replace_label(item, label, self.label_key)

    def labels_of(self, indices: Sequence[int]) -> list[Any]:
        """The labels of these rows: given ones first, then the data set's own.

        Raises:
            ValueError: when the data set's items hold no label under ``label_key``.
        """
        # `targets` is torchvision's name for all labels at once; it saves decoding every image.
        targets = getattr(self._sets.train, "targets", None) if self._sets else None
        labels = []
        for index in indices:
            if index in self.given_labels:
                labels.append(self.given_labels[index])
            elif targets is not None:
                labels.append(read_label((None, targets[index])))
            else:
                labels.append(read_label(cast(DataSets, self._sets).pool[index], self.label_key))
        return labels

    # ---- loaders ---------------------------------------------------------------------------------

    def train_dataloader(self) -> DataLoader[Any]:
        """The labeled rows, shuffled or drawn by (seed, number of labels, epoch)."""
        rows = RowView(
            self.sets.train,
            ListedRows(self.labeled_indices.tolist()),
            self.given_labels,
            self.label_key,
        )
        sampler = EpochShuffle(
            rows,
            self.seed,
            "shuffle",
            self.num_labeled,
            num_draws=self.epoch_size,
            epoch=self._epoch,
            **self._share,
        )
        return DataLoader(
            rows,
            batch_size=self.batch_size,
            sampler=sampler,
            generator=sampler.worker_seeds,
            num_workers=self.num_workers,
            collate_fn=self.collate_fn,
        )

    @property
    def _epoch(self) -> int:
        """The epoch that a fit begins with; not 0 where it goes on from a checkpoint.

        Loader workers start on it before Lightning has told the sampler.
        """
        progress: Any = self.trainer.fit_loop.epoch_progress.current if self.trainer else None
        return progress.processed if progress else 0

    def predict_dataloader(self) -> DataLoader[Any]:
        """The unlabeled rows in ascending order, under evaluation transforms.

        Without those that were skipped. Inside :meth:`candidates`, only those. With several
        processes, this one's share of batches.
        """
        rows: RowIndex = self.pool.askable_rows()
        if self._candidates is not None:
            rows = ListedRows(self._candidates)
        view = RowView(self.sets.pool, rows)
        return self._eval_loader(view, BatchShards(view, self.eval_batch_size, **self._share))

    @property
    def _share(self) -> dict[str, int]:
        """Which share of the rows is this process's, once a Trainer has taken the module."""
        trainer = self.trainer
        if trainer is None:
            return {}
        return {"num_replicas": trainer.world_size, "rank": trainer.global_rank}

    def val_dataloader(self) -> Any:
        """``val_set``, or the rows held out of the pool; no loader when there are neither."""
        if self.sets.val is not None:
            return self._eval_loader(self.sets.val)
        if self.pool.held_out:
            rows = ListedRows(sorted(self.pool.held_out))
            return self._eval_loader(RowView(self.sets.pool, rows))
        return []

    def test_dataloader(self) -> Any:
        """``test_set``; no loader when there is none.

        With several processes each tests on all of it. Shares would have to be evened out by
        repeating rows, which counts them twice, and what a module logs without ``sync_dist`` would
        be of one share alone.
        """
        if self.sets.test is None:
            return []
        test = cast(Sized, self.sets.test)
        return self._eval_loader(self.sets.test, BatchShards(test, self.eval_batch_size))

    @contextmanager
    def candidates(self, indices: Sequence[int] | None) -> Iterator[None]:
        """Inside the block ``predict_dataloader`` serves these rows; with None, the whole pool."""
        self._candidates = indices
        try:
            yield
        finally:
            self._candidates = None

    def _eval_loader(
        self, dataset: Dataset[Any], sampler: BatchShards | None = None
    ) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            batch_size=self.eval_batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=self.collate_fn,
        )

    # ---- state -----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The split and its seed, in tensors and plain values, which ``weights_only`` accepts."""
        return {
            "num_rows": len(self.pool.labeled_N),
            "labeled_indices": self.labeled_indices,
            "held_out": sorted(self.pool.held_out),
            "invalid": sorted(self.pool.invalid),
            "skipped": sorted(self.pool.skipped),
            "given_labels": dict(self.given_labels),
            "seed": self.seed,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over a saved split; on an error nothing has changed.

        Raises:
            ValueError: when the state comes from a data set of another length.
        """
        self.setup()
        num_rows = len(self.pool.labeled_N)
        if state_dict["num_rows"] != num_rows:
            raise ValueError(
                f"the saved split is of {state_dict['num_rows']} rows, this data set has "
                f"{num_rows}; load it beside the data it was made with"
            )
        labeled = state_dict["labeled_indices"].tolist()
        pool = Pool(num_rows, labeled, state_dict["held_out"])
        pool.mark_invalid(state_dict["invalid"])
        pool.skip(state_dict["skipped"])
        self._pool = pool
        self.given_labels = dict(state_dict["given_labels"])
        self.seed = state_dict["seed"]


def as_indices(indices: Sequence[int] | Tensor) -> list[int]:
    """Plain integers from a list, an array or a tensor of data-set indices.

    Raises:
        TypeError: when they are not whole numbers; a boolean mask is not a list of indices.
    """
    array = np.asarray(indices.cpu() if isinstance(indices, Tensor) else indices)
    if array.size == 0:
        return []
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise TypeError(
            f"indices must be a flat list of whole numbers, got {array.dtype} of shape "
            f"{array.shape}; for a mask pass mask.nonzero()[:, 0]"
        )
    return cast(list[int], array.tolist())


def _check_map_style(name: str, dataset: Any) -> None:
    is_map_style = hasattr(type(dataset), "__len__") and hasattr(type(dataset), "__getitem__")
    if not is_map_style or isinstance(dataset, IterableDataset):
        raise TypeError(
            f"{name} must be map-style, with __len__ and __getitem__, got "
            f"{type(dataset).__name__}; read a stream into a list first"
        )
