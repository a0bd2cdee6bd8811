"""Features once: run a frozen backbone over all rows, and go on with what it gave.

Shape suffixes: N rows, V views of a row, R rows of the file, B rows of a batch, D features.
"""

from collections.abc import Callable, Mapping, Sequence, Sized
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor, nn
from torch.utils.data import Dataset

from al_lightning.data.datamodule import ActiveDataModule
from al_lightning.data.feature_file import DTYPES, FeatureFile
from al_lightning.data.feature_rows import (
    DrawnViews,
    FeatureDataModule,
    FeatureRows,
    check_split,
)
from al_lightning.data.fingerprint import SomeRows, checksum, fingerprint
from al_lightning.data.labels import look_for_labels, own_labels, trusted_targets
from al_lightning.data.lightning_internals import forget_positions
from al_lightning.data.sets import DataSets, find_unreadable
from al_lightning.prediction.features import LayerInput, find_layer
from al_lightning.prediction.wrapping import replaced_step, step_of, uncompiled
from al_lightning.run.records import plain
from al_lightning.seeds import isolated
from al_lightning.settings import check_at_least

POOLING = "nn.Sequential(backbone, nn.AdaptiveAvgPool2d(1), nn.Flatten())"


def cache_features(
    backbone: nn.Module,
    datamodule: L.LightningDataModule,
    path: str | Path,
    *,
    trainer: L.Trainer | Callable[[], L.Trainer] | None = None,
    embedding_layer: str | None = None,
    num_views: int = 1,
    dtype: Literal["float32", "float16"] = "float32",
    **split: Any,
) -> ActiveDataModule:
    """Run a frozen backbone over all rows once; return a data module of features and labels.

    A cycle then trains a head on the features and scores them, without the backbone. A strategy
    that needs embeddings gets the features, and a strategy that needs nothing else costs no forward
    pass. Pictures, tables and the labeling page show the rows themselves.

    The features go into a file, which numpy can open. The file is made at the first call, and known
    by the weights and by checksums of some rows. When the call is interrupted, the next one
    makes the rows that are missing. Several processes of a Trainer each write their share, so the
    file must be on a disk that all of them see.

    Args:
        backbone: Any module. It is not trained: it predicts in evaluation mode, and its modes are
            as before afterwards. A LightningModule predicts by its ``predict_step`` or else by its
            ``forward``; any other module gets the input of a batch. It returns features (B, D), or
            a dict with them under ``"embedding"``.
        datamodule: The rows: an :class:`ActiveDataModule`, or a project's own, for which ``split``
            must say which rows are labeled first.
        path: Of the file.
        trainer: Makes the features: its devices, precision and progress bar count. One on a single
            CPU or GPU when not given.
        embedding_layer: Name of a layer of the backbone whose input are the features, instead of
            what it returns.
        num_views: Views of each row under training transforms, of which training draws one each
            time; 1 trains on the row under evaluation transforms. Scores never use them.
        dtype: Of the numbers in the file; what is served is float32.
        split: Arguments of :class:`ActiveDataModule` about the features: ``batch_size``, or another
            split than that of ``datamodule``, such as ``initial_labeled_size`` with
            ``initial_sampling="max_herding"``, which then chooses on the features.

    Raises:
        TypeError: for another argument, or a ``trainer`` that is none.
        ValueError: when nothing says which rows are labeled first; when the file is damaged, or of
            other rows, weights, views or numbers; when the backbone gives no (B, D), gives NaN or
            infinity, or changes while it predicts.
        OSError: when the file does not fit the disk.

    >>> import tempfile
    >>> from torch.utils.data import TensorDataset
    >>> rows = TensorDataset(torch.arange(8.0)[:, None], torch.arange(8) % 2)
    >>> data = ActiveDataModule(rows, initial_indices=[0, 1])
    >>> quiet = L.Trainer(logger=False, enable_progress_bar=False, enable_model_summary=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     features = cache_features(nn.Linear(1, 3), data, f"{folder}/f.npy", trainer=quiet)
    >>> features.sets.pool[5][0].shape, features.sets.pool[5][1], features.num_labeled
    (torch.Size([3]), 1, 2)
    """
    check_at_least(1, num_views=num_views)
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    check_split(split, has_split=isinstance(datamodule, ActiveDataModule))
    trainer = _trainer_of(trainer)
    source = datamodule
    if not isinstance(source, ActiveDataModule):
        source = ActiveDataModule.from_datamodule(datamodule, initial_indices=[0])
    source.ensure_read(trainer)
    parts = _parts(source, num_views)
    weights = _checksum_of(backbone)
    about = {
        **{f"{name} rows": _described(part.rows, source) for name, part in parts.items()},
        "weights": weights,
        "embedding_layer": embedding_layer,
        "num_views": num_views,
        "dtype": dtype,
        "num_rows": sum(len(part) for part in parts.values()),
    }
    file = FeatureFile(path, about)
    if not file.path.exists():
        file.kept = {name: _labels(part, source) for name, part in parts.items()}
    missing = file.missing()
    for part in parts.values():
        here = missing[(missing >= part.start) & (missing < part.start + len(part))] - part.start
        rows = here[~torch.isin(here, torch.tensor(part.unreadable, dtype=torch.int64))]
        if len(rows):
            _write(trainer, backbone, source, file, part, rows, embedding_layer)
    if trainer.world_size > 1 and len(missing):
        trainer.strategy.barrier("cache_features")
    if _checksum_of(backbone) != weights:
        file.delete()
        raise ValueError(
            "a backbone must not change while features are made, found other weights or buffers "
            "afterwards; nothing is kept; leave its layers, such as BatchNorm, in evaluation mode"
        )
    return FeatureDataModule(source, _served(source, parts, file), split)


