"""``LitSimpleCNN``: the tutorial's small CNN for 28 x 28 grey images, as a LightningModule.

Shape suffixes: B batch rows, H W height and width, K posterior samples, C classes or channels, D
embedding dimensions, F features of the convolutions, C x H x W of them.
"""

import math
from typing import Literal, cast

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from al_lightning.acquisition import least_confidence

NUM_CLASSES = 10


class LitSimpleCNN(L.LightningModule):
    """conv 3x3 (32) - conv 3x3 (64) - max-pool 2 - linear 128 - linear 10; 1,199,882 parameters.

    The state dict has the keys ``conv1.* conv2.* fc1.* fc2.*`` and nothing else, so weights move to
    and from the plain PyTorch network of the same shape.

    Args:
        lr: Adam's learning rate; the peak of it under ``one_cycle``.
        dropout: Rate before the last layer; half of it after the pooling.
        mc_samples: K of MC dropout in prediction (Gal and Ghahramani 2016, arXiv:1506.02142); 1 is
            the ordinary, deterministic prediction.
        augment: Turns, shifts and scales training images at random by up to 10 degrees, 2 pixels
            and a tenth.
        schedule: ``"constant"``, or ``"one_cycle"`` over the whole fit (Smith and Topin 2017,
            arXiv:1708.07120).

    Raises:
        ValueError: for a rate outside [0, 1), a learning rate that is not positive, samples below
            1 or without dropout, or an unknown schedule.
    """

    def __init__(
        self,
        lr: float = 1e-3,
        dropout: float = 0.0,
        mc_samples: int = 1,
        augment: bool = False,
        schedule: Literal["constant", "one_cycle"] = "constant",
    ) -> None:
        super().__init__()
        if not lr > 0:
            raise ValueError(f"lr must be positive, got {lr}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        if mc_samples < 1 or (mc_samples > 1 and dropout == 0):
            raise ValueError(
                f"mc_samples must be at least 1, and above 1 needs dropout > 0, got {mc_samples} "
                f"with dropout={dropout}"
            )
        if schedule not in ("constant", "one_cycle"):
            raise ValueError(f'schedule must be "constant" or "one_cycle", got {schedule!r}')
        self.save_hyperparameters()
        self.lr = lr
        self.mc_samples = mc_samples
        self.augment = augment
        self.schedule = schedule
        self.conv1 = nn.Conv2d(1, 32, 3)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.fc1 = nn.Linear(9216, 128)
        self.fc2 = nn.Linear(128, NUM_CLASSES)
        self.dropout1 = nn.Dropout(dropout / 2)
        self.dropout2 = nn.Dropout(dropout)
        self.val_acc = MulticlassAccuracy(NUM_CLASSES, average="micro")
        self.test_acc = MulticlassAccuracy(NUM_CLASSES, average="micro")
        self._masks: tuple[Tensor, Tensor] | None = None
        self._fc1_DCHW: Tensor | None = None
        self.to(memory_format=torch.channels_last)  # twice as fast on a CPU

    def forward(self, x_B1HW: Tensor) -> Tensor:
        """Logits (B, 10) of images (B, 1, 28, 28) in [0, 1]."""
        logits: Tensor = self.fc2(self.dropout2(self.embed(x_B1HW)))
        return logits

    def embed(self, x_B1HW: Tensor) -> Tensor:
        """Activations (B, 128) of the last hidden layer, after its ReLU."""
        return F.relu_(self.fc1(self.dropout1(self._features(x_B1HW).flatten(1))))

    def _features(self, x_B1HW: Tensor) -> Tensor:
        """What the convolutions see (B, 64, 12, 12); no dropout before it."""
        x = x_B1HW.contiguous(memory_format=torch.channels_last)
        x = F.relu_(self.conv1(x))
        return F.relu_(F.max_pool2d(self.conv2(x), 2))  # as ReLU first, at a quarter of the work

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(self(random_affine(x) if self.augment else x), y)
        self.log(
            "train_loss",
            loss,
            on_step=True,
            on_epoch=True,
            prog_bar=True,
            batch_size=len(y),
            sync_dist=True,
        )
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate(batch, "val", self.val_acc)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate(batch, "test", self.test_acc)

    def _evaluate(
        self, batch: tuple[Tensor, Tensor], stage: str, accuracy: MulticlassAccuracy
    ) -> None:
        x, y = batch
        logits = self(x)
        accuracy(logits, y)
        self.log(f"{stage}_loss", F.cross_entropy(logits, y), batch_size=len(y), sync_dist=True)
        self.log(f"{stage}_acc", accuracy, prog_bar=True, batch_size=len(y))

    def predict_step(
        self, batch: tuple[Tensor, Tensor] | Tensor, batch_idx: int
    ) -> dict[str, Tensor]:
        """Softmax uncertainty of a batch of images, with labels beside them or without.

        Returns:
            ``probs`` (B, 10), or (B, K, 10) with K = ``mc_samples`` > 1; ``uncertainty`` (B,), one
            minus the largest of the mean probabilities; ``embedding`` (B, 128), without dropout.
        """
        features_BCHW = self._features(batch if isinstance(batch, Tensor) else batch[0])
        # In evaluation dropout passes all on, unless it is made to sample: see MCDropout.
        embedding_BD = F.relu_(self._plain_fc1(self.dropout1(features_BCHW)))
        if self.mc_samples == 1:
            probs = self.fc2(self.dropout2(embedding_BD)).float().softmax(-1)
        else:
            features_BF = features_BCHW.flatten(1)
            logits = [
                self.fc2(F.relu_(self.fc1(features_BF * mask_F)) * mask_D)
                for mask_F, mask_D in zip(*(self._masks or self._draw_masks()), strict=True)
            ]
            probs = torch.stack(logits, dim=1).float().softmax(-1)
        return {
            "probs": probs,
            "uncertainty": least_confidence(probs),
            "embedding": embedding_BD,
        }

    def _plain_fc1(self, features_BCHW: Tensor) -> Tensor:
        """``fc1`` without dropout, (B, D).

        On a CPU as the convolution over the whole map that it is: the channels-last features need
        no copy then, and oneDNN does it in half the time that torch's matrix product takes.
        """
        if features_BCHW.device.type != "cpu":
            return cast(Tensor, self.fc1(features_BCHW.flatten(1)))
        kept = self._fc1_DCHW if self._fc1_DCHW is not None and self.trainer.predicting else None
        filters_DCHW = self._fc1_filters() if kept is None else kept
        return F.conv2d(features_BCHW, filters_DCHW, self.fc1.bias).flatten(1)

    def _fc1_filters(self) -> Tensor:
        filters_DCHW = self.fc1.weight.view(-1, self.conv2.out_channels, 12, 12)
        return filters_DCHW.contiguous(memory_format=torch.channels_last)

    def on_predict_start(self) -> None:
        self._masks = self._draw_masks() if self.mc_samples > 1 else None
        self._fc1_DCHW = self._fc1_filters() if self.device.type == "cpu" else None

    def on_predict_end(self) -> None:
        self._masks = self._fc1_DCHW = None

    def _draw_masks(self) -> tuple[Tensor, Tensor]:
        """Dropout masks (K, F) and (K, D), the same for every row, batch and rank.

        A posterior sample is one set of weights, so one mask for the whole pool; without that the
        joint of two rows means nothing (Kirsch et al. 2019, arXiv:1906.08158, section 3). They
        follow from the seed that prediction began with, and are drawn on the CPU, so every device
        has the same.
        """
        draw = torch.Generator().manual_seed(torch.initial_seed())

        def masks(rate: float, width: int) -> Tensor:
            kept = torch.rand(self.mc_samples, width, generator=draw) >= rate
            return (kept / (1 - rate)).to(self.device)

        features, hidden = self.fc1.in_features, self.fc2.in_features
        return masks(self.dropout1.p, features), masks(self.dropout2.p, hidden)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        # Fused is the same mathematics in one kernel; unfused is a twentieth of a step on a CPU.
        optimizer = torch.optim.Adam(self.parameters(), lr=self.lr, fused=True)
        if self.schedule == "constant":
            return optimizer
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=self.lr, total_steps=int(self.trainer.estimated_stepping_batches)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def random_affine(
    x_B1HW: Tensor, degrees: float = 10.0, shift: float = 2.0, scale: float = 0.1
) -> Tensor:
    """Turns, shifts (pixels) and scales each image by its own random amounts, on its device.

    One ``grid_sample`` for the whole batch; drawn from torch's global generator like dropout.
    """
    B, _, H, W = x_B1HW.shape

    def uniform(limit: float) -> Tensor:
        return (torch.rand(B, device=x_B1HW.device) * 2 - 1) * limit

    angle, factor = uniform(math.radians(degrees)), 1 + uniform(scale)
    cos, sin = factor * angle.cos(), factor * angle.sin()
    rows = [cos, -sin, uniform(2 * shift / W), sin, cos, uniform(2 * shift / H)]
    theta_B23 = torch.stack(rows, dim=1).view(B, 2, 3).to(x_B1HW.dtype)
    grid = F.affine_grid(theta_B23, list(x_B1HW.shape), align_corners=False)
    return F.grid_sample(x_B1HW, grid, align_corners=False)
