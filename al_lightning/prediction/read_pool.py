"""Reads the pool through ``Trainer.predict``: reduce on the device, gather the ranks, verify.

Rows carry their identity: Lightning hands each batch's positions to a prediction writer, so the
module sees batches just as the data set yields them, in any sharding.

Shape suffixes: B batch rows, N candidates, K posterior samples, C classes, D embedding dimensions.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torchmetrics.utilities.distributed import gather_all_tensors

from al_lightning.data.datamodule import ActiveDataModule
from al_lightning.data.views import RowIndex, RowView
from al_lightning.distributed import check_same, have_met
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
    trainer: L.Trainer,
    model: L.LightningModule,
    data: ActiveDataModule,
    strategy: Strategy,
    *,
    candidates: Sequence[int] | None = None,
    labeled: Sequence[int] | None = None,
    embedding_layer: nn.Module | None = None,
) -> PoolOutputs:
    """Predicts the candidates and keeps what ``strategy`` needs, on every rank.

    Args:
        trainer: Runs the prediction; a callback is added to it for the time of this call.
        model: Any LightningModule; one with a ``forward`` alone is called with the first part of
            a tuple batch, or with a dict batch as it is.
        data: Serves the rows.
        strategy: Says what to keep.
        candidates: Data-set indices to choose from, ascending; the whole pool but for skipped rows
            when not given.
        labeled: Rows that stand for the labeled ones where the strategy needs their embeddings;
            all of them when not given.
        embedding_layer: A layer of ``model``, the input of which is the embedding, in the stead of
            one that ``predict_step`` returns. Of several calls a batch the first counts.

    Returns:
        One row for each candidate, on the CPU, in ascending order of data-set index.

    Raises:
        ValueError: when the module's output cannot be read, lacks what the strategy needs, or holds
            NaN or infinity (names data-set indices).
    """
    _keep_freed_memory()
    module = predicting(model)

    def read(rows: Sequence[int] | None, strategy: Strategy) -> PoolOutputs:
        collect = _Collect(strategy, embedding_layer)
        trainer.callbacks.append(collect)  # type: ignore[attr-defined]
        try:
            with data.candidates(rows):
                trainer.predict(module, datamodule=data, return_predictions=False)
        finally:
            collect.unhook()
            trainer.callbacks.remove(collect)  # type: ignore[attr-defined]
        wanted = data.pool.askable_indices if rows is None else torch.as_tensor(rows).msort()
        return collect.gathered(trainer, wanted)

    pool = read(candidates, strategy)
    if "labeled_embeddings" not in strategy.needs:
        return pool
    rows = data.labeled_indices.tolist() if labeled is None else labeled
    embeddings_alone = Strategy(strategy.select, needs=frozenset({"embeddings"}))
    return replace(pool, labeled_embeddings=read(rows, embeddings_alone).embeddings)


def _keep_freed_memory() -> None:
    """Makes glibc's malloc reuse the activations of one batch for the next.

    By default it returns large freed blocks to the system, and every batch on a CPU faults its
    pages in again, which can take as long as the network. Freeing one block just under 32 MB
    raises the size from which it does so (mallopt(3), dynamic M_MMAP_THRESHOLD); elsewhere this is
    an allocation that nobody touches.
    """
    torch.empty(31_000_000, dtype=torch.uint8)


def predicting(model: L.LightningModule) -> L.LightningModule:
    """The module itself when it has a ``predict_step``, else one that calls its ``forward``."""
    return model if is_overridden("predict_step", model) else _ForwardOnly(model)


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

    def __init__(self, strategy: Strategy, embedding_layer: nn.Module | None) -> None:
        super().__init__(write_interval="batch")
        self._strategy = strategy
        self._layer_input: Tensor | None = None
        self._hook = embedding_layer and embedding_layer.register_forward_pre_hook(self._capture)
        self._columns: dict[str, Tensor] = {}
        self._num_rows = 0  # filled so far

    def _capture(self, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        if self._layer_input is None:
            self._layer_input = inputs[0].flatten(1).clone()  # the layer may work in place

    def unhook(self) -> None:
        if self._hook:
            self._hook.remove()

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
        rows = _rows(trainer)
        indices = rows.at(batch_indices)
        outputs = read_outputs(prediction, len(indices))
        if self._hook:
            outputs = outputs._replace(embedding=self._taken_from_layer(len(indices)))
        self._keep(self._reduce(outputs, indices), len(rows))
        _forget_positions(trainer, batch_idx)

    def _keep(self, batch: dict[str, Tensor], most_rows: int) -> None:
        """Writes a batch behind the ones before it.

        A list of small tensors would hold a piece of memory beside each batch's activations, which
        then cannot be used again as a whole.
        """
        if not self._columns:
            self._columns = {
                name: part.new_empty((most_rows, *part.shape[1:])) for name, part in batch.items()
            }
        end = self._num_rows + len(batch["indices"])
        for name, part in batch.items():
            self._columns[name][self._num_rows : end] = part
        self._num_rows = end

    def _taken_from_layer(self, batch_rows: int) -> Tensor:
        found, self._layer_input = self._layer_input, None
        if found is None or len(found) != batch_rows:
            came = "it was not called" if found is None else f"it saw {len(found)} rows"
            raise ValueError(
                f"embedding_layer must see each batch once in prediction, {batch_rows} rows here, "
                f"but {came}; name a layer that the prediction passes through"
            )
        return found

    def _reduce(self, outputs: Outputs, indices: list[int]) -> dict[str, Tensor]:
        probs = outputs.probs
        _check_finite("probabilities", probs, indices)
        if "samples" in self._strategy.needs and (probs.ndim != 3 or probs.shape[1] < 2):
            raise ValueError(
                "this strategy needs posterior samples or ensemble members, probabilities "
                f"(B, K, C) with K above 1, got {tuple(probs.shape)}; set mc_samples above 1 on a "
                "module with dropout, or train an Ensemble"
            )
        columns = {
            "indices": torch.tensor(indices, device=probs.device),
            "predicted": (probs.mean(1) if probs.ndim == 3 else probs).argmax(-1),
        }
        if self._strategy.score is not None:
            columns["scores"] = self._strategy.score(probs)
            _check_finite("scores", columns["scores"], indices)
        elif self._strategy.needs & {"probs", "samples"}:
            columns["probs"] = probs
        if "embeddings" in self._strategy.needs:
            if outputs.embedding is None:
                raise ValueError(
                    "this strategy needs embeddings: name a layer with embedding_layer, whose "
                    "input is taken, or return them from predict_step as "
                    "{'probs': ..., 'embedding': ...}"
                )
            _check_finite("embeddings", outputs.embedding, indices)
            columns["embeddings"] = outputs.embedding
        return columns

    def gathered(self, trainer: L.Trainer, wanted: Tensor) -> PoolOutputs:
        """The rows of all ranks, in ascending order, on the CPU; the same on each of them.

        Args:
            trainer: The one that predicted. Not in a hook of it: a rank without rows has none.
            wanted: Data-set indices that must have come once each, ascending.
        """
        columns = {name: column[: self._num_rows] for name, column in self._columns.items()}
        self._columns.clear()
        if trainer.world_size > 1:
            if not have_met(trainer):
                raise RuntimeError(
                    "the predictions stayed in other processes: use Trainer(strategy='ddp'), not a "
                    "strategy that spawns or forks"
                )
            check_same(trainer, "pool", hashlib.sha256(wanted.numpy().tobytes()).hexdigest())
            columns = _joined(columns, trainer.strategy.root_device)
        columns = {name: column.cpu() for name, column in columns.items()}
        indices = columns.pop("indices")
        if not torch.equal(indices, wanted):  # a copy of every column, for several ranks alone
            order = indices.argsort()
            assert torch.equal(indices[order], wanted), "each candidate must be predicted once"
            columns = {name: column[order] for name, column in columns.items()}
        return PoolOutputs(indices=wanted, **columns)


def _joined(columns: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Each column with the rows of all ranks, in the order of ranks; each must call this."""
    shapes = {name: (column.dtype, column.shape[1:]) for name, column in columns.items()}
    of_ranks: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(of_ranks, shapes)
    joined = {}
    for name, (dtype, shape) in next(filter(None, of_ranks)).items():
        # A rank that got no batch takes part with no rows.
        column = columns.get(name, torch.empty((0, *shape), dtype=dtype))
        joined[name] = torch.cat(gather_all_tensors(column.to(device)))
    return joined


def _rows(trainer: L.Trainer) -> RowIndex:
    """The rows that the data module's predict loader serves, by position."""
    loader: Any = trainer.predict_dataloaders
    assert isinstance(loader.dataset, RowView)
    return loader.dataset.rows


def _forget_positions(trainer: L.Trainer, batch_idx: int) -> None:
    """Lightning keeps the positions of every batch, as Python numbers of forty bytes a row."""
    loader: Any = trainer.predict_dataloaders
    seen = getattr(loader.batch_sampler, "seen_batch_indices", None)
    if seen is not None:
        seen[batch_idx] = []


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
