"""A small ResNet made active: which of 600 pictures of coloured shapes are worth a label?

    python examples/resnet_shapes.py
    python examples/resnet_shapes.py --strategy random --run_dir runs/shapes_random

The data set and the module know nothing of active learning; only ``main`` does. The pictures are
drawn from a seed, so there is nothing to download.
"""

import random
from datetime import datetime
from functools import partial

import lightning as L
import torch
from jsonargparse import CLI
from PIL import Image, ImageDraw
from torchvision.models import resnet18
from torchvision.transforms import v2

from al_lightning import ActiveDataModule, ActiveLearningLoop

EVAL = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
# A mirrored square in another colour is still a square.
TRAIN = v2.Compose([v2.RandomHorizontalFlip(), v2.ColorJitter(0.3, 0.3, 0.3, 0.5), EVAL])


class Shapes(torch.utils.data.Dataset):
    """Draws a bright triangle, square or circle on dark ground, of any colour, size and place."""

    def __init__(self, rows, transform):
        self.rows, self.transform = rows, transform

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, position):
        draw = random.Random(self.rows[position])
        label, hue, turn = draw.randrange(3), draw.randrange(360), draw.randrange(360)
        image = Image.new("RGB", (24, 24), f"hsl({draw.randrange(360)},60%,20%)")
        disc = (draw.uniform(10, 13), draw.uniform(10, 13), draw.uniform(8, 11))
        # 99 sides look like a circle.
        ImageDraw.Draw(image).regular_polygon(disc, (3, 4, 99)[label], turn, f"hsl({hue},90%,60%)")
        return self.transform(image), label


class LitResNet(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = resnet18(weights=None)
        # ResNet-18 is made for 224 pixels. Of 24, its stem would leave 6 and its last stage one.
        self.net.conv1 = torch.nn.Conv2d(3, 64, kernel_size=3, stride=2, padding=1, bias=False)
        self.net.maxpool = self.net.layer4 = torch.nn.Identity()
        self.net.fc = torch.nn.Linear(256, 3)

    def forward(self, images):
        return self.net(images)

    def training_step(self, batch, batch_idx):
        loss = torch.nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss, on_epoch=True)
        return loss

    def test_step(self, batch, batch_idx):
        self.log("test_acc", (self(batch[0]).argmax(-1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters())


def main(strategy: str = "margin", num_cycles: int = 4, run_dir: str = ""):
    L.seed_everything(42)
    train_set, pool_set = Shapes(range(600), TRAIN), Shapes(range(600), EVAL)  # the same rows
    test_set = Shapes(range(600, 900), EVAL)
    data = ActiveDataModule(
        train_set, pool_set=pool_set, test_set=test_set, initial_labeled_size=50, batch_size=16
    )
    ActiveLearningLoop(
        LitResNet(),
        data,
        trainer=partial(L.Trainer, max_epochs=10, enable_progress_bar=False),
        strategy=strategy,
        acquisition_size=50,
        num_cycles=num_cycles,
        run_dir=run_dir or f"runs/shapes/{datetime.now():%Y-%m-%d_%H-%M-%S}",
    ).run()


if __name__ == "__main__":
    CLI(main)
