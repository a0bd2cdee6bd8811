"""``LitSimpleCNN``: the tutorial's small CNN for 28 x 28 grey images, as a LightningModule.

Shape suffixes: B batch rows, C channels, H W height and width, D embedding dimensions.
"""

from collections.abc import Mapping
from typing import Any, Literal, cast

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from al_lightning.acquisition import least_confidence
from al_lightning.mnist.augment import random_affine
from al_lightning.mnist.fast_on_cpu import LinearOverMaps
from al_lightning.mnist.unlabeled import pseudo_label_loss, strongly_changed
from al_lightning.prediction.mc_dropout import Masks, sampled
from al_lightning.prediction.outputs import Outputs

NUM_CLASSES = 10
Batch = tuple[Tensor, Tensor]  # images (B, 1, 28, 28) and digits (B,)
UNLABELED = ("fixmatch", "pseudo_label")


class LitSimpleCNN(L.LightningModule):
    """Classifies digits: conv 3x3 (32) - conv 3x3 (64) - max-pool 2 - linear 128 - linear 10.

    It has 1,199,882 parameters. The state dict has the keys ``conv1.* conv2.* fc1.* fc2.*`` and
    nothing else, so weights move to and from the plain PyTorch network of the same shape.

    Args:
        lr: Adam's learning rate; under ``one_cycle`` the highest one.
        dropout: Rate before the last layer; after the pooling it is half of that.
        mc_samples: K posterior samples by MC dropout in prediction; 1 predicts without dropout.
        augment: Turn, shift and scale training images at random by up to 10 degrees, 2 pixels and
            a tenth.
        schedule: ``"constant"``, or ``"one_cycle"`` over the whole fit (Smith and Topin 2017,
            arXiv:1708.07120).
        unlabeled: Use of unlabeled images, where the data module has ``unlabeled_batch_size``.
            ``"fixmatch"`` takes the class of an image, where the network is sure of it, as the
            label of a strongly changed copy (Sohn et al. 2020, arXiv:2001.07685).
            ``"pseudo_label"`` takes it as the label of the image itself, as CEAL does (Wang et al.
            2016, arXiv:1701.03551), for two thirds of the time.
        threshold: The probability from which the network is sure.

    Raises:
        ValueError: for an argument outside its range, and for samples without dropout.
    """

    def __init__(
        self,
        lr: float = 1e-3,
        dropout: float = 0.0,
        mc_samples: int = 1,
        augment: bool = False,
        schedule: Literal["constant", "one_cycle"] = "constant",
        unlabeled: Literal["fixmatch", "pseudo_label"] = "fixmatch",
        threshold: float = 0.95,
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
        if unlabeled not in UNLABELED:
            raise ValueError(f"unlabeled must be one of {', '.join(UNLABELED)}, got {unlabeled!r}")
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold must be in [0, 1], got {threshold}")
        self.save_hyperparameters()
        self.lr = lr
        self.mc_samples = mc_samples
        self.augment = augment
        self.schedule = schedule
        self.unlabeled = unlabeled
        self.threshold = threshold
        self.conv1 = nn.Conv2d(1, 32, 3)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.fc1 = LinearOverMaps(64 * 12 * 12, 128)
        self.fc2 = nn.Linear(128, NUM_CLASSES)
        self.dropout1 = nn.Dropout(dropout / 2)
        self.dropout2 = nn.Dropout(dropout)
        self.val_acc = MulticlassAccuracy(NUM_CLASSES, average="micro")
        self.test_acc = MulticlassAccuracy(NUM_CLASSES, average="micro")
        self._masks: Masks | None = None
        self.to(memory_format=torch.channels_last)  # twice as fast on a CPU

    def forward(self, x_B1HW: Tensor) -> Tensor:
        """Return logits (B, 10) of images (B, 1, 28, 28) in [0, 1]."""
        return cast(Tensor, self.fc2(self.dropout2(self.embed(x_B1HW))))

    def embed(self, x_B1HW: Tensor) -> Tensor:
        """Return the activations (B, 128) of the last hidden layer."""
        return self.hidden(self.features(x_B1HW).flatten(1))

    def features(self, x_B1HW: Tensor) -> Tensor:
        """Return the feature maps of the convolutions, (B, 64, 12, 12)."""
        x = F.relu_(self.conv1(x_B1HW))
        return F.relu_(F.max_pool2d(self.conv2(x), 2))  # as ReLU first, at a quarter of the work

    def hidden(self, features: Tensor) -> Tensor:
        """Return the last hidden layer (B, 128) of features, given as maps or flattened."""
        return F.relu_(self.fc1(self.dropout1(features)))

    def training_step(self, batch: Batch | Mapping[str, Any], batch_idx: int) -> Tensor:
        x, y = batch["labeled"] if isinstance(batch, Mapping) else batch
        others = batch.get("unlabeled") if isinstance(batch, Mapping) else None
        if others is None:
            loss = F.cross_entropy(self(self._changed(x)), y)
        else:
            loss = self._semi_supervised(x, y, others)
        shown: dict[str, Any] = {"on_step": True, "on_epoch": True, "prog_bar": True}
        self.log("train_loss", loss, batch_size=len(y), sync_dist=True, **shown)
        return loss

    def _changed(self, x_B1HW: Tensor) -> Tensor:
        return random_affine(x_B1HW) if self.augment else x_B1HW

    def _semi_supervised(self, x_B1HW: Tensor, y_B: Tensor, others_U1HW: Tensor) -> Tensor:
        """Return the loss of labeled images and, by what the network believes, of others."""
        changed_U1HW = self._changed(others_U1HW)
        beliefs_UC = None
        if self.unlabeled == "fixmatch":
            self.eval()  # without dropout
            with torch.no_grad():
                beliefs_UC = self(changed_U1HW).softmax(-1)
            self.train()
            changed_U1HW = strongly_changed(others_U1HW)
        logits_BC, logits_UC = self(torch.cat([self._changed(x_B1HW), changed_U1HW])).split(
            [len(x_B1HW), len(others_U1HW)]
        )
        if beliefs_UC is None:
            beliefs_UC = logits_UC.softmax(-1)
        unsupervised = pseudo_label_loss(logits_UC, beliefs_UC, self.threshold)
        return F.cross_entropy(logits_BC, y_B) + unsupervised

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, "val", self.val_acc)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, "test", self.test_acc)

    def _evaluate(self, batch: Batch, stage: str, accuracy: MulticlassAccuracy) -> None:
        x, y = batch
        logits = self(x)
        accuracy(logits, y)
        self.log(f"{stage}_loss", F.cross_entropy(logits, y), sync_dist=True)
        self.log(f"{stage}_acc", accuracy, prog_bar=True)

    def predict_step(self, batch: Batch | Tensor, batch_idx: int) -> dict[str, Any]:
        """Predict a batch of images, with labels beside them or without.

        Returns:
            ``probs`` (B, 10), or (B, K, 10) with K = ``mc_samples`` > 1; ``uncertainty`` (B,), one
            minus the largest of the mean probabilities; ``embedding`` (B, 128), without dropout.
        """
        features_BCHW = self.features(batch if isinstance(batch, Tensor) else batch[0])

        def predict() -> Outputs:
            embedding_BD = self.hidden(features_BCHW)
            logits_BC = self.fc2(self.dropout2(embedding_BD))
            return Outputs(logits_BC.float().softmax(-1), embedding_BD)

        K = self.mc_samples
        out = sampled(self, predict, self._masks or Masks(self, K)) if K > 1 else predict()
        return {**out.prediction, "uncertainty": least_confidence(out.prediction["probs"])}

    def on_predict_start(self) -> None:
        if self.mc_samples > 1:
            self._masks = Masks(self, self.mc_samples)  # the same for all batches

    def on_predict_end(self) -> None:
        self._masks = None

    def configure_optimizers(self) -> OptimizerLRScheduler:
        # Fused is the same mathematics in one kernel; unfused is a twentieth of a step on a CPU.
        optimizer = torch.optim.Adam(self.parameters(), lr=self.lr, fused=True)
        if self.schedule == "constant":
            return optimizer
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
