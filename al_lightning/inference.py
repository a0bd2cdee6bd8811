"""Reads the pool through ``Trainer.predict``: reduce on the device, gather the ranks, verify.

Rows carry their identity: Lightning hands each batch's positions to a prediction writer, so the
module sees batches just as the data set yields them, in any sharding.

Shape suffixes: B batch rows, N candidates, K posterior samples, C classes, D embedding dimensions.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from al_lightning.datamodule import ActiveDataModule
from al_lightning.rows import RowIndex, RowView
from al_lightning.strategies import PoolOutputs, Strategy

EXPECTED = (
    "logits (B, C) or (B, K, C) as a tensor, or a dict with 'probs' or 'logits' of that shape and "
    "perhaps 'embedding' (B, D)"
)


class Outputs(NamedTuple):
    """One batch of predictions, in the form that strategies read."""

    probs: Tensor
    """(B, C) or (B, K, C)."""
    embedding: Tensor | None
    """(B, D)."""


def read_outputs(prediction: Any, batch_rows: int) -> Outputs:
    """What a module's ``predict_step`` returned, as probabilities and perhaps embeddings.

    Args:
        prediction: Logits (B, C) or (B, K, C), or a dict with ``probs`` or ``logits`` of that shape
            and perhaps ``embedding`` (B, D).
        batch_rows: B, the rows that went in.

    Raises:
        ValueError: for anything else; says what came and what is expected.
    """
    is_dict = isinstance(prediction, Mapping)
    raw = prediction.get("probs", prediction.get("logits")) if is_dict else prediction
    if not isinstance(raw, Tensor):
        came = f"a dict with {sorted(map(str, prediction))}" if is_dict else type(raw).__name__
        raise ValueError(f"predict_step must return {EXPECTED}, got {came}")
    if raw.ndim not in (2, 3) or raw.shape[-1] < 2 or len(raw) != batch_rows:
        raise ValueError(
            f"predict_step must return {EXPECTED}, with B = {batch_rows} rows here and C >= 2, got "
            f"a tensor of shape {tuple(raw.shape)}"
        )
    embedding = prediction.get("embedding") if is_dict else None
    if embedding is not None and (embedding.ndim != 2 or len(embedding) != batch_rows):
        raise ValueError(
            f"'embedding' must be ({batch_rows}, D), got {tuple(embedding.shape)}; flatten it"
        )
    if is_dict and "probs" in prediction:
        return Outputs(raw, embedding)
    if not is_dict and _are_probs(raw):
        raise ValueError(
            "a tensor from predict_step is read as logits, and these rows are non-negative and sum "
            'to 1; return the logits, or {"probs": probs}'
        )
    return Outputs(raw.float().softmax(-1), embedding)


def _are_probs(raw: Tensor) -> bool:
    return bool((raw >= 0).all() and ((raw.sum(-1) - 1).abs() < 1e-3).all())


def read_pool(
    trainer: L.Trainer, model: L.LightningModule, data: ActiveDataModule, strategy: Strategy
) -> PoolOutputs:
    """Predicts ``data.predict_dataloader()`` and keeps what ``strategy`` needs, on every rank.

    Args:
        trainer: Runs the prediction; a callback is added to it for the time of this call.
        model: Any LightningModule; one with a ``forward`` alone is called with the first part of
            a tuple batch, or with a dict batch as it is.
        data: Serves the candidates.
        strategy: Says what to keep.

    Returns:
        One row for each candidate, on the CPU, in ascending order of data-set index.

    Raises:
        ValueError: when the module's output cannot be read, lacks what the strategy needs, or holds
            NaN or infinity (names data-set indices).
    """
    _keep_freed_memory()
    collect = _Collect(strategy)
    module = model if is_overridden("predict_step", model) else _ForwardOnly(model)
    trainer.callbacks.append(collect)  # type: ignore[attr-defined]
    try:
        trainer.predict(module, datamodule=data, return_predictions=False)
    finally:
        trainer.callbacks.remove(collect)  # type: ignore[attr-defined]
    return collect.outputs()


def _keep_freed_memory() -> None:
    """Makes glibc's malloc reuse the activations of one batch for the next.

    By default it returns large freed blocks to the system, and every batch on a CPU faults its
    pages in again, which can take as long as the network. Freeing one block just under 32 MB
    raises the size from which it does so (mallopt(3), dynamic M_MMAP_THRESHOLD); elsewhere this is
    an allocation that nobody touches.
    """
    torch.empty(31_000_000, dtype=torch.uint8)


class _ForwardOnly(L.LightningModule):
    """Gives a module without ``predict_step`` one that calls its ``forward`` on the inputs."""

    def __init__(self, model: L.LightningModule) -> None:
        super().__init__()
        self.model = model
        # The module's own transfer hooks must still see its batches.
        self.on_before_batch_transfer = model.on_before_batch_transfer  # type: ignore[method-assign]
        self.transfer_batch_to_device = model.transfer_batch_to_device  # type: ignore[method-assign]
        self.on_after_batch_transfer = model.on_after_batch_transfer  # type: ignore[method-assign]

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        return self.model(batch[0] if isinstance(batch, list | tuple) else batch)


class _Collect(BasePredictionWriter):
    """Reduces each batch as it comes and puts the ranks' shares together at the end."""

    def __init__(self, strategy: Strategy) -> None:
        super().__init__(write_interval="batch")
        self._strategy = strategy
        self._batches: list[dict[str, Tensor]] = []
        self._outputs: PoolOutputs | None = None

    def outputs(self) -> PoolOutputs:
        if self._outputs is None:
            raise RuntimeError(
                "the predictions stayed in other processes: use Trainer(strategy='ddp'), not a "
                "strategy that spawns or forks"
            )
        return self._outputs

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
        indices = _rows(trainer).at(batch_indices)
        self._batches.append(self._reduce(read_outputs(prediction, len(indices)), indices))

    def _reduce(self, outputs: Outputs, indices: list[int]) -> dict[str, Tensor]:
        probs = outputs.probs
        _check_finite("probabilities", probs, indices)
        columns = {
            "indices": torch.tensor(indices, device=probs.device),
            "predicted": (probs.mean(1) if probs.ndim == 3 else probs).argmax(-1),
        }
        if self._strategy.score is not None:
            columns["scores"] = self._strategy.score(probs)
            _check_finite("scores", columns["scores"], indices)
        elif "probs" in self._strategy.needs:
            columns["probs"] = probs
        if "embeddings" in self._strategy.needs:
            if outputs.embedding is None:
                raise ValueError(
                    "this strategy needs embeddings: return them from predict_step as "
                    "{'probs': ..., 'embedding': ...}"
                )
            _check_finite("embeddings", outputs.embedding, indices)
            columns["embeddings"] = outputs.embedding
        return columns

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        columns = {
            name: torch.cat([batch[name] for batch in self._batches]) for name in self._batches[0]
        }
        self._batches.clear()
        if trainer.world_size > 1:
            columns = {
                name: torch.cat([share.to(column.device) for share in gather_all_tensors(column)])
                for name, column in columns.items()
            }
        indices = columns.pop("indices").cpu()
        order = indices.argsort()
        expected = _rows(trainer).all().msort()
        assert torch.equal(indices[order], expected), "each candidate must be predicted once"
        self._outputs = PoolOutputs(
            indices=expected, **{name: column.cpu()[order] for name, column in columns.items()}
        )


def _rows(trainer: L.Trainer) -> RowIndex:
    """The rows that the data module's predict loader serves, by position."""
    loader: Any = trainer.predict_dataloaders
    assert isinstance(loader.dataset, RowView)
    return loader.dataset.rows


def _check_finite(what: str, values: Tensor, indices: list[int]) -> None:
    finite_B = torch.isfinite(values).flatten(1).all(1) if values.ndim > 1 else values.isfinite()
    if not finite_B.all():
        bad = [
            index for index, finite in zip(indices, finite_B.tolist(), strict=True) if not finite
        ]
        raise ValueError(
            f"the {what} of {len(bad)} rows of this batch are NaN or infinite, data-set indices "
            f"{bad[:5]}; nothing was asked or labeled; look for a diverged training or bad inputs"
        )
