"""Names of Lightning that are not in its documentation, all in this place, each with a test."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.io.wrapper import _WrappingCheckpointIO as WrappingCheckpointIO

__all__ = [
    "PREEMPTED",
    "BetweenBatches",
    "WrappingCheckpointIO",
    "epoch_to_begin_with",
    "forget_positions",
    "logs_hyperparameters",
]

PREEMPTED = "hpc_ckpt_*.ckpt"
"""Files that Lightning saves in ``default_root_dir`` when SLURM takes the machine away, and loads
before any fit, test or prediction with that folder."""


class BetweenBatches(Callback):
    """Does nothing in a batch; a base of callbacks.

    Lightning passes over a hook that cannot be called. It takes some microseconds for one that
    does nothing, six times a batch.
    """

    on_train_batch_start = on_train_batch_end = on_before_zero_grad = None  # type: ignore[assignment]
    on_before_backward = on_after_backward = on_before_optimizer_step = None  # type: ignore[assignment]


def forget_positions(trainer: L.Trainer, batch_idx: int) -> None:
    """Drop the positions of a batch's rows once they were read.

    Lightning keeps those of every batch, as Python numbers of forty bytes a row.
    """
    loader: Any = trainer.predict_dataloaders
    seen = getattr(loader.batch_sampler, "seen_batch_indices", None)
    if seen is not None:
        seen[batch_idx] = []


def epoch_to_begin_with(trainer: L.Trainer | None) -> int:
    """Return the epoch that a fit begins with; not 0 where it goes on from a checkpoint.

    Loader workers start on it before Lightning has told the sampler. It is not
    ``trainer.current_epoch``, which is one less where a fit goes on after an epoch.
    """
    if trainer is None:
        return 0
    progress: Any = trainer.fit_loop.epoch_progress.current
    processed: int = progress.processed
    return processed


def logs_hyperparameters(datamodule: L.LightningDataModule) -> bool:
    """Tell whether a data module's hyperparameters go to loggers, as it said when it saved them."""
    return datamodule._log_hyperparams
