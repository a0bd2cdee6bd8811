"""Features of MNIST without a label: a small CNN that tells changed copies of an image apart.

SimCLR (Chen et al. 2020, arXiv:2002.05709) on all images, 12 epochs, about six minutes on one core.

Shape suffixes: B batch rows, H W height and width, D features.
"""

import math
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from al_lightning.data.items import collate
from al_lightning.seeds import seeded

NUM_FEATURES = 128
BATCH = 512


class Encoder(nn.Sequential):
    """Three convolutions with stride 2, and a linear layer: (B, 1, 28, 28) to (B, 128)."""

    def __init__(self) -> None:
        super().__init__(
            *_convolution(1, 32, 5),
            *_convolution(32, 64, 3),
            *_convolution(64, 128, 3),
            nn.Flatten(),
            nn.Linear(128 * 4 * 4, NUM_FEATURES),
        )


def _convolution(num_in: int, num_out: int, size: int) -> list[nn.Module]:
    convolution = nn.Conv2d(num_in, num_out, size, stride=2, padding=size // 2)
    return [convolution, nn.BatchNorm2d(num_out), nn.ReLU()]


def warped(x_B1HW: Tensor, strength: float = 1.0) -> Tensor:
    """Turn, scale, shear, shift and bend each image by random amounts."""
    B, _, H, W = x_B1HW.shape

    def uniform(limit: float) -> Tensor:
        return (torch.rand(B) * 2 - 1) * limit * strength

    angle, scale_x, scale_y, shear = (
        uniform(math.radians(15)),
        uniform(0.2),
        uniform(0.2),
        uniform(0.4),
    )
    cos, sin, scale_x, scale_y = angle.cos(), angle.sin(), 1 + scale_x, 1 + scale_y
    rows = [
        *(cos * scale_x, cos * shear - sin * scale_y, uniform(6 / W)),
        *(sin * scale_x, sin * shear + cos * scale_y, uniform(6 / H)),
    ]
    theta_B23 = torch.stack(rows, dim=1).view(B, 2, 3)
    grid = F.affine_grid(theta_B23, list(x_B1HW.shape), align_corners=False)
    bends = torch.randn(B, 2, 5, 5) * (3 * strength / W)
    bends = F.interpolate(bends, (H, W), mode="bicubic", align_corners=False)
    return F.grid_sample(x_B1HW, grid + bends.permute(0, 2, 3, 1), align_corners=False)


def erased(x_B1HW: Tensor, side: int = 8) -> Tensor:
    """Blacken a square of each image."""
    B, _, H, W = x_B1HW.shape
    centres_B2 = torch.rand(B, 2) * torch.tensor([H, W])
    near = [
        (torch.arange(length) + 0.5 - centres_B2[:, axis, None]).abs() < side / 2
        for axis, length in enumerate((H, W))
    ]
    return x_B1HW * ~(near[0][:, None, :, None] & near[1][:, None, None, :])


class SimCLR(L.LightningModule):
    """Brings two changed copies of an image together, and keeps those of other images apart."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.projection = nn.Sequential(nn.ReLU(), nn.Linear(NUM_FEATURES, 64))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = batch[0]
        copies = torch.cat([erased(warped(x)), erased(warped(x))])
        z_2BD = F.normalize(self.projection(self.encoder(copies)), dim=1)
        similar = z_2BD @ z_2BD.T / 0.2
        similar.fill_diagonal_(-torch.inf)
        partner = torch.arange(len(copies)).roll(len(x))
        return F.cross_entropy(similar, partner)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=4e-3)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def learned_encoder(rows: Any, path: Path, epochs: int = 12) -> Encoder:
    """Return the encoder whose weights are in a file; learn them first where there is none."""
    encoder = Encoder()
    if not path.exists():
        with seeded(0, "self-supervised"):
            module = SimCLR()
            loader = DataLoader(rows, BATCH, shuffle=True, drop_last=True, collate_fn=collate)
            trainer = L.Trainer(
                max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False
            )
            trainer.fit(module, loader)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(module.encoder.state_dict(), path)
    encoder.load_state_dict(torch.load(path, weights_only=True))
    return encoder.eval()
