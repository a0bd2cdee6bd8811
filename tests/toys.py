"""A small data set and modules that know nothing of active learning, for tests."""

from functools import partial

import lightning as L
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

from al_lightning import ActiveDataModule, ActiveLearningLoop
from al_lightning.run.journal import read_records

QUIET = {"enable_progress_bar": False, "enable_checkpointing": False, "logger": False}
TRAINER = partial(L.Trainer, max_epochs=2, **QUIET)


def points(num_rows: int, seed: int = 0) -> TensorDataset:
    """Three classes in the plane, cut by two lines."""
    x = torch.randn(num_rows, 4, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long())


def points_data(num_rows: int = 120, **arguments) -> ActiveDataModule:
    arguments = {"initial_labeled_size": 20, "batch_size": 16, **arguments}
    arguments = {"test_set": points(50, seed=1), **arguments}
    return ActiveDataModule(points(num_rows), **arguments)


class Plain(L.LightningModule):
    """As a user would have it: ``forward`` gives logits, no ``predict_step``."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        return loss

    def test_step(self, batch, batch_idx):
        x, y = batch
        self.log("test_acc", (self(x).argmax(-1) == y).float().mean(), batch_size=len(y))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


class Predicting(Plain):
    """Its ``predict_step`` returns whatever ``make`` makes of the logits."""

    def __init__(self, make) -> None:
        super().__init__()
        self.make = make

    def predict_step(self, batch, batch_idx):
        return self.make(self(batch[0]))


def loop_of(model=None, data=None, **arguments):
    arguments = {"trainer": TRAINER, "acquisition_size": 15, "num_cycles": 3, **arguments}
    model = Plain() if model is None else model
    return ActiveLearningLoop(model, data or points_data(), monitors=[], **arguments)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def asked(results):
    return [result.query and result.query.indices for result in results]


def events(run_dir):
    return [(r["event"], r.get("cycle")) for r in read_records(run_dir / "journal.jsonl")]


def says_zero(query):
    """An oracle to name on a command line: every row is of class 0."""
    return [0] * len(query.indices)
