"""The loaders of a split: labeled rows to train on, the pool to predict, others to measure on."""

from collections.abc import Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from typing import Any, cast

from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from al_lightning.data.items import holds_label, read_label
from al_lightning.data.lightning_internals import epoch_to_begin_with
from al_lightning.data.loaders import Collate, training_batch_size
from al_lightning.data.samplers import BatchShards, EpochShuffle
from al_lightning.data.split import SplitDataModule
from al_lightning.data.views import RowView, UnlabeledView
from al_lightning.run.records import plain
from al_lightning.seeds import isolated


class ServingDataModule(SplitDataModule):
    """Makes a loader of each kind on request; a base of :class:`~al_lightning.ActiveDataModule`."""

    batch_size: int
    epoch_size: int | None
    steps_per_epoch: int | None
    unlabeled_batch_size: int | None
    eval_batch_size: int
    num_workers: int
    label_key: int | str | None
    collate_fn: Collate
    eval_collate_fn: Collate
    loader: Mapping[str, Any]

    def __init__(self) -> None:
        super().__init__()
        self._shuffles = True
        self._served: RowView | None = None
        # A pool of fewer batches than there are processes leaves some of them without.
        self.allow_zero_length_dataloader_with_multiple_devices = True

    def train_dataloader(self) -> Any:
        """Serve the labeled rows, shuffled or drawn by (seed, number of labels, epoch).

        With ``unlabeled_batch_size`` it is a ``CombinedLoader`` of ``"labeled"`` batches and, while
        there are such rows, ``"unlabeled"`` ones beside them.
        """
        rows = RowView(self.sets.train, self.labeled_indices, self.row_labels.given, self.label_key)
        draws = self.epoch_size
        if self.steps_per_epoch is not None:
            draws = self.steps_per_epoch * self.batch_size * self._share.get("num_replicas", 1)
        labeled = self._training(rows, self.batch_size, draws, "shuffle")
        if self.unlabeled_batch_size is None:
            return labeled
        loaders = {"labeled": labeled}
        pool = UnlabeledView(self.sets.train, self.unlabeled_indices, label_key=self.label_key)
        if len(pool):
            size = self.unlabeled_batch_size
            draws = len(labeled) * size * self._share.get("num_replicas", 1)
            loaders["unlabeled"] = self._training(pool, size, draws, "unlabeled")
        return CombinedLoader(loaders, "min_size")

    def _training(
        self, rows: RowView, batch_size: int, num_draws: int | None, purpose: str
    ) -> DataLoader[Any]:
        """Return a loader whose order the seed, the number of labels and the epoch decide."""
        epoch = epoch_to_begin_with(self.trainer)
        how: dict[str, Any] = {"num_draws": num_draws, "shuffle": self._shuffles, "epoch": epoch}
        how |= self._share
        sampler = EpochShuffle(rows, self.seed, purpose, self.num_labeled, **how)
        options = self.options(training=True)
        drop_last = bool(options.get("drop_last"))
        size = training_batch_size(len(sampler), batch_size, drop_last=drop_last)
        collate = self.eval_collate_fn if isinstance(rows, UnlabeledView) else self.collate_fn
        options |= {"collate_fn": collate, "generator": sampler.worker_seeds}
        return DataLoader(rows, batch_size=size, sampler=sampler, **options)

    def predict_dataloader(self) -> DataLoader[Any]:
        """Serve the pool without skipped rows, in ascending order, under evaluation transforms.

        Inside :meth:`serving`, serve those rows. With several processes, serve this process's share
        of the batches.
        """
        view = self._served
        if view is None:
            view = RowView(self.sets.pool, self.pool.askable_indices)
        num = self.eval_batch_size
        return self._loader(view, num, BatchShards(view, num, **self._share))

    @contextmanager
    def serving(
        self, rows: Sequence[int] | Tensor | None, dataset: Dataset[Any] | None = None
    ) -> Iterator[None]:
        """Serve these rows in ``predict_dataloader`` inside the block; with None, the pool.

        Args:
            rows: Of the pool, or of ``dataset``.
            dataset: Another one than the pool's.
        """
        if rows is not None:
            self._served = RowView(self.sets.pool if dataset is None else dataset, rows)
        try:
            yield
        finally:
            self._served = None

    def val_dataloader(self) -> Any:
        """Serve ``val_set``, or the rows held out of the pool; no loader when there are neither."""
        if self.sets.val is not None:
            return self._loader(self.sets.val, self.eval_batch_size)
        rows = self.validation_rows
        return [] if rows is None else self._loader(rows, self.eval_batch_size)

    @property
    def validation_rows(self) -> RowView | None:
        """The rows of ``val_set``, or those held out of the pool; None when there are neither."""
        if self.sets.val is not None:
            return RowView(self.sets.val, range(len(cast(Sized, self.sets.val))))
        held_out = sorted(self.pool.held_out)
        return RowView(self.sets.pool, held_out) if held_out else None

    def labels_in(self, view: RowView) -> list[Any] | None:
        """Return the labels of validation rows; None when their items are inputs alone."""
        if view.dataset is self.sets.pool:
            return self.labels_of(view.indices.tolist()) if self.holds_labels else None
        with isolated():  # a transform may draw
            items = [view[position] for position in range(len(view))]
        if not all(holds_label(item, self.label_key) for item in items):
            return None
        return [plain(read_label(item, self.label_key)) for item in items]

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

    def options(self, *, training: bool) -> dict[str, Any]:
        """Return the further arguments of a loader, for training or to read."""
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        common = {"num_workers": self.num_workers, "pin_memory": on_gpu}
        return {**common, **self.loader, **({} if training else {"drop_last": False})}

    def _loader(
        self, dataset: Dataset[Any], batch_size: int, sampler: Any = None
    ) -> DataLoader[Any]:
        options = {"collate_fn": self.eval_collate_fn, **self.options(training=False)}
        return DataLoader(dataset, batch_size=batch_size, sampler=sampler, **options)
