"""Unlabeled pictures in training: FixMatch (arXiv:2001.07685) for a module of your own.

    pip install -e '.[examples]'
    python examples/fixmatch.py

A training batch is a dict: ``"labeled"`` as before and, while there is a pool, ``"unlabeled"``
pictures. Where the network is sure of a picture, it must say the same of a strongly changed copy.
"""

from functools import partial

import lightning as L
import torch
import torch.nn.functional as F
from frozen_features import digits
from jsonargparse import CLI
from torch import nn, optim
from torchvision.transforms import v2

from al_lightning import ActiveDataModule, ActiveLearningLoop

STRONG = v2.Compose([v2.RandomAffine(20, (0.1, 0.1), (0.8, 1.2)), v2.RandomErasing(1.0)])


class FixMatch(L.LightningModule):
    def __init__(self):
        super().__init__()
        layers = [nn.Conv2d(3, 32, 4, stride=4), nn.BatchNorm2d(32), nn.ReLU()]
        layers += [nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()]
        self.net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 8 * 8, 10))

    def forward(self, images):
        return self.net(images)

    def training_step(self, batch, batch_idx):
        x, y = batch["labeled"]
        loss = F.cross_entropy(self(x), y)
        if "unlabeled" in batch:
            others = batch["unlabeled"]
            with torch.no_grad():
                sure, guesses = self(others).softmax(-1).max(-1)
            changed = torch.stack([STRONG(picture) for picture in others])
            losses = F.cross_entropy(self(changed), guesses, reduction="none")
            loss = loss + (losses * (sure >= 0.95)).mean()
        self.log("train_loss", loss, batch_size=len(y))
        return loss

    def test_step(self, batch, batch_idx):
        self.log("test_acc", (self(batch[0]).argmax(-1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return optim.Adam(self.parameters(), lr=1e-3)


def main(strategy: str = "margin", num_cycles: int = 5, run_dir: str = "runs/fixmatch"):
    sizes = {"initial_labeled_size": 20, "unlabeled_batch_size": 48, "steps_per_epoch": 15}
    data = ActiveDataModule(digits(0, 1400), test_set=digits(1400, 1797), batch_size=16, **sizes)
    trainer = partial(L.Trainer, max_epochs=4, enable_progress_bar=False)
    options = {"strategy": strategy, "acquisition_size": 20, "num_cycles": num_cycles}
    ActiveLearningLoop(FixMatch, data, trainer=trainer, run_dir=run_dir, **options).run()


if __name__ == "__main__":
    CLI(main)
