"""A class for each pixel: a small U-Net finds triangles and circles. A label is a mask.

python examples/segment_shapes.py
"""

import random
from functools import partial

import lightning as L
import numpy as np
import torch
from jsonargparse import CLI
from PIL import Image, ImageDraw
from torch.nn import BatchNorm2d, Conv2d, ReLU, Sequential
from torch.nn.functional import cross_entropy, interpolate, max_pool2d
from torchmetrics.classification import MulticlassJaccardIndex
from torchvision.transforms.functional import to_tensor

from al_lightning import ActiveDataModule, ActiveLearningLoop


def picture(seed, side=32):
    draw = random.Random(seed)
    image = Image.new("RGB", (side, side), f"hsl({draw.randrange(360)},60%,25%)")
    mask = Image.new("L", (side, side))
    for _ in range(draw.randrange(1, 4)):
        kind, turn, hue = draw.randrange(1, 3), draw.randrange(360), draw.randrange(360)
        disc = (draw.uniform(6, side - 6), draw.uniform(6, side - 6), draw.uniform(3, 8))
        for target, fill in ((image, f"hsl({hue},80%,50%)"), (mask, kind)):
            ImageDraw.Draw(target).regular_polygon(disc, (0, 3, 99)[kind], turn, fill)
    return to_tensor(image), torch.from_numpy(np.array(mask)).long()


class LitUNet(L.LightningModule):
    def __init__(self):
        super().__init__()
        sizes = [(3, 16), (16, 32), (32, 64), (96, 32), (48, 16)]
        block = [Sequential(Conv2d(i, o, 3, 1, 1), BatchNorm2d(o), ReLU()) for i, o in sizes]
        self.first, self.second, self.third, self.up, self.top = block
        self.head, self.iou = Conv2d(16, 3, 1), MulticlassJaccardIndex(3)

    def forward(self, x):
        second = self.second(max_pool2d(first := self.first(x), 2))
        x = self.up(torch.cat([interpolate(self.third(max_pool2d(second, 2)), None, 2), second], 1))
        return self.head(self.top(torch.cat([interpolate(x, None, 2), first], 1)))  # (B, C, H, W)

    def training_step(self, batch, batch_idx):
        self.log("train_loss", loss := cross_entropy(self(batch[0]), batch[1]), on_epoch=True)
        return loss

    def test_step(self, batch, batch_idx):
        self.iou(self(batch[0]), batch[1])
        self.log("test_iou", self.iou)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def main(strategy: str = "entropy", num_cycles: int = 5, run_dir: str = "runs/masks"):
    L.seed_everything(42)
    rows, classes = [picture(seed) for seed in range(600)], ["ground", "triangle", "circle"]
    sizes = {"initial_labeled_size": 20, "batch_size": 8}
    data = ActiveDataModule(rows[:500], test_set=rows[500:], classes=classes, **sizes)
    trainer = partial(L.Trainer, max_epochs=20, enable_progress_bar=False)
    options = {"task": "dense", "strategy": strategy, "acquisition_size": 20}
    options |= {"num_cycles": num_cycles, "run_dir": run_dir}
    ActiveLearningLoop(LitUNet(), data, trainer=trainer, **options).run()


if __name__ == "__main__":
    CLI(main)
