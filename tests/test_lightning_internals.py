"""Names of Lightning that are not in its documentation: it has them, and they mean what we say."""

from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import BasePredictionWriter, Callback
from torch.utils.data import DataLoader
from toys import QUIET, Plain, points, points_data

from al_lightning.data import lightning_internals
from al_lightning.data.lightning_internals import (
    PREEMPTED,
    BetweenBatches,
    epoch_to_begin_with,
    forget_positions,
    logs_hyperparameters,
)
from al_lightning.training.trainers import quiet


def test_each_name_has_a_test_here():
    own = {
        name
        for name, value in vars(lightning_internals).items()
        if (isinstance(value, str) and name.isupper())
        or getattr(value, "__module__", None) == lightning_internals.__name__
    }
    functions = {"forget_positions", "epoch_to_begin_with", "logs_hyperparameters"}
    assert own == {"PREEMPTED", "BetweenBatches", *functions}


class Epochs(Callback):
    """Notes each epoch that is trained."""

    def __init__(self):
        self.trained = []

    def on_train_epoch_start(self, trainer, pl_module):
        self.trained.append(trainer.current_epoch)


class Asks(Plain):
    """Its loader asks which epoch it begins with, as our data module does."""

    def __init__(self):
        super().__init__()
        self.told = []

    def train_dataloader(self):
        self.told.append(epoch_to_begin_with(self.trainer))
        return DataLoader(points(32), batch_size=16)


def fit(model, folder=None, epochs=3, ckpt_path=None, **data):
    """The trainer, and the epochs that it trained."""
    seen = Epochs()
    trainer = L.Trainer(max_epochs=epochs, default_root_dir=folder, callbacks=[seen], **QUIET)
    with quiet(validates=False):
        trainer.fit(model, ckpt_path=ckpt_path, **data)
    return trainer, seen.trained


ON_SLURM = {
    "SLURM_JOB_NAME": "train",
    "SLURM_NTASKS": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
    "SLURM_NODELIST": "localhost",
}


def test_a_fit_loads_what_a_preempted_job_saved_in_the_trainers_folder(tmp_path, monkeypatch):
    """``PREEMPTED``: Lightning saves under such a name, and loads it though nobody asks for it."""
    for name, value in ON_SLURM.items():
        monkeypatch.setenv(name, value)
    trainer, trained = fit(Plain(), tmp_path, datamodule=points_data())
    assert trained == [0, 1, 2]
    saved = Path(trainer._checkpoint_connector.hpc_save_path(tmp_path))
    trainer.save_checkpoint(saved)
    assert list(tmp_path.glob(PREEMPTED)) == [saved]
    assert fit(Plain(), tmp_path, datamodule=points_data())[1] == []  # all three epochs were done
    saved.rename(tmp_path / "another.ckpt")
    assert fit(Plain(), tmp_path, datamodule=points_data())[1] == [0, 1, 2]


class Forgets(BasePredictionWriter):
    """Notes how many positions Lightning holds after each batch, and then forgets that batch's."""

    def __init__(self, forgets):
        super().__init__("batch")
        self.forgets, self.given, self.held = forgets, [], []

    def write_on_batch_end(
        self, trainer, pl_module, prediction, batch_indices, batch, batch_idx, dataloader_idx
    ):
        self.given += batch_indices
        if self.forgets:
            forget_positions(trainer, batch_idx)
        seen = trainer.predict_dataloaders.batch_sampler.seen_batch_indices
        self.held.append(sum(map(len, seen)))


def predicted_by(writer):
    with quiet(validates=False):
        trainer = L.Trainer(callbacks=[writer], **QUIET)
        trainer.predict(Plain(), DataLoader(torch.randn(20, 4), batch_size=8))
    return writer


def test_the_positions_that_lightning_holds_are_forgotten_batch_by_batch():
    """``forget_positions``: without it they are held until the end, and all are still given."""
    kept, forgot = predicted_by(Forgets(False)), predicted_by(Forgets(True))
    assert kept.given == forgot.given == list(range(20))
    assert kept.held[-1] == 20
    assert max(forgot.held) < 20
    assert forgot.held[-1] == 0


def test_the_epoch_that_a_fit_begins_with_is_known_when_its_loader_is_made(tmp_path):
    """``epoch_to_begin_with``: 0, or the first that the checkpoint has not finished."""
    assert epoch_to_begin_with(None) == 0
    whole = Asks()
    trainer, trained = fit(whole, tmp_path, epochs=2)
    assert (whole.told, trained) == ([0], [0, 1])
    trainer.save_checkpoint(tmp_path / "after_two.ckpt")
    goes_on = Asks()
    _, trained = fit(goes_on, tmp_path, epochs=4, ckpt_path=tmp_path / "after_two.ckpt")
    assert (goes_on.told, trained) == ([2], [2, 3])


def test_a_callback_between_batches_costs_no_call_in_a_batch():
    called = []

    class Notes(BetweenBatches):
        def __getattribute__(self, name):
            value = super().__getattribute__(name)
            if name.startswith("on_") and callable(value):
                called.append(name)
            return value

    trainer = L.Trainer(max_epochs=2, callbacks=[Notes()], **QUIET)
    with quiet(validates=False):
        trainer.fit(Plain(), DataLoader(points(32), batch_size=8))
    assert called.count("on_train_epoch_start") == 2
    per_batch = {name for name in called if called.count(name) >= 8}
    assert per_batch == set()


def test_a_data_module_says_whether_its_hyperparameters_are_logged():
    class Saves(L.LightningDataModule):
        def __init__(self, logger, size=3):
            super().__init__()
            self.save_hyperparameters("size", logger=logger)

    assert logs_hyperparameters(Saves(True))
    assert not logs_hyperparameters(Saves(False))
