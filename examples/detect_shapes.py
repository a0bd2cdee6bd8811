"""Detection by a score of its own: where are the circles? Any task takes part like this.

    python examples/detect_shapes.py

A label is a list of centres. The module says itself how much one is worth: the sum of its doubts.
"""

import random
from functools import partial

import lightning as L
import torch
from jsonargparse import CLI
from PIL import Image, ImageDraw
from torch.nn import Conv2d, ReLU, Sequential
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torchmetrics.classification import BinaryF1Score
from torchvision.transforms.functional import to_tensor

from al_lightning import ActiveDataModule, ActiveLearningLoop


def picture(seed):
    draw = random.Random(seed)
    image, centres = Image.new("RGB", (32, 32), f"hsl({draw.randrange(360)},50%,25%)"), []
    for _ in range(draw.randrange(5)):
        x, y, radius = draw.uniform(4, 28), draw.uniform(4, 28), draw.uniform(2.5, 5)
        is_circle, colour = draw.random() < 0.5, f"hsl({draw.randrange(360)},80%,55%)"
        ImageDraw.Draw(image).regular_polygon((x, y, radius), 99 if is_circle else 3, 0, colour)
        centres += [[x, y]] * is_circle
    return to_tensor(image), centres


def together(rows):
    truth = torch.zeros(len(rows), 8, 8)  # is there a centre in a cell of 4 x 4 pixels?
    for row, (_, centres) in enumerate(rows):
        for x, y in centres:
            truth[row, int(y) // 4, int(x) // 4] = 1
    return torch.stack([image for image, _ in rows]), truth


class LitCentres(L.LightningModule):
    def __init__(self):
        super().__init__()
        convs = Conv2d(3, 32, 3, 2, 1), ReLU(), Conv2d(32, 64, 3, 2, 1), ReLU()
        self.net = Sequential(*convs, Conv2d(64, 64, 3, 1, 1), ReLU(), Conv2d(64, 1, 1))
        self.f1 = BinaryF1Score()

    def training_step(self, batch, batch_idx):
        loss = bce(self.net(batch[0])[:, 0], batch[1], pos_weight=batch[1].new_tensor(5.0))
        self.log("train_loss", loss, on_epoch=True)
        return loss

    def test_step(self, batch, batch_idx):
        self.f1(self.net(batch[0])[:, 0], batch[1])
        self.log("test_f1", self.f1)

    def predict_step(self, batch, batch_idx):
        logits = self.net(batch[0])  # their entropies, in nats:
        return {"score": bce(logits, logits.sigmoid(), reduction="none").flatten(1).sum(1)}

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def main(strategy: str = "score", num_cycles: int = 5, run_dir: str = "runs/boxes"):
    L.seed_everything(42)
    rows = [picture(seed) for seed in range(1000)]
    sizes = {"collate_fn": together, "initial_labeled_size": 40, "batch_size": 8}
    data = ActiveDataModule(rows[:800], test_set=rows[800:], eval_collate_fn=together, **sizes)
    trainer = partial(L.Trainer, max_epochs=15, enable_progress_bar=False)
    options = {"strategy": strategy, "acquisition_size": 40}
    options |= {"num_cycles": num_cycles, "run_dir": run_dir}
    ActiveLearningLoop(LitCentres(), data, trainer=trainer, **options).run()


if __name__ == "__main__":
    CLI(main)
