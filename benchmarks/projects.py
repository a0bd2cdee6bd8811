"""Make other people's projects active, as their files are: two cycles each.

    git clone https://github.com/ashleve/lightning-hydra-template
    git clone https://github.com/Lightning-AI/pytorch-lightning
    python benchmarks/projects.py hydra --checkout lightning-hydra-template
    python benchmarks/projects.py lightning --checkout pytorch-lightning
    python benchmarks/projects.py torchgeo    # in an environment with torchgeo

Each project's own lines are between ``begin`` and ``end``; what they print is a line a project.
``hydra`` needs MNIST in ``data``. Files that cannot be downloaded here are drawn.
"""

import argparse
import importlib
import inspect
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from PIL import Image
from torch import nn

from al_lightning import ActiveDataModule, ActiveLearningLoop

SIZES = {"initial_labeled_size": 1000}


def hydra(checkout: Path) -> Any:
    """lightning-hydra-template: its MNIST data module and module."""
    sys.path.insert(0, str(checkout))
    datamodules = importlib.import_module("src.data.mnist_datamodule")
    modules = importlib.import_module("src.models.mnist_module")
    nets = importlib.import_module("src.models.components.simple_dense_net")
    adam = partial(torch.optim.Adam, lr=1e-3)
    slower = partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=10)
    model = modules.MNISTLitModule(nets.SimpleDenseNet(), adam, slower, False)
    best = [ModelCheckpoint(monitor="val/acc", mode="max"), EarlyStopping("val/acc", mode="max")]
    # begin
    data = ActiveDataModule.from_datamodule(datamodules.MNISTDataModule(), **SIZES)
    trainer = partial(L.Trainer, max_epochs=10, callbacks=best)
    loop = ActiveLearningLoop(model, data, trainer=trainer, strategy="margin", ckpt_path="best")
    # end
    return loop


def backbone(checkout: Path) -> Any:
    """Lightning's examples: the MNIST data module and classifier of backbone_image_classifier."""
    sys.path.insert(0, str(checkout / "examples" / "pytorch" / "basics"))
    example = importlib.import_module("backbone_image_classifier")
    # begin
    data = ActiveDataModule.from_datamodule(example.MyDataModule(), **SIZES)
    model = partial(example.LitClassifier, learning_rate=1e-3)
    loop = ActiveLearningLoop(model, data, trainer=partial(L.Trainer, max_epochs=10))
    # end
    return loop


def autoencoder(checkout: Path) -> Any:
    """Lightning's examples: the data module of autoencoder, whose split is not seeded."""
    sys.path.insert(0, str(checkout / "examples" / "pytorch" / "basics"))
    example = importlib.import_module("autoencoder")
    classifier = importlib.import_module("backbone_image_classifier").LitClassifier
    # begin
    data = ActiveDataModule.from_datamodule(example.MyDataModule(), **SIZES)
    loop = ActiveLearningLoop(classifier(), data, trainer=partial(L.Trainer, max_epochs=3))
    # end
    return loop


def demo(checkout: Path) -> Any:
    """Lightning itself: its demo of an MNIST data module."""
    module = importlib.import_module("lightning.pytorch.demos.mnist_datamodule")
    sys.path.insert(0, str(checkout / "examples" / "pytorch" / "basics"))
    classifier = importlib.import_module("backbone_image_classifier").LitClassifier
    # begin
    data = ActiveDataModule.from_datamodule(module.MNISTDataModule("data"), **SIZES)
    loop = ActiveLearningLoop(classifier(), data, trainer=partial(L.Trainer, max_epochs=3))
    # end
    return loop


class Pictures(L.LightningModule):
    """Tells pictures apart by a small network; stands for one that is downloaded."""

    def __init__(self, key: str | int, num_outputs: int) -> None:
        super().__init__()
        self.key = key
        pooled = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten())
        self.net = nn.Sequential(pooled, nn.Linear(48, num_outputs))

    def forward(self, batch: Any) -> Any:
        """Return logits."""
        return self.net(batch["image"] if isinstance(batch, dict) else batch)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        inputs = batch if isinstance(batch, dict) else batch[0]
        logits, labels = self(inputs), batch[self.key]
        if logits.shape[1] == 1:
            return nn.functional.binary_cross_entropy_with_logits(logits[:, 0], labels.float())
        return nn.functional.cross_entropy(logits, labels)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test_acc", (self(batch).argmax(-1) == batch[self.key]).float().mean())

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), 1e-3)


