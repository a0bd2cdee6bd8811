"""A fit that was interrupted goes on from Lightning's last checkpoint, and ends as it would have.

What Lightning's checkpoint does not carry is added to it or made needless: the random state, since
every epoch is seeded anew; that an early stop was due; and the metrics of the last epoch, for a fit
that was interrupted after it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from al_lightning.datamodule import ActiveDataModule
from al_lightning.randomness import derive_seed, seed_all
from al_lightning.ranks import check_same

ENTRY = "al_lightning"
"""Our part of Lightning's checkpoint."""
PREEMPTED = "hpc_ckpt_*.ckpt"
"""What Lightning saves when SLURM takes the machine away."""
LAST = ("last*.ckpt", PREEMPTED)


class CycleFit(Callback):
    """Takes part in the fit of one cycle.

    Args:
        data: Whose split the ranks must share.
        history: Checksum of all that was decided before the fit, kept in its checkpoints.
        seed: What each epoch's randomness derives from.
        purpose: And what else.
    """

    def __init__(
        self, data: ActiveDataModule, history: str, seed: int, *purpose: str | int
    ) -> None:
        self._data = data
        self._history = history
        self._seed = seed
        self._purpose = purpose
        self._earlier_metrics: dict[str, float] = {}

    def metrics(self, trainer: L.Trainer) -> dict[str, float]:
        """What the fit has logged so far, with what it had logged before it was interrupted."""
        return {**self._earlier_metrics, **numbers(trainer.callback_metrics)}

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        split = self._data.state_dict()
        labeled = split.pop("labeled_indices").tolist()
        check_same(trainer, "split", (labeled, sorted(split.items())))

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        seed_all(derive_seed(self._seed, *self._purpose, trainer.current_epoch))

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        epoch: Any = trainer.fit_loop.epoch_progress.current
        is_trained = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        checkpoint[ENTRY] = {
            "history": self._history,
            "metrics": self.metrics(trainer),
            "should_stop": trainer.should_stop,
            "epochs": epoch.ready,
            "is_between": is_trained and epoch.processed < epoch.ready,
        }

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._earlier_metrics = checkpoint[ENTRY]["metrics"]
        trainer.should_stop = checkpoint[ENTRY]["should_stop"]


def last_checkpoint(trainer: L.Trainer, history: str, folder: Path) -> Path | None:
    """The furthest checkpoint of an interrupted fit; None when it must begin anew.

    Args:
        trainer: The one that is to go on; the folders of its ModelCheckpoints are searched too.
        history: As the fit was given it; checkpoints of another one are passed over.
        folder: Of the cycle.

    Warns:
        UserWarning: for a file that cannot be read, with the reason.
    """
    dirpaths = [getattr(callback, "dirpath", None) for callback in trainer.checkpoint_callbacks]
    folders = [folder, *(Path(dirpath) for dirpath in dirpaths if dirpath)]
    steps = {}
    for path in {path for one in folders for name in LAST for path in one.rglob(name)}:
        try:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file can raise anything in torch.load
            rank_zero_warn(f"{path} cannot be read, the fit goes on without it: {error}")
            continue
        if _can_go_on(checkpoint.get(ENTRY), history, trainer.max_epochs):
            steps[path] = (checkpoint["global_step"], str(path))
    return max(steps, key=lambda path: steps[path], default=None)


def _can_go_on(entry: Mapping[str, Any] | None, history: str, max_epochs: int | None) -> bool:
    if entry is None or entry["history"] != history:
        return False
    # After the last epoch's batches and before its end, its training metrics are in no checkpoint.
    is_last = entry["should_stop"] or entry["epochs"] == max_epochs
    return not (entry["is_between"] and is_last)


def forget_preemption(folder: Path) -> None:
    """Takes away what Lightning saved in a cycle for SLURM, once the fit is done.

    Lightning would load it into whatever is tested or predicts next.
    """
    for path in folder.glob(PREEMPTED):
        path.unlink(missing_ok=True)


def numbers(metrics: Mapping[str, Tensor]) -> dict[str, float]:
    """Plain numbers, without the ``_step`` and ``_epoch`` twins that Lightning adds to a name."""
    return {
        name: float(value)
        for name, value in metrics.items()
        if name.removesuffix("_step").removesuffix("_epoch") not in metrics.keys() - {name}
    }