class _Part(NamedTuple):
    """Says which rows of the file are of which data set."""

    rows: Dataset[Any]
    """What the backbone sees, one row for each of the file."""
    start: int
    """The first row of the file."""
    unreadable: Sequence[int]

    def __len__(self) -> int:
        return len(cast(Sized, self.rows))


def _parts(source: ActiveDataModule, num_views: int) -> dict[str, _Part]:
    """Return the parts of the file by name; the pool first."""
    sets = source.sets
    rows = {"pool": sets.pool, "val": sets.val, "test": sets.test}
    if num_views > 1:
        rows["train"] = DrawnViews(sets.train, num_views, source.seed)
    parts: dict[str, _Part] = {}
    start = 0
    for name, dataset in rows.items():
        if dataset is not None:
            broken, _ = find_unreadable(sets.pool if name == "train" else dataset)
            if name == "train":
                broken = [row * num_views + v for row in broken for v in range(num_views)]
            parts[name] = _Part(dataset, start, broken)
            start += len(parts[name])
    return parts


def _described(rows: Dataset[Any], source: ActiveDataModule) -> str:
    """Return how many rows there are, and a checksum of some of them."""
    return f"{len(cast(Sized, rows)):,} {checksum(fingerprint(SomeRows(rows, source.label_key)))}"


def _checksum_of(backbone: nn.Module) -> str:
    """Return a checksum of the weights and buffers, and of how the layers are put together."""
    state = {name: value.detach().cpu() for name, value in backbone.state_dict().items()}
    return checksum([repr(backbone), state])


def _labels(part: "_Part", source: ActiveDataModule) -> list[Any] | None:
    """Return the label of each row, None for one that cannot be read; None where none are held."""
    if isinstance(part.rows, DrawnViews):
        return None
    key, is_pool = source.label_key, part.rows is source.sets.pool
    sets = source.sets if is_pool else DataSets(part.rows, part.rows)
    if not (source.holds_labels if is_pool else look_for_labels(sets, key, source.seed)):
        return None
    readable = sorted(set(range(len(part))).difference(part.unreadable))
    found = own_labels(sets, readable, key, trusted_targets(sets, key))
    labels = dict(zip(readable, map(plain, found), strict=True))
    return [labels.get(row) for row in range(len(part))]


