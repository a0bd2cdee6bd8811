"""MNIST as an active data module: 60,000 training digits are the pool, 10,000 others the test.

Shape suffixes: N images, B batch rows, H W height and width.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets import FashionMNIST

from al_lightning.data.datamodule import ActiveDataModule
from al_lightning.data.sets import DataSets
from al_lightning.mnist.files import FILES, ensure_fashion_mnist, ensure_mnist, read_idx


class DigitImages(Dataset[tuple[Tensor, int]]):
    """Holds all images as one uint8 tensor and takes a whole batch from it in two operations.

    An item is what torchvision's MNIST gives under ``ToTensor``: an image (1, 28, 28), float32 in
    [0, 1], and its digit.

    Args:
        images_NHW: Pixels, uint8.
        targets: Digits (N,), uint8 or int64.
    """

    classes = tuple("0123456789")

    def __init__(self, images_NHW: Tensor, targets: Tensor) -> None:
        self.images_NHW = images_NHW
        self.targets = targets.long()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return _pixels_to_float(self.images_NHW[index][None]), int(self.targets[index])

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return a collated batch: images (B, 1, 28, 28) and digits (B,), int64."""
        rows = torch.tensor(indices)
        return _pixels_to_float(self.images_NHW[rows][:, None]), self.targets[rows]


class FashionImages(DigitImages):
    """Holds pictures of clothes as :class:`DigitImages` holds digits."""

    classes = tuple(FashionMNIST.classes)


def _pixels_to_float(pixels: Tensor) -> Tensor:
    return pixels.float().div_(255)


class ActiveMNISTDataModule(ActiveDataModule):
    """Serves MNIST with a labeled part that grows; downloads the files at the first use.

    Args:
        data_dir: The folder of the four files; missing files are fetched into it.
        name: ``"MNIST"``, or ``"FashionMNIST"`` for as many pictures of clothes.
        initial_labeled_size: Number of rows that are labeled from the start.
        initial_sampling: ``"random"``, the tutorial's shuffle, or ``"balanced"`` over the digits.
        val_size: Number of training rows held out of the pool for validation.
        batch_size: Rows in a training batch.
        epoch_size: Rows in a training epoch, drawn with replacement. When not given, each labeled
            row comes once.
        steps_per_epoch: The same in batches.
        unlabeled_batch_size: Images of the pool beside each training batch, without their labels,
            for a module that can use them.
        eval_batch_size: Rows in a batch of validation, test and prediction. When not given, 128 on
            a CPU, whose caches hold no more, and 4096 on an accelerator.
        num_workers: Loader processes. The images are in memory, so 0 is fastest.
        seed: Draws the initial rows, the held-out rows and the order of training batches.
    """

    def __init__(
        self,
        data_dir: str | Path = "data",
        name: Literal["MNIST", "FashionMNIST"] = "MNIST",
        initial_labeled_size: int = 1000,
        initial_sampling: Literal["random", "balanced"] = "random",
        val_size: int = 0,
        batch_size: int = 64,
        epoch_size: int | None = None,
        steps_per_epoch: int | None = None,
        unlabeled_batch_size: int | None = None,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 42,
    ) -> None:
        super().__init__(
            initial_labeled_size=initial_labeled_size,
            initial_sampling=initial_sampling,
            val_size=val_size,
            batch_size=batch_size,
            epoch_size=epoch_size,
            steps_per_epoch=steps_per_epoch,
            unlabeled_batch_size=unlabeled_batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            seed=seed,
        )
        if name not in ("MNIST", "FashionMNIST"):
            raise ValueError(f"name must be MNIST or FashionMNIST, got {name!r}")
        self.data_dir = Path(data_dir)
        self._is_fashion = name == "FashionMNIST"
        self._auto_batch = eval_batch_size is None
        self._folder: Path | None = None

    def _ensure(self) -> Path:
        return (ensure_fashion_mnist if self._is_fashion else ensure_mnist)(self.data_dir)

    def prepare_data(self) -> None:
        """Fetch and verify the files once; Lightning calls this before each fit."""
        if self._folder is None:
            self._folder = self._ensure()

    def setup(self, stage: str | None = None) -> None:
        """Read the files once; choose the size of evaluation batches by the Trainer's device."""
        super().setup(stage)
        if self._auto_batch and self.trainer is not None:
            on_cpu = self.trainer.strategy.root_device.type == "cpu"
            self.eval_batch_size = 128 if on_cpu else 4096

    def load_sets(self) -> DataSets:
        """Read the four IDX files; fetch them first if this process has not prepared the data."""
        folder = self._folder or self._ensure()
        train_images, train_labels, test_images, test_labels = (
            read_idx(folder / name) for name in FILES
        )
        images = FashionImages if self._is_fashion else DigitImages
        train = images(train_images, train_labels)
        return DataSets(train=train, pool=train, test=images(test_images, test_labels))
