"""Several labels a picture: which of three shapes are in it? Each label is a yes or a no.

python examples/multilabel_shapes.py
python examples/multilabel_shapes.py --strategy random --run_dir runs/several_random
"""

import random
from functools import partial

import lightning as L
import torch
from jsonargparse import CLI
from PIL import Image, ImageDraw
from torch.nn import BatchNorm2d, Conv2d, Flatten, Linear, MaxPool2d, ReLU, Sequential
from torch.nn.functional import binary_cross_entropy_with_logits
from torchvision.transforms.functional import to_tensor

from al_lightning import ActiveDataModule, ActiveLearningLoop

SHAPES = {"triangle": 3, "square": 4, "circle": 99}  # sides


def picture(seed):
    draw = random.Random(seed)
    image = Image.new("RGB", (32, 32), f"hsl({draw.randrange(360)},60%,20%)")
    label = [float(draw.random() < 0.4) for _ in SHAPES]  # multi-hot
    for is_there, sides in zip(label, SHAPES.values(), strict=True):
        disc = (draw.uniform(6, 26), draw.uniform(6, 26), draw.uniform(4, 7))
        if is_there:
            colour = f"hsl({draw.randrange(360)},90%,60%)"
            ImageDraw.Draw(image).regular_polygon(disc, sides, draw.randrange(360), colour)
    return to_tensor(image), torch.tensor(label)


class LitShapes(L.LightningModule):
    def __init__(self):
        super().__init__()
        sizes = [(3, 32), (32, 64), (64, 64)]
        block = [(Conv2d(i, o, 3, 1, 1), BatchNorm2d(o), ReLU(), MaxPool2d(2)) for i, o in sizes]
        self.net = Sequential(*sum(block, ()), Flatten(), Linear(1024, 64), ReLU(), Linear(64, 3))

    def forward(self, images):
        return self.net(images)  # logits (B, 3), one a label

    def training_step(self, batch, batch_idx):
        loss = binary_cross_entropy_with_logits(self(batch[0]), batch[1])
        self.log("train_loss", loss, on_epoch=True)
        return loss

    def test_step(self, batch, batch_idx):
        self.log("test_acc", ((self(batch[0]) > 0) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


def main(strategy: str = "entropy", num_cycles: int = 5, run_dir: str = "runs/several"):
    L.seed_everything(42)
    rows = [picture(seed) for seed in range(1800)]
    sizes = {"initial_labeled_size": 60, "batch_size": 16}
    data = ActiveDataModule(rows[:1500], test_set=rows[1500:], classes=list(SHAPES), **sizes)
    trainer = partial(L.Trainer, max_epochs=25, enable_progress_bar=False)
    options = {"task": "multilabel", "strategy": strategy, "acquisition_size": 60}
    options |= {"num_cycles": num_cycles, "run_dir": run_dir}
    ActiveLearningLoop(LitShapes(), data, trainer=trainer, **options).run()


if __name__ == "__main__":
    CLI(main)
