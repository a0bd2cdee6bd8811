"""Read the pool through ``Trainer.predict``: reduce on the device, gather on rank 0, verify.

Lightning tells a prediction writer the positions of each batch. So the module sees batches just as
the data set gives them, and we still know which row is which, on any number of processes.

Shape suffixes: B batch rows, N candidates, K posterior samples, C classes, D embedding dimensions.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor

from al_lightning.data.datamodule import ActiveDataModule
from al_lightning.data.feature_rows import FeatureRows
from al_lightning.data.lightning_internals import forget_positions
from al_lightning.data.views import RowView
from al_lightning.distributed import (
    check_same,
    gathered_on_first_rank,
    is_first_rank,
    processes_have_met,
)
from al_lightning.prediction.features import LayerInput, find_layer
from al_lightning.prediction.mc_dropout import Masks, sampled_predictor
from al_lightning.prediction.outputs import Outputs
from al_lightning.prediction.tasks import TASKS, Task
from al_lightning.prediction.wrapping import predictor, replaced_step, uncompiled
from al_lightning.strategies import Column, PoolOutputs, Strategy, needs_of


def read_pool(
    trainer: L.Trainer,
    model: L.LightningModule,
    data: ActiveDataModule,
    strategy: Strategy,
    task: Task = TASKS["multiclass"],
    *,
    rows: Tensor | None = None,
    labeled_rows: Tensor | None = None,
    max_validation: int | None = None,
    cycle: int = 1,
    embedding_layer: str | None = None,
    mc_samples: int | None = None,
) -> PoolOutputs:
    """Predict the candidates and keep the columns that ``strategy`` asks for.

    Each rank holds only its share, until the first one gathers all of them.

    Args:
        trainer: Runs the prediction; a callback is added to it for the time of this call.
        model: Any LightningModule, with a ``predict_step`` or a ``forward`` alone; see
            :func:`~al_lightning.prediction.wrapping.step_of`.
        data: Serves the rows.
        strategy: Says which columns to keep.
        task: Reads the predictions.
        rows: Data-set indices to choose from, ascending; the whole pool but for skipped rows when
            not given.
        labeled_rows: Rows that stand for the labeled ones, ascending; all of them when not given.
        max_validation: Read no more validation rows than this.
        cycle: The number of the cycle that asks.
        embedding_layer: Name of a layer of ``model`` whose input is the embedding, instead of one
            that ``predict_step`` returns. Of several calls in a batch the first counts.
        mc_samples: Predict with that many networks that the module's dropout draws; see
            :class:`~al_lightning.prediction.mc_dropout.MCDropout`.

    Returns:
        One row for each candidate, in ascending order of data-set index, on the first rank's
        device; no rows on the other ranks.

    Raises:
        ValueError: when the module's output cannot be read, lacks what the strategy needs, or holds
            NaN or infinity (names data-set indices); when there is no such layer, or no dropout.
    """
    wanted = data.pool.askable_indices if rows is None else rows
    if not strategy.needs:
        return PoolOutputs(wanted, cycle=cycle, **of_data(strategy, data, wanted))
    keep_freed_memory()
    device = trainer.strategy.root_device
    samples = None if strategy.needs == {"embedding"} else mc_samples

    def read(names: Iterable[str], view: RowView) -> dict[str, Tensor]:
        keep = {name: strategy.keep[name] for name in names}
        if isinstance(view.dataset, FeatureRows) and embedding_layer is None:
            return with_features(keep, view)
        return predicted(keep, view)

    def with_features(keep: Mapping[str, Column], view: RowView) -> dict[str, Tensor]:
        others = {name: column for name, column in keep.items() if column != "embedding"}
        columns = predicted(others, view) if others else {}
        if is_first_rank():
            features_ND = cast(FeatureRows, view.dataset).views(view.indices)
            columns |= {name: features_ND.to(device) for name in keep.keys() - others.keys()}
        return columns

    def predicted(keep: Mapping[str, Column], view: RowView) -> dict[str, Tensor]:
        reader = _Reader(keep, strategy.min_samples, view, task, embedding_layer, samples)
        return _read(trainer, model, data, reader)

    of_model = [name for name, column in strategy.keep.items() if column != "group"]
    columns = read(of_model, RowView(data.sets.pool, wanted))

    def add(prefix: str, names: Sequence[str], view: RowView) -> None:
        found = read(names, view)
        for name in set(names) & found.keys():
            _check_size(name, found[name], columns[name])
            columns[f"{prefix}_{name}"] = found[name]

    labeled = data.labeled_indices if labeled_rows is None else labeled_rows
    if strategy.labeled:
        add("labeled", strategy.labeled, RowView(data.sets.pool, labeled))
    columns |= _labels_of(strategy, data, labeled, device)
    held_out = data.validation_rows if strategy.validation else None
    if held_out is not None:
        held_out = RowView(held_out.dataset, held_out.indices[:max_validation])
        if (labels := _classes_in(data, held_out)) is not None:
            add("validation", strategy.validation, held_out)
            columns |= {"validation_labels": torch.as_tensor(labels, device=device)}
    mine = wanted if is_first_rank() else wanted[:0]
    return PoolOutputs(mine, cycle=cycle, **columns, **of_data(strategy, data, mine))


def _labels_of(
    strategy: Strategy, data: ActiveDataModule, rows: Tensor, device: torch.device
) -> dict[str, Tensor]:
    """Return the classes of labeled rows as a column, where the strategy asks for them."""
    if not (strategy.labels and data.num_labeled):
        return {}
    use = "this strategy chooses by the labels of labeled rows, which"
    known = class_numbers(use, data.labels_of(rows.tolist()))
    return {"labeled_labels": torch.tensor(known, device=device)}


def _classes_in(data: ActiveDataModule, view: RowView) -> list[int] | None:
    """Return the classes of validation rows; None where they have no labels."""
    labels = data.labels_in(view)
    use = "this strategy is calibrated on validation rows, whose labels"
    return None if labels is None else class_numbers(use, labels)


def of_data(strategy: Strategy, data: ActiveDataModule, rows: Tensor) -> dict[str, Tensor]:
    """Return the columns that the data knows without any model."""
    names = [name for name, column in strategy.keep.items() if column == "group"]
    return {name: data.groups_N[rows] for name in names}


def keep_freed_memory() -> None:
    """Make glibc's malloc reuse the activations of one batch for the next.

    By default it returns large freed blocks to the system. Then every batch on a CPU faults its
    pages in again, which can take as long as the network. Once a block just under 32 MB was freed,
    malloc keeps blocks up to that size (mallopt(3), dynamic M_MMAP_THRESHOLD). On other systems
    this is an allocation without effect.
    """
    torch.empty(31_000_000, dtype=torch.uint8)


def _read(
    trainer: L.Trainer, model: L.LightningModule, data: ActiveDataModule, reader: "_Reader"
) -> dict[str, Tensor]:
    """Return the columns of the reader's rows on the first rank; nothing on the others."""
    with ExitStack() as stack:
        stack.callback(reader.close)
        trainer.callbacks.append(reader)  # type: ignore[attr-defined]
        stack.callback(trainer.callbacks.remove, reader)  # type: ignore[attr-defined]
        stack.enter_context(data.serving(reader.view.indices, reader.view.dataset))
        trainer.predict(model, datamodule=data, return_predictions=False)
    return reader.gathered(trainer)


