"""Run two cycles with Weights & Biases (offline) and MLflow (a local file), and read them back.

``pip install wandb mlflow`` into an environment of its own, then
``python benchmarks/other_loggers.py``. It prints a line for each logger.
"""

import json
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import MLFlowLogger, WandbLogger
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from al_lightning import ActiveDataModule, ActiveLearningLoop


class Net(L.LightningModule):
    """A linear network on small images."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, 3)."""
        logits: Tensor = self.net(x)
        return logits

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        return loss

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test_acc", (self(batch[0]).argmax(-1) == batch[1]).float().mean())

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return torch.optim.Adam(self.parameters(), 1e-2)


def run(logger: Any) -> list[Any]:
    """Return the results of two cycles on images of noise."""
    x = torch.rand(160, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = (x.flatten(1)[:, :3]).argmax(1)
    data = ActiveDataModule(
        TensorDataset(x[:120], y[:120]),
        test_set=TensorDataset(x[120:], y[120:]),
        initial_labeled_size=20,
        batch_size=8,
    )
    how = {"max_epochs": 2, "accelerator": "cpu", "enable_progress_bar": False}
    trainer = partial(L.Trainer, logger=logger, log_every_n_steps=1, **how)
    return ActiveLearningLoop(
        Net(), data, trainer=trainer, strategy="margin", acquisition_size=15, num_cycles=2
    ).run()


def mlflow(folder: Path) -> str:
    logger = MLFlowLogger("active", tracking_uri=f"sqlite:///{folder}/mlflow.db")
    results = run(logger)
    history = logger.experiment.get_metric_history(logger.run_id, "active/test_acc")
    found = [(point.step, point.value) for point in history]
    assert found == [(r.num_labeled, r.metrics["test_acc"]) for r in results], found
    steps = [p.step for p in logger.experiment.get_metric_history(logger.run_id, "train_loss_step")]
    assert steps == sorted(set(steps)), steps
    files = [one.path for one in logger.experiment.list_artifacts(logger.run_id, "active")]
    return f"{len(found)} points by labels, {len(steps)} steps, artifacts {sorted(files)}"


def wandb(folder: Path) -> str:
    logger = WandbLogger(project="active", save_dir=folder, offline=True)
    results = run(logger)
    for result in results:
        assert logger.experiment.summary is not None, result
    summary = dict(logger.experiment.summary)
    assert summary["active/test_acc"] == results[-1].metrics["test_acc"]
    assert summary["active/num_labeled"] == results[-1].num_labeled
    media = sorted(
        path.name.partition("_")[0] + path.suffix
        for path in Path(logger.experiment.dir).rglob("media/**/*")
        if path.is_file()
    )
    logger.experiment.finish()
    return f"summary {json.dumps(summary['active/test_acc'])}, media {media}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        for name, check in {"MLflow": mlflow, "Weights & Biases": wandb}.items():
            print(f"{name}: {check(Path(place))}")
