"""The networks that the published tables were made with, and early stopping as their authors do it.

Shape suffixes: B batch rows, H W height and width.
"""

import copy
from functools import partial
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback, EarlyStopping
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy


class PaperCNN(L.LightningModule):
    """Cross-entropy under Adam; what both networks share. ``forward`` gives logits (B, 10).

    Validation and test see one deterministic pass, with dropout off; posterior samples of the pool
    are the loop's ``mc_samples``.

    Args:
        weight_decay: Adam's L2 penalty.
    """

    def __init__(self, weight_decay: float = 0.0) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.weight_decay = weight_decay
        self.val_acc = MulticlassAccuracy(10, average="micro")
        self.test_acc = MulticlassAccuracy(10, average="micro")

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x_B1HW, y_B = batch
        loss = F.cross_entropy(self(x_B1HW), y_B)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(y_B))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate(batch, "val", self.val_acc)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate(batch, "test", self.test_acc)

    def _evaluate(
        self, batch: tuple[Tensor, Tensor], stage: str, accuracy: MulticlassAccuracy
    ) -> None:
        x_B1HW, y_B = batch
        logits = self(x_B1HW)
        accuracy(logits, y_B)
        self.log(f"{stage}_loss", F.cross_entropy(logits, y_B), batch_size=len(y_B))
        self.log(f"{stage}_acc", accuracy, batch_size=len(y_B))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(
            self.parameters(), lr=1e-3, weight_decay=self.weight_decay, fused=True
        )


class BatchBALDNet(PaperCNN):
    """Of Kirsch et al. 2019, arXiv:1906.08158: dropout .5 after each layer but the last."""

    def __init__(self, weight_decay: float = 0.0) -> None:
        super().__init__(weight_decay)
        self.conv1 = nn.Conv2d(1, 32, 5)
        self.drop1 = nn.Dropout2d(0.5)
        self.conv2 = nn.Conv2d(32, 64, 5)
        self.drop2 = nn.Dropout2d(0.5)
        self.fc1 = nn.Linear(1024, 128)
        self.drop3 = nn.Dropout(0.5)
        self.fc2 = nn.Linear(128, 10)
        self.to(memory_format=torch.channels_last)  # twice as fast on a CPU

    def forward(self, x_B1HW: Tensor) -> Tensor:
        x = x_B1HW.contiguous(memory_format=torch.channels_last)
        x = F.relu(F.max_pool2d(self.drop1(self.conv1(x)), 2))
        x = F.relu(F.max_pool2d(self.drop2(self.conv2(x)), 2))
        logits: Tensor = self.fc2(F.relu(self.drop3(self.fc1(x.flatten(1)))))
        return logits


class GalNet(PaperCNN):
    """Of Gal, Islam and Ghahramani 2017, arXiv:1703.02910, section 5.1: dropout .25 and .5."""

    def __init__(self, weight_decay: float = 0.0) -> None:
        super().__init__(weight_decay)
        self.conv1 = nn.Conv2d(1, 32, 4)
        self.conv2 = nn.Conv2d(32, 32, 4)
        self.drop1 = nn.Dropout(0.25)
        self.fc1 = nn.Linear(32 * 11 * 11, 128)
        self.drop2 = nn.Dropout(0.5)
        self.fc2 = nn.Linear(128, 10)
        self.to(memory_format=torch.channels_last)

    def forward(self, x_B1HW: Tensor) -> Tensor:
        x = x_B1HW.contiguous(memory_format=torch.channels_last)
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        x = self.drop1(F.max_pool2d(x, 2))
        logits: Tensor = self.fc2(self.drop2(F.relu(self.fc1(x.flatten(1)))))
        return logits


class BestWeights(Callback):
    """Gives the module the weights of its best validation accuracy back when a fit ends."""

    def __init__(self) -> None:
        self.best = -1.0
        self.weights: dict[str, Any] = {}

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        accuracy = float(trainer.callback_metrics["val_acc"])
        if accuracy > self.best and not trainer.sanity_checking:
            self.best, self.weights = accuracy, copy.deepcopy(pl_module.state_dict())

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        pl_module.load_state_dict(self.weights)


early_stopping = partial(
    L.Trainer,
    max_epochs=30,
    callbacks=[EarlyStopping("val_acc", mode="max", patience=3), BestWeights()],
    num_sanity_val_steps=0,
    enable_checkpointing=False,
    enable_progress_bar=False,
)
"""Makes Trainers that stop once validation accuracy has not grown for three epochs."""