class _Reader(BasePredictionWriter):
    """Reduces each batch to the columns that are kept, as it comes."""

    def __init__(
        self,
        keep: Mapping[str, Column],
        min_samples: int,
        view: RowView,
        task: Task,
        embedding_layer: str | None,
        mc_samples: int | None,
    ) -> None:
        super().__init__(write_interval="batch")
        self._keep = {name: (column, needs_of(column)) for name, column in keep.items()}
        self._task = task
        self._min_samples = min_samples
        self.view = view
        self._rows = view.indices
        self._embedding_layer = embedding_layer
        self._mc_samples = mc_samples
        self._layer: LayerInput | None = None
        self._replaced = ExitStack()
        self._columns: dict[str, Tensor] = {}
        self._num_rows = 0  # filled so far

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look for the layers, which Lightning has made by now."""
        _check_served(trainer.predict_dataloaders, self.view)
        enter = self._replaced.enter_context
        if self._embedding_layer is not None:
            self._layer = enter(LayerInput(find_layer(pl_module, self._embedding_layer)))
        step = predictor(pl_module, self._task)
        if self._mc_samples is not None:
            masks = Masks(pl_module, self._mc_samples)
            step = sampled_predictor(pl_module, step, masks)
            if self._task.look is not None:  # once in a run
                self._replaced.callback(masks.warn_of_silent, self._task.look.silent)
        if self._layer or self._mc_samples:
            enter(uncompiled(pl_module))
        enter(replaced_step(pl_module, step))

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
        outputs = self._task.read(prediction, len(rows))
        if self._layer is not None:
            outputs = replace(outputs, embedding=self._layer.take(len(rows), batch))
        columns = {"indices": rows.to(outputs.device), **self._reduced(outputs, rows)}
        self._append(columns, trainer.world_size)
        forget_positions(trainer, batch_idx)

    def _reduced(self, outputs: Outputs, rows: Tensor) -> dict[str, Tensor]:
        if outputs.mask is not None and not outputs.mask.any(1).all():
            empty = rows[~outputs.mask.any(1).cpu()].tolist()
            raise ValueError(
                f"each row must have a part, found {len(empty)} whose mask leaves out all, "
                f"data-set indices {empty[:5]}; leave such rows out of the data"
            )
        _check_finite("predictions", outputs.is_finite, rows)
        if self._min_samples > (outputs.num_samples or 1):
            found = next((t for t in (outputs.probs, outputs.mean) if t is not None), rows)
            raise ValueError(
                "this strategy needs posterior samples or ensemble members, such as probabilities "
                f"(B, K, C) with K above 1, got {tuple(found.shape)}; set mc_samples above 1 on a "
                "module with dropout, or train an Ensemble"
            )
        columns = {}
        for name, (column, needed) in self._keep.items():
            value = outputs.column(column, needed)
            if value is None:
                raise ValueError(
                    f"this strategy needs {LACKING[needed[0]]}, got {sorted(outputs.prediction)}"
                )
            finite_B = value.isfinite()
            _check_finite(name, finite_B.flatten(1).all(1) if value.ndim > 1 else finite_B, rows)
            columns[name] = value
        told = self._task.predicted(outputs)
        return columns if told is None else {**columns, "predicted": told}

    def _append(self, batch: dict[str, Tensor], num_ranks: int) -> None:
        """Write a batch behind the earlier ones, in tensors that have room for this rank's share.

        A list of small tensors would leave a small block between the activations of each two
        batches. Their memory could then not be reused as a whole.
        """
        end = self._num_rows + len(batch["indices"])
        if not self._columns:
            share = len(self._rows) // num_ranks + len(batch["indices"])  # they get whole batches
            room = min(share, len(self._rows))
            self._columns = {
                name: part.new_empty((room, *part.shape[1:])) for name, part in batch.items()
            }
        for name, part in batch.items():
            _check_size(name, part, self._columns[name])
            self._columns[name][self._num_rows : end] = part
        self._num_rows = end

    def gathered(self, trainer: L.Trainer) -> dict[str, Tensor]:
        """Return the rows of all ranks, in ascending order, on the first rank.

        No hook of the Trainer can do it, since a rank without rows calls none.
        """
        columns = {name: column[: self._num_rows] for name, column in self._columns.items()}
        self._columns.clear()
        if trainer.world_size > 1:
            if not processes_have_met():
                raise RuntimeError(
                    "the predictions stayed in other processes: use Trainer(strategy='ddp'), not a "
                    "strategy that spawns or forks"
                )
            check_same(trainer, "pool", self._rows.numpy().tobytes())
            columns = gathered_on_first_rank(columns, trainer.strategy.root_device)
        if not is_first_rank():
            return {}
        indices = columns.pop("indices").cpu()
        if not torch.equal(indices, self._rows):  # a copy of every column, for several ranks alone
            order = indices.argsort()
            assert torch.equal(indices[order], self._rows), "each row must be predicted once"
            columns = {name: column[order.to(column.device)] for name, column in columns.items()}
        return columns


def _check_served(loader: Any, view: RowView) -> None:
    served = getattr(loader, "dataset", None)
    if not (
        isinstance(served, RowView)
        and served.dataset is view.dataset
        and torch.equal(served.indices, view.indices)
    ):
        raise ValueError(
            "predict_dataloader must serve the rows that it is asked for, once and in their order, "
            f"found {type(loader).__name__} of another data set; return "
            "super().predict_dataloader(), or do not override it"
        )


LACKING = {
    "flips": "predictions of classes, which flip or not under dropout: set mc_samples above 1",
    "embedding": "embeddings: name a layer with embedding_layer, whose input is taken, or return "
    "them from predict_step as {'probs': ..., 'embedding': ...}",
    "score": "the module's own score of each row: return {'score': (B,)} from predict_step",
    "mean": "predicted numbers: return them from predict_step, as task='regression' says",
    "probs": "predicted probabilities: return logits from predict_step, as the task says",
    "distributions": "predicted probabilities: return logits from predict_step, as the task says",
}
"""Outputs that may be missing, with the cure."""


def class_numbers(use: str, labels: Sequence[Any]) -> list[int]:
    """Return labels as whole numbers; raise ValueError for others, where ``use`` begins it."""
    is_whole = (isinstance(one, int | float) and float(one).is_integer() for one in labels)
    strange = [label for label, known in zip(labels, is_whole, strict=True) if not known]
    if strange:
        raise ValueError(
            f"{use} must be classes as whole numbers, found {strange[0]!r:.80}; "
            "number the classes, or do without"
        )
    return [int(label) for label in labels]


def _check_size(name: str, part: Tensor, others: Tensor) -> None:
    if part.shape[1:] != others.shape[1:]:
        raise ValueError(
            f"the {name} of all rows must be of one size, found {tuple(part.shape[1:])} beside "
            f"{tuple(others.shape[1:])}, as where each batch is padded to its longest row; for an "
            "embedding name a layer behind the pooling"
        )


def _check_finite(what: str, finite_B: Tensor, rows: Tensor) -> None:
    if not finite_B.all():
        bad = rows[~finite_B.cpu()].tolist()
        raise ValueError(
            f"the {what} of {len(bad)} rows of this batch are NaN or infinite, data-set indices "
            f"{bad[:5]}; nothing was asked or labeled; look for a diverged training or bad inputs"
        )
