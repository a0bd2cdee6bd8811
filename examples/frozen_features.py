"""A frozen backbone and few labels: features once, then cycles of a second.

    pip install -e '.[examples]'
    python examples/frozen_features.py
    python examples/frozen_features.py --weights DEFAULT      # a pretrained one, downloaded

The first ten digits are those that cover the others best; later ones cover the doubtful ones.
"""

from functools import partial

import lightning as L
import torch
import torch.nn.functional as F
from jsonargparse import CLI
from sklearn.datasets import load_digits
from torch import nn, optim
from torch.utils.data import TensorDataset
from torchvision.models import resnet18

from al_lightning import ActiveDataModule, ActiveLearningLoop, cache_features


def digits(first: int, last: int) -> TensorDataset:
    """Grey images of 8 x 8 pixels, with three channels of 32 x 32 as the backbone takes them."""
    found = load_digits()
    images = torch.tensor(found.images[first:last]).float()[:, None] / 16
    images = F.interpolate(images, scale_factor=4).repeat(1, 3, 1, 1)
    return TensorDataset(images, torch.tensor(found.target[first:last]))


class Head(L.LightningModule):
    def __init__(self, num_features: int = 512, num_classes: int = 10):
        super().__init__()
        self.net = nn.Sequential(nn.LayerNorm(num_features), nn.Linear(num_features, num_classes))

    def forward(self, features):
        return self.net(features)

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def test_step(self, batch, batch_idx):
        self.log("test_acc", (self(batch[0]).argmax(-1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return optim.Adam(self.parameters(), lr=3e-3)


def main(
    strategy: str = "uncertainty_herding",
    num_cycles: int = 5,
    run_dir: str = "runs/frozen_features",
    weights: str | None = None,
):
    backbone = resnet18(weights=weights)
    backbone.fc = nn.Identity()
    images = ActiveDataModule(digits(0, 1400), test_set=digits(1400, 1797), initial_indices=[0])
    first = {"initial_labeled_size": 10, "initial_sampling": "max_herding", "batch_size": 16}
    data = cache_features(backbone, images, "digits.npy", **first)
    trainer = partial(L.Trainer, max_epochs=40, enable_progress_bar=False)
    options = {"strategy": strategy, "acquisition_size": 20, "num_cycles": num_cycles}
    ActiveLearningLoop(Head, data, trainer=trainer, run_dir=run_dir, **options).run()


if __name__ == "__main__":
    L.seed_everything(0)  # the backbone's weights, where they are not pretrained
    CLI(main)
