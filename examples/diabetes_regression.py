"""Numbers with their uncertainty: how far will diabetes have gone in a year?

    python examples/diabetes_regression.py
    python examples/diabetes_regression.py --strategy random --run_dir runs/diabetes_random

The module predicts a mean and a variance; MC dropout samples both. The data come with scikit-learn.
"""

from functools import partial

import lightning as L
import torch
from jsonargparse import CLI
from sklearn.datasets import load_diabetes
from torch import nn
from torch.utils.data import TensorDataset
from torchmetrics import MeanAbsoluteError

from al_lightning import ActiveDataModule, ActiveLearningLoop


def patients(seed=0):
    """Return rows to learn from and rows to test on; a label counts standard deviations."""
    x, y = (torch.tensor(table, dtype=torch.float32) for table in load_diabetes(return_X_y=True))
    x, y = x / x.std(0), (y - y.mean()) / y.std()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    return [TensorDataset(x[rows], y[rows]) for rows in (order[:300], order[300:])]


class LitNumbers(L.LightningModule):
    def __init__(self):
        super().__init__()
        hidden = nn.Linear(10, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 64), nn.ReLU()
        self.net = nn.Sequential(*hidden, nn.Dropout(0.1), nn.Linear(64, 2))
        self.error = MeanAbsoluteError()

    def forward(self, x):
        mean, raw = self.net(x).unbind(-1)
        return mean, nn.functional.softplus(raw) + 1e-3  # a variance is above 0

    def training_step(self, batch, batch_idx):
        mean, variance = self(batch[0])
        loss = nn.functional.gaussian_nll_loss(mean, batch[1], variance)
        self.log("train_loss", loss, on_epoch=True)
        return loss

    def test_step(self, batch, batch_idx):
        self.error(self(batch[0])[0], batch[1])
        self.log("test_mae", self.error)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=3e-3, weight_decay=0.1)


def main(strategy: str = "gaussian_bald", num_cycles: int = 5, run_dir: str = "runs/diabetes"):
    L.seed_everything(42)
    train_set, test_set = patients()
    data = ActiveDataModule(train_set, test_set=test_set, initial_labeled_size=30, batch_size=16)
    trainer = partial(L.Trainer, max_epochs=30, enable_progress_bar=False)
    options = {"task": "regression", "strategy": strategy, "mc_samples": 20, "acquisition_size": 15}
    options |= {"num_cycles": num_cycles, "run_dir": run_dir}
    ActiveLearningLoop(LitNumbers(), data, trainer=trainer, **options).run()


if __name__ == "__main__":
    CLI(main)