def draw(folder: Path, classes: list[str], num: int, side: int = 64) -> list[str]:
    """Draw noisy pictures, each class of another mean colour; return the names of the files."""
    names = []
    for c, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(num):
            rng = np.random.default_rng([c, i, len(str(folder))])
            pixels = rng.normal(128, 60, (side, side, 3)) + 30 * np.eye(3)[c % 3]
            names.append(f"{name}_{i:03}.jpg")
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name / names[-1])
    return names


def cats_and_dogs(checkout: Path) -> Any:
    """Lightning's examples: the folder of images of computer_vision_fine_tuning."""
    sys.path.insert(0, str(checkout / "examples" / "pytorch" / "domain_templates"))
    example = importlib.import_module("computer_vision_fine_tuning")
    place = Path(tempfile.mkdtemp())
    for part in ("train", "validation"):
        draw(place / "cats_and_dogs_filtered" / part, ["cats", "dogs"], 60)
    datamodule = example.CatDogImageDataModule(place)
    datamodule.prepare_data = lambda: None  # its pictures are downloaded
    sizes = {"initial_labeled_size": 20, "pool_transform": datamodule.valid_transform}
    # begin
    data = ActiveDataModule.from_datamodule(datamodule, **sizes)
    trainer = partial(L.Trainer, max_epochs=3)
    loop = ActiveLearningLoop(Pictures(1, 1), data, trainer=trainer, task="binary")
    # end
    return loop


def torchgeo(checkout: Path) -> Any:
    """torchgeo: RESISC45DataModule, whose augmentation is in its transfer hooks."""
    datamodules = importlib.import_module("torchgeo.datamodules")
    trainers = importlib.import_module("torchgeo.trainers")
    place = Path(tempfile.mkdtemp())
    names = draw(place / "NWPU-RESISC45", ["beach", "bridge", "church"], 40)
    for part, kept in (("train", names[::2]), ("val", names[1::4]), ("test", names[3::4])):
        (place / f"resisc45-{part}.txt").write_text("\n".join(kept))

    class Task(trainers.ClassificationTask):  # type: ignore[misc, name-defined]
        def predict_step(self, batch: Any, batch_idx: int) -> Any:
            return self(batch["image"])  # logits, not probabilities

    model = Task(model="resnet18", num_classes=3)
    datamodule = datamodules.RESISC45DataModule(8, root=place)
    # begin
    data = ActiveDataModule.from_datamodule(datamodule, initial_labeled_size=20)
    loop = ActiveLearningLoop(model, data, trainer=partial(L.Trainer, max_epochs=2))
    # end
    return loop


PROJECTS: dict[str, list[Callable[[Path], Any]]] = {
    "hydra": [hydra],
    "lightning": [backbone, autoencoder, demo, cats_and_dogs],
    "torchgeo": [torchgeo],
}


def num_lines(project: Callable[[Path], Any]) -> int:
    lines = inspect.getsource(project).splitlines()
    begin, end = (next(i for i, s in enumerate(lines) if s.strip() == f"# {w}") for w in WORDS)
    return end - begin - 1


WORDS = ("begin", "end")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("which", choices=PROJECTS)
    parser.add_argument("--checkout", type=Path, default=Path())
    given = parser.parse_args()
    for project in PROJECTS[given.which]:
        made = project(given.checkout.resolve())
        few = {"acquisition_size": 20, "num_cycles": 2, "candidate_size": 2000}
        options = {"task": made.task, "ckpt_path": made.ckpt_path, "strategy": made.strategy}
        quiet = partial(made.trainer, enable_progress_bar=False, logger=False)
        model = made._cycles.start._make or made.model
        loop = ActiveLearningLoop(model, made.data, trainer=quiet, monitors=[], **options, **few)
        results = loop.run()
        metrics = {
            name: round(value, 3)
            for name, value in results[-1].metrics.items()
            if name.startswith(("test", "val"))
        }
        sizes = [result.num_labeled for result in results]
        print(
            f"{project.__name__}: {num_lines(project)} lines, labels {sizes}, {metrics}", flush=True
        )


if __name__ == "__main__":
    main()
