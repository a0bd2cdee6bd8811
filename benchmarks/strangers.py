"""Two modules as others write them, for runs that are killed: layers made late, a partial state."""

from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

Batch = Any


class Late(L.LightningModule):
    """Makes its layers in ``configure_model``; keeps a temperature and a counter outside of them.

    It has no ``predict_step``, and freezes its first layer after the first epoch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.net: nn.Sequential | None = None
        self.temperature = 1.0
        self.register_buffer("steps", torch.zeros(()), persistent=False)

    def configure_model(self) -> None:
        if self.net is None:
            self.net = nn.Sequential(
                nn.Flatten(), nn.Linear(784, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 10)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, 10)."""
        assert self.net is not None
        logits: Tensor = self.net(x)
        return logits / self.temperature

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.steps += 1
        loss = F.cross_entropy(self(batch[0]), batch[1]) + 1e-3 * self.steps
        self.log("train_loss", loss, on_epoch=True)
        return loss

    def on_train_epoch_end(self) -> None:
        assert self.net is not None
        self.temperature *= 0.9
        self.net[1].requires_grad_(False)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("test_acc", (self(batch[0]).argmax(-1) == batch[1]).float().mean())

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return torch.optim.Adam(self.parameters(), 1e-2)


class Adapter(L.LightningModule):
    """Leaves a frozen backbone out of its checkpoints; two optimizers, stepped by hand."""

    strict_loading = False

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.backbone = nn.Linear(784, 32).requires_grad_(False)
        self.body, self.head = nn.Linear(32, 16), nn.Linear(16, 10)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        whole = super().state_dict(*args, **kwargs)
        return {name: value for name, value in whole.items() if not name.startswith("backbone")}

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, 10)."""
        features = torch.tanh(self.backbone(x.flatten(1)))
        logits: Tensor = self.head(torch.relu(self.body(features)))
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        for optimizer in self.optimizers():  # type: ignore[union-attr]
            optimizer.zero_grad()
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.manual_backward(loss)
        for optimizer in self.optimizers():  # type: ignore[union-attr]
            optimizer.step()
        self.log("train_loss", loss, on_epoch=True)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("test_acc", (self(batch[0]).argmax(-1) == batch[1]).float().mean())

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizers: OptimizerLRScheduler = [
            torch.optim.Adam(self.body.parameters(), 1e-2),
            torch.optim.SGD(self.head.parameters(), 0.1),
        ]
        return optimizers


STRANGERS = {"late": Late, "adapter": Adapter}
