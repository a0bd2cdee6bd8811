"""``ActiveDataModule``: trains on the labeled rows of a data set, predicts on the rest."""

import operator
from collections.abc import Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Literal, cast

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from al_lightning.data.initial import Initial
from al_lightning.data.items import collate
from al_lightning.data.labels import Labels, look_for_labels
from al_lightning.data.lightning_internals import epoch_to_begin_with
from al_lightning.data.loaders import (
    Collate,
    check_options,
    collate_to_read,
    training_batch_size,
)
from al_lightning.data.pool import Pool, as_indices
from al_lightning.data.samplers import BatchShards, EpochShuffle
from al_lightning.data.sets import DataSets, extras
from al_lightning.data.split import SplitDataModule
from al_lightning.data.views import RowView
from al_lightning.run.records import plain
from al_lightning.settings import check_at_least


class ActiveDataModule(SplitDataModule):
    """Makes any map-style data set active.

    The split is one boolean mask, from which every loader is built on request. Every index is a
    data-set index, never a position in the pool. For data that must be downloaded or read first,
    make a subclass that overrides ``prepare_data`` and :meth:`load_sets`.

    Args:
        train_set: Map-style data set of all rows, labeled and not, under training transforms.
        pool_set: The same rows under evaluation transforms; ``train_set`` when not given.
        val_set, test_set: Validation and test data.
        initial_labeled_size: Number of rows that are labeled from the start, drawn by ``seed``.
        initial_indices: Instead, exactly these rows.
        initial_labels: Instead, known labels by data-set index.
        initial_sampling: ``"random"`` shuffles all rows and takes the first. ``"balanced"`` takes
            the same number of each class, and a remainder from the first classes. ``"typiclust"``
            takes typical rows of ``initial_embeddings``, whatever their labels.
        initial_embeddings: (rows, D), one for each row of ``train_set`` in its order, from a
            pretrained network, for ``initial_sampling="typiclust"``.
        val_size: Number of rows to hold out of the pool for validation, drawn by ``seed``.
        batch_size: Rows in a training batch. Where the last one would be a single row, on which
            BatchNorm fails, batches are smaller, see :mod:`al_lightning.data.loaders`.
        epoch_size: Rows in a training epoch, drawn with replacement; else each labeled row once.
        eval_batch_size: Rows in a batch of validation, test and prediction, if not ``batch_size``.
        num_workers: Loader processes.
        seed: Draws the initial rows, the held-out rows and the order of training batches.
        label_key: The place of the label in an item, to read and to write it: a position in a tuple
            (default 1; needed when it has more than two parts), a field of a named one, or a key of
            a dict (default ``"label"``).
        collate_fn: Makes a training batch from a list of items; torch's default when not given.
        eval_collate_fn: The same for validation, test and the pool.
        loader: Any further arguments of a ``DataLoader``, such as ``{"pin_memory": True}``;
            ``drop_last`` is for training alone.
        classes: Names of the classes, for people who label; a label is then a position in them.
            ``train_set.classes`` when not given.

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
        collate_fn: Collate | None = None,
        eval_collate_fn: Collate | None = None,
        loader: Mapping[str, Any] | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        check_at_least(
            1, batch_size=batch_size, epoch_size=epoch_size, eval_batch_size=eval_batch_size
        )
        check_at_least(0, num_workers=num_workers)
        if val_set is not None and val_size:
            raise ValueError(f"give either val_set or val_size, got both, val_size={val_size}")
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
        self.epoch_size = epoch_size
        self.eval_batch_size = eval_batch_size or batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.label_key = label_key
        self.collate_fn = collate_fn or collate
        self.eval_collate_fn = eval_collate_fn or partial(
            collate_to_read, has_training=collate_fn is not None
        )
        self.loader = dict(loader or {})
        check_options(self.loader)
        self.first_indices: list[int] = []
        self._served: Sequence[int] | Tensor | None = None
        # A pool of fewer batches than there are processes leaves some of them without.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        if train_set is not None:
            self._attach(DataSets(train_set, pool_set or train_set, val_set, test_set))

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
        sets.check()
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

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes, by label; None when nobody gave them."""
        classes = self._initial.classes or extras(self.sets.train).classes
        return None if classes is None else [str(name) for name in classes]

    def train_dataloader(self) -> DataLoader[Any]:
        """Serve the labeled rows, shuffled or drawn by (seed, number of labels, epoch)."""
        rows = RowView(self.sets.train, self.labeled_indices, self.row_labels.given, self.label_key)
        purpose = self.seed, "shuffle", self.num_labeled
        epoch = epoch_to_begin_with(self.trainer)
        sampler = EpochShuffle(
            rows, *purpose, num_draws=self.epoch_size, epoch=epoch, **self._share
        )
        drop_last = bool(self.loader.get("drop_last"))
        size = training_batch_size(len(sampler), self.batch_size, drop_last=drop_last)
        arguments = {"collate_fn": self.collate_fn, "drop_last": drop_last}
        return self._loader(rows, size, sampler, generator=sampler.worker_seeds, **arguments)

    def predict_dataloader(self) -> DataLoader[Any]:
        """Serve the pool without skipped rows, in ascending order, under evaluation transforms.

        Inside :meth:`serving`, serve those rows. With several processes, serve this process's share
        of the batches.
        """
        rows = self.pool.askable_indices if self._served is None else self._served
        view = RowView(self.sets.pool, rows)
        num = self.eval_batch_size
        return self._loader(view, num, BatchShards(view, num, **self._share))

    @contextmanager
    def serving(self, rows: Sequence[int] | Tensor | None) -> Iterator[None]:
        """Serve these rows in ``predict_dataloader`` inside the block; with None, the pool."""
        self._served = rows
        try:
            yield
        finally:
            self._served = None

    def val_dataloader(self) -> Any:
        """Serve ``val_set``, or the rows held out of the pool; no loader when there are neither."""
        rows = self.sets.val
        if rows is None and self.pool.held_out:
            rows = RowView(self.sets.pool, sorted(self.pool.held_out))
        return [] if rows is None else self._loader(rows, self.eval_batch_size)

    def test_dataloader(self) -> Any:
        """Serve ``test_set``; no loader when there is none.

        With several processes each tests on all of it. Shares of one size need repeated rows, which
        count twice; and a metric logged without ``sync_dist`` would be that of one share.
        """
        if self.sets.test is None:
            return []
        num = self.eval_batch_size
        return self._loader(self.sets.test, num, BatchShards(cast(Sized, self.sets.test), num))

    @property
    def _share(self) -> dict[str, int]:
        """The arguments of a sampler that name this process's share; empty without a Trainer."""
        if self.trainer is None:
            return {}
        return {"num_replicas": self.trainer.world_size, "rank": self.trainer.global_rank}

    def _loader(
        self, dataset: Dataset[Any], batch_size: int, sampler: Any = None, **arguments: Any
    ) -> DataLoader[Any]:
        common = {"num_workers": self.num_workers, "collate_fn": self.eval_collate_fn}
        arguments = {**self.loader, **common, "drop_last": False, **arguments}
        return DataLoader(dataset, batch_size=batch_size, sampler=sampler, **arguments)
