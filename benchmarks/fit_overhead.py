"""Time a project's fit with and without us, on the same labeled rows, in turn.

    python benchmarks/fit_overhead.py [--rows 10000000]

Without us: ``Trainer.fit`` with the project's data module over ``Subset(rows, labeled)``. With us:
the fit of ``ActiveLearningLoop`` over ``ActiveDataModule.from_datamodule`` of the same project. The
last line is an epoch of the loaders alone, at that number of labeled rows.
"""

import argparse
import statistics
import time
from functools import partial
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from al_lightning import ActiveDataModule, ActiveLearningLoop

QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
}


class Project(L.LightningDataModule):
    """Serves rows in batches of 64."""

    def __init__(self, rows: Dataset[Any]) -> None:
        super().__init__()
        self.rows = rows

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.rows, batch_size=64, shuffle=True)


class Net(L.LightningModule):
    """A small network, so that all else weighs much."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, 10)."""
        logits: Tensor = self.net(x)
        return logits

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 1e-2)


def fit_without(rows: Dataset[Any], labeled: Tensor) -> float:
    datamodule = Project(Subset(rows, labeled.tolist()))
    trainer = L.Trainer(max_epochs=3, **QUIET)
    begin = time.perf_counter()
    trainer.fit(Net(), datamodule=datamodule)
    return time.perf_counter() - begin


def fit_with(rows: Dataset[Any], num: int) -> tuple[float, Tensor]:
    data = ActiveDataModule.from_datamodule(Project(rows), initial_labeled_size=num)
    trainer = partial(L.Trainer, max_epochs=3, **QUIET)
    loop = ActiveLearningLoop(Net(), data, trainer=trainer, strategy="random", num_cycles=1)
    (result,) = loop.run()
    return result.seconds["fit"], data.labeled_indices


def epoch(loader: DataLoader[Any]) -> float:
    begin = time.perf_counter()
    for _ in loader:
        pass
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_000_000)
    given = parser.parse_args()
    x = torch.rand(20_000, 1, 28, 28)
    rows = TensorDataset(x, torch.randint(10, (len(x),)))
    for num in (500, 10_000):
        pairs = []
        for _ in range(7):
            ours, labeled = fit_with(rows, num)
            pairs.append((fit_without(rows, labeled), ours))
        ratios = sorted(ours / plain for plain, ours in pairs)
        plain, ours = (statistics.median(times) for times in zip(*pairs, strict=True))
        print(
            f"fit on {num} rows, 3 epochs: {plain:.2f} s without, {ours:.2f} s with, ratio "
            f"{statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})",
            flush=True,
        )
    many = TensorDataset(torch.zeros(given.rows, 1), torch.arange(given.rows) % 2)
    labeled = torch.arange(given.rows - 1)
    data = ActiveDataModule(many, initial_indices=labeled, batch_size=1024)
    plain_loader = DataLoader(Subset(many, labeled.tolist()), batch_size=1024, shuffle=True)
    times = [(epoch(plain_loader), epoch(data.train_dataloader())) for _ in range(2)]
    ratios = [ours / plain for plain, ours in times]
    print(f"an epoch of {given.rows} rows: {times}, ratios {ratios}")


if __name__ == "__main__":
    main()
