"""Weights of a cycle, and fits that go on from Lightning's last checkpoint to the same end.

Some things are not in Lightning's checkpoint. The random state is not needed, since every epoch is
seeded anew. We add whether an early stop was due, the metrics of the last epoch, for a fit that was
interrupted after it, and what the module keeps outside of its ``state_dict``.
"""

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils._pytree import tree_map_only

from al_lightning.data.datamodule import ActiveDataModule
from al_lightning.data.lightning_internals import PREEMPTED, BetweenBatches, WrappingCheckpointIO
from al_lightning.distributed import check_same, is_first_rank
from al_lightning.run.folder import WEIGHTS, checksum, sync
from al_lightning.run.records import listed
from al_lightning.run.weights import save_state
from al_lightning.seeds import derive_seed, seed_all
from al_lightning.training.as_given import AsGiven

ENTRY = "al_lightning"
"""The key of our part of Lightning's checkpoint."""
HYPER_PARAMETERS = ("hyper_parameters", "datamodule_hyper_parameters")


class CycleFit(BetweenBatches):
    """Checks that ranks agree, seeds each epoch, and adds our part to the checkpoints of a fit.

    Args:
        given: The module as it was; its changes are kept in the checkpoints too.
        data: Its split must be the same on all ranks.
        history: Checksum of all decisions before the fit, kept in its checkpoints.
        goes_on: The checkpoint that the fit goes on from.
        seed: Each epoch's randomness derives from it.
        purpose: Further parts of the seed.
    """

    def __init__(
        self,
        given: AsGiven,
        data: ActiveDataModule,
        history: str,
        goes_on: Path | None,
        seed: int,
        *purpose: str | int,
    ) -> None:
        self._given = given
        self._data = data
        self._history = history
        self._goes_on = goes_on
        self._seed = seed
        self._purpose = purpose
        self._is_inside_epoch = False
        self._earlier_metrics: dict[str, float] = {}
        self._by_epoch: dict[int, dict[str, float]] = {}
        self._changes: Mapping[str, Any] | None = None

    def metrics(self, trainer: L.Trainer) -> dict[str, float]:
        """Return the metrics that the fit has logged, also before it was interrupted."""
        return {**self._earlier_metrics, **numbers(trainer.callback_metrics)}

    def best(self, trainer: L.Trainer) -> tuple[dict[str, float], dict[str, Any]]:
        """Return the metrics of the best epoch, and its checkpoint without optimizers and loops.

        Raises:
            ValueError: when the fit saved none.
        """
        callback = best_callback(trainer)
        assert callback is not None
        monitor, score = callback.monitor, callback.best_model_score
        if not callback.best_model_path or score is None:
            raise ValueError(
                f'ckpt_path="best" needs a checkpoint in each fit, found none for {monitor!r}; let '
                "the fit be long enough to log it"
            )
        checkpoint = _read(Path(callback.best_model_path))
        metrics = self._by_epoch[checkpoint["epoch"]]
        # It may have been better inside the epoch than at its end. Lightning has infinity for NaN.
        if monitor in metrics and score.isfinite():
            metrics = {**metrics, monitor: float(score)}
        of_fit = ("optimizer_states", "lr_schedulers", "loops", "callbacks")
        checkpoint = {name: value for name, value in checkpoint.items() if name not in of_fit}
        checkpoint[ENTRY] = {"changes": changes_in(checkpoint)}
        name = type(self._data).__qualname__
        if name in checkpoint:  # the data module goes on from now
            checkpoint[name] = self._data.state_dict()
        return metrics, checkpoint

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit":
            split = self._data.state_dict()
            labeled = split.pop("labeled_indices").tolist()
            check_same(trainer, "split", (labeled, sorted(split.items())))
            check_same(trainer, "checkpoint to go on from", str(self._goes_on))

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Now that the optimizers are made, as they were made when the fit began.
        if self._changes is not None:
            self._given.apply(self._changes)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Of the epoch before, with what other hooks have logged at its end.
        self._by_epoch[trainer.current_epoch - 1] = self.metrics(trainer)
        self._is_inside_epoch = True
        seed_all(derive_seed(self._seed, *self._purpose, trainer.current_epoch))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Lightning calls the hooks of all callbacks that save checkpoints after this one.
        self._is_inside_epoch = False
        self._by_epoch[trainer.current_epoch] = self.metrics(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._by_epoch:
            self._by_epoch[max(self._by_epoch)] = self.metrics(trainer)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint[ENTRY] = {
            **checkpoint.get(ENTRY, {}),
            "history": self._history,
            "metrics": self.metrics(trainer),
            "by_epoch": self._by_epoch,
            "should_stop": trainer.should_stop,
            "is_after_epoch": not self._is_inside_epoch,
        }

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._earlier_metrics = checkpoint[ENTRY]["metrics"]
        self._by_epoch = dict(checkpoint[ENTRY].get("by_epoch", {}))
        trainer.should_stop = checkpoint[ENTRY]["should_stop"]
        self._changes = checkpoint[ENTRY].get("changes")


def save_weights(
    trainer: L.Trainer, folder: Path, checkpoint: dict[str, Any] | None = None
) -> str | None:
    """Save the weights of the fitted module, in a file that can be read without running code.

    Args:
        trainer: That fitted it.
        folder: Of the cycle.
        checkpoint: What to save, instead of the module as it is now.

    Returns:
        The checksum of the file, on the rank that wrote it.
    """
    path = folder / WEIGHTS
    if checkpoint is None:
        trainer.save_checkpoint(path, weights_only=True)
    if not is_first_rank():
        return None
    if checkpoint is not None:
        save_state(checkpoint, path)
    sync(path)
    return checksum(path)


def changes_in(checkpoint: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return what a checkpoint holds of :meth:`AsGiven.changes`; None in one of others."""
    changes: Mapping[str, Any] | None = checkpoint.get(ENTRY, {}).get("changes")
    return changes


def check_keeps_best(trainer: L.Trainer) -> None:
    """Raise ValueError unless a Trainer keeps the best weights of a fit."""
    if best_callback(trainer) is None:
        found = [
            f"ModelCheckpoint(monitor={one.monitor!r}, save_top_k={one.save_top_k})"
            for one in trainer.checkpoint_callbacks
            if isinstance(one, ModelCheckpoint)
        ]
        raise ValueError(
            'ckpt_path="best" needs a callback ModelCheckpoint(monitor="val_loss"), or another '
            f"metric that the module logs, found {listed(found) or 'no ModelCheckpoint'}; add it "
            "to the Trainer's callbacks"
        )


def best_callback(trainer: L.Trainer) -> ModelCheckpoint | None:
    """Return the first callback that keeps the best weights, as Lightning's own "best" does."""
    found = [one for one in trainer.checkpoint_callbacks if isinstance(one, ModelCheckpoint)]
    return next((one for one in found if one.monitor is not None and one.save_top_k != 0), None)


def last_checkpoint(
    trainer: L.Trainer, history: str, folder: Path, *, best: bool = False
) -> Path | None:
    """Find the checkpoint from which an interrupted fit goes on; None when it must begin anew.

    It is the last checkpoint after an epoch: from there a fit ends as it would have. From inside an
    epoch, Lightning would serve the first rows of the epoch again. Such a checkpoint is used only
    when SLURM took the machine away and there is no other.

    Args:
        trainer: The Trainer that goes on; the folders of its ModelCheckpoints are searched too.
        history: The checksum that the fit was given; checkpoints with another one are passed over.
        folder: The folder of the cycle.
        best: The fit must know the best weights of its earlier epochs, which are in other files.

    Warns:
        UserWarning: for a file that cannot be used, with the reason.
    """
    dirpaths = [getattr(callback, "dirpath", None) for callback in trainer.checkpoint_callbacks]
    folders = [folder, *(Path(dirpath) for dirpath in dirpaths if dirpath)]
    exact, approximate = [], []
    for path in {path for one in folders for path in _checkpoints(one)}:
        try:
            checkpoint = _read(path)
        except Exception as error:  # a damaged file can raise anything in torch.load
            reason = f"{type(error).__name__}: {error}"
            rank_zero_warn(f"{path} cannot be read, the fit goes on without it: {reason}")
            continue
        entry = checkpoint.get(ENTRY)
        if entry is None or entry.get("history") != history:
            continue
        if best and not _has_best(checkpoint, folders):
            rank_zero_warn(
                f"{path} names the best weights so far in a folder that is no more the run's; the "
                "fit goes on without it"
            )
            continue
        if entry["is_after_epoch"]:
            exact.append((checkpoint["global_step"], path))
        elif path.match(PREEMPTED):
            approximate.append((checkpoint["global_step"], path))
        else:
            rank_zero_warn(
                f"{path} was saved inside an epoch, from where a fit cannot go on to the same end; "
                "it goes on without it; use ModelCheckpoint(save_on_train_epoch_end=True)"
            )
    found = exact or approximate
    return max(found)[1] if found else None


def _has_best(checkpoint: Mapping[str, Any], folders: Sequence[Path]) -> bool:
    """Tell whether the best weights that callbacks know of are there, in one of these folders."""
    states = [one for one in checkpoint.get("callbacks", {}).values() if isinstance(one, Mapping)]
    paths = [Path(one["best_model_path"]) for one in states if one.get("best_model_path")]
    inside = [any(path.is_relative_to(one) for one in folders) for path in paths]
    return all(inside) and all(path.exists() for path in paths)


def _checkpoints(folder: Path) -> list[Path]:
    try:
        return [path for name in ("last*.ckpt", PREEMPTED) for path in folder.rglob(name)]
    except FileNotFoundError:  # another rank found none and has removed what it begins anew
        return []


def _read(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as file:
        damaged = file.testzip()  # torch.load does not look at the sums
    if damaged is not None:
        raise ValueError(f"the sum of {damaged} in it is wrong")
    checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return checkpoint


def check_root(trainer: L.Trainer, folder: Path) -> None:
    """Check that Lightning will load no SLURM checkpoint but the cycle's own.

    Raises:
        ValueError: when there is one in the ``default_root_dir`` that the user has set.
    """
    root = Path(trainer.default_root_dir)
    if root != folder and (found := sorted(root.glob(PREEMPTED))):
        raise ValueError(
            f"Lightning would load {found[0]} before every fit, test and prediction; leave "
            "default_root_dir to the loop, which gives each cycle its own, and remove the file"
        )


def forget_preemption(folder: Path) -> None:
    """Delete the checkpoints that Lightning saved for SLURM in a cycle, once the fit is done.

    Lightning would load them into the next test or prediction.
    """
    for path in folder.glob(PREEMPTED):
        path.unlink(missing_ok=True)


class _Ours(WrappingCheckpointIO):
    """Writes checkpoints with our part, and without what would have to be unpickled."""

    def __init__(self, checkpoint_io: CheckpointIO, given: AsGiven) -> None:
        super().__init__(checkpoint_io)
        self._given = given

    def save_checkpoint(self, checkpoint: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        for key in HYPER_PARAMETERS:
            if key in checkpoint:
                checkpoint[key] = {n: v for n, v in checkpoint[key].items() if is_loadable(v)}
        _check_loadable(checkpoint)
        checkpoint.setdefault(ENTRY, {})["changes"] = self._given.changes()
        super().save_checkpoint(checkpoint, *args, **kwargs)


def keep_whole(trainer: L.Trainer, given: AsGiven) -> None:
    """Make the Trainer's checkpoints such that they hold all, and that no code runs to read them.

    Args:
        trainer: Of one fit.
        given: The module as it was when the fit began.
    """
    trainer.strategy.checkpoint_io = _Ours(trainer.strategy.checkpoint_io, given)


def _check_loadable(checkpoint: Mapping[str, Any]) -> None:
    """Raise ValueError for a part of a checkpoint that cannot be read without running code."""
    for key, value in checkpoint.items():
        # Tensors can be read; they are large.
        small = tree_map_only(Tensor, lambda tensor: None, value)
        inner = small if isinstance(small, Mapping) else {}
        if not is_loadable(small):
            names = [f"[{name!r}]" for name, one in inner.items() if not is_loadable(one)]
            found = f"{key!r}" + (f"{names[0]}" if names else f" ({type(value).__name__})")
            raise ValueError(
                "what a checkpoint holds must be tensors and plain Python values, or a run could "
                f"not be resumed, found {found} that is not; convert it in on_save_checkpoint or "
                "state_dict, a number of numpy by float(...), and build it again when it is loaded"
            )


def is_loadable(value: Any) -> bool:
    """Tell whether a value in a checkpoint comes back under ``weights_only``; a class does not."""
    content = io.BytesIO()
    try:
        torch.save(value, content)
        content.seek(0)
        torch.load(content, weights_only=True)
    except Exception:  # what cannot be pickled raises anything
        return False
    return True


def numbers(metrics: Mapping[str, Tensor]) -> dict[str, float]:
    """Return plain numbers, without the ``_step`` and ``_epoch`` twins that Lightning adds."""
    return {
        name: float(value)
        for name, value in metrics.items()
        if name.removesuffix("_step").removesuffix("_epoch") not in metrics.keys() - {name}
    }