class _Backbone(L.LightningModule):
    """Lets a Trainer run a module that is no LightningModule."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Any) -> Any:
        return self.network(inputs)


def _write(
    trainer: L.Trainer,
    backbone: nn.Module,
    source: ActiveDataModule,
    file: FeatureFile,
    part: _Part,
    rows: Tensor,
    embedding_layer: str | None,
) -> None:
    """Make the features of some rows of a part, and write them."""
    model = backbone if isinstance(backbone, L.LightningModule) else _Backbone(backbone)
    writer = _Writer(file, part.start, rows, embedding_layer)
    with ExitStack() as stack:
        stack.callback(writer.close)
        trainer.callbacks.append(writer)  # type: ignore[attr-defined]
        stack.callback(trainer.callbacks.remove, writer)  # type: ignore[attr-defined]
        stack.enter_context(source.serving(rows, part.rows))
        stack.enter_context(isolated())
        trainer.predict(model, datamodule=source, return_predictions=False)


class _Writer(BasePredictionWriter):
    """Writes the features of each batch as it comes."""

    def __init__(
        self, file: FeatureFile, start: int, rows: Tensor, embedding_layer: str | None
    ) -> None:
        super().__init__(write_interval="batch")
        self._file = file
        self._start = start
        self._rows = rows
        self._embedding_layer = embedding_layer
        self._layer: LayerInput | None = None
        self._replaced = ExitStack()

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Also where a hook of its own said otherwise; Lightning brings the modes back.
        pl_module.eval()
        enter = self._replaced.enter_context
        if self._embedding_layer is not None:
            network = pl_module.network if isinstance(pl_module, _Backbone) else pl_module
            self._layer = enter(LayerInput(find_layer(network, self._embedding_layer)))
            enter(uncompiled(pl_module))
        enter(replaced_step(pl_module, step_of(pl_module)))

    def close(self) -> None:
        """Give the module its own ``predict_step`` back."""
        self._replaced.close()

    def write_on_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        assert batch_indices is not None
        rows = self._rows[torch.tensor(batch_indices)]
        if self._layer is not None:
            prediction = self._layer.take(len(rows), batch)
        self._file.write((rows + self._start).tolist(), checked_features(prediction, rows))
        forget_positions(trainer, batch_idx)


def checked_features(prediction: Any, rows: Tensor) -> Tensor:
    """Return the features (B, D) in what a backbone gave for these rows.

    Raises:
        ValueError: for anything else, and for NaN or infinity; names data-set indices.
    """
    features = prediction.get("embedding") if isinstance(prediction, Mapping) else prediction
    if not isinstance(features, Tensor) or not features.is_floating_point():
        found = sorted(prediction) if isinstance(prediction, Mapping) else type(prediction).__name__
        raise ValueError(
            "a backbone must give features (B, D) as a tensor, or under 'embedding' in a dict, got "
            f"{found}; wrap it in a module that returns them, or name a layer with embedding_layer"
        )
    if features.ndim != 2 or len(features) != len(rows):
        cure = f"pool the maps: {POOLING}" if features.ndim == 4 else "return one vector a row"
        raise ValueError(
            f"a backbone must give one vector a row, ({len(rows)}, D), got {tuple(features.shape)}"
            f"; {cure}"
        )
    bad = rows[~features.isfinite().all(1).cpu()].tolist()
    if bad:
        raise ValueError(
            f"features must be finite, found NaN or infinity in {len(bad)} rows of a batch, "
            f"data-set indices {bad[:5]}; look at these rows and at the precision of the Trainer"
        )
    return features


def _served(source: ActiveDataModule, parts: Mapping[str, _Part], file: FeatureFile) -> DataSets:
    """Return the features in the place of the data sets."""
    table_RD = file.read()

    def made(name: str, like: str, num_views: int = 1) -> FeatureRows:
        part = parts[name]
        features_ND = table_RD[part.start : part.start + len(part)]
        features_NVD = features_ND.view(-1, num_views, features_ND.shape[1])
        return FeatureRows(features_NVD, file.kept[like], parts[like].rows)

    rows = {name: made(name, name) for name in parts if name != "train"}
    train = rows["pool"]
    if "train" in parts:
        train = made("train", "pool", file.about["num_views"])
    return DataSets(train, rows["pool"], rows.get("val"), rows.get("test"), source.sets.for_people)


def _trainer_of(trainer: L.Trainer | Callable[[], L.Trainer] | None) -> L.Trainer:
    """Return a Trainer that predicts all batches; TypeError or ValueError for another one."""
    if trainer is None:
        trainer = L.Trainer(
            devices=1, logger=False, enable_checkpointing=False, enable_model_summary=False
        )
    elif not isinstance(trainer, L.Trainer) and callable(trainer):
        trainer = trainer()
    if not isinstance(trainer, L.Trainer):
        raise TypeError(
            f"trainer must be a lightning.Trainer or make one, got {type(trainer).__name__}"
        )
    if trainer.limit_predict_batches != 1.0:
        raise ValueError(
            f"features are made of all rows, got limit_predict_batches="
            f"{trainer.limit_predict_batches}; leave it out, and fast_dev_run too"
        )
    return trainer
