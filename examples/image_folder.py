"""A project with an ``ImageFolder`` and v2 transforms, made active as it stands.

    pip install -e '.[examples]'
    python examples/image_folder.py

``Shapes`` and ``LitShapes`` know nothing of active learning. The last lines make them active: the
pool is read without augmentation, and each cycle goes on with the weights that were best on the
validation pictures.
"""

from functools import partial
from pathlib import Path

import lightning as L
import torch
from draw_shapes import draw
from jsonargparse import CLI
from label_folder import LitImages
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, random_split
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from al_lightning import ActiveDataModule, ActiveLearningLoop

PLAIN = [v2.ToImage(), v2.Resize((64, 64)), v2.ToDtype(torch.float32, scale=True)]


class Shapes(L.LightningDataModule):
    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder

    def prepare_data(self):
        if not self.folder.exists():
            drawn = self.folder.parent / "drawn"
            for name, label in draw(drawn, range(900)).items():
                (self.folder / label).mkdir(parents=True, exist_ok=True)
                (drawn / name).rename(self.folder / label / name)

    def setup(self, stage):
        augmented = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomVerticalFlip(), *PLAIN])
        sizes = [600, 100, 200]
        self.train, *_ = self.split(augmented, sizes)
        _, self.val, self.test = self.split(v2.Compose(PLAIN), sizes)

    def split(self, transform, sizes):
        rows, seed = ImageFolder(self.folder, transform), torch.Generator().manual_seed(0)
        return random_split(rows, sizes, seed)

    def train_dataloader(self):
        return DataLoader(self.train, batch_size=16, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.val, batch_size=50)

    def test_dataloader(self):
        return DataLoader(self.test, batch_size=50)


class LitShapes(LitImages):
    def validation_step(self, batch, batch_idx):
        self.log("val_acc", (self(batch[0]).argmax(-1) == batch[1]).float().mean())


def main(strategy: str = "margin", num_cycles: int = 5, run_dir: str = "runs/image_folder"):
    shapes = Shapes(Path("shapes"))
    sizes = {"initial_labeled_size": 60, "pool_transform": v2.Compose(PLAIN)}
    data = ActiveDataModule.from_datamodule(shapes, **sizes)
    model = partial(LitShapes, ["circle", "square", "triangle"])
    best = ModelCheckpoint(monitor="val_acc", mode="max")
    trainer = partial(L.Trainer, max_epochs=20, enable_progress_bar=False, callbacks=[best])
    options = {"strategy": strategy, "acquisition_size": 60, "num_cycles": num_cycles}
    options |= {"ckpt_path": "best", "run_dir": run_dir}
    ActiveLearningLoop(model, data, trainer=trainer, **options).run()


if __name__ == "__main__":
    CLI(main)
