"""MNIST as the papers with few labels use it: balanced start, long epochs, copies with noise."""

from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from al_lightning import ActiveMNISTDataModule, DataSets
from al_lightning.mnist import DigitImages

NUM_VALIDATION = 1024
PIXEL_MEAN, PIXEL_STD = 0.1307, 0.3081


class Normalized(Dataset[tuple[Tensor, int]]):
    """Images in units of the pixels' standard deviation, in memory; a batch is cut out at once.

    Args:
        images_N1HW: float32.
        targets_N: Digits, int64.
    """

    def __init__(self, images_N1HW: Tensor, targets_N: Tensor) -> None:
        self.images_N1HW = images_N1HW
        self.targets = targets_N

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images_N1HW[index], int(self.targets[index])

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        rows = torch.tensor(indices)
        return self.images_N1HW[rows], self.targets[rows]


class PaperMNIST(ActiveMNISTDataModule):
    """20 labels, two of each digit, to begin with; the last 1,024 training images validate.

    An epoch is 5,056 draws with replacement from the labeled rows (Kirsch et al. 2019,
    arXiv:1906.08158, appendix). Repeated-MNIST (section 4.1) has ``copies=5, noise=0.1``.

    Args:
        data_dir: Where the MNIST files are, or come to be.
        num_images: Distinct images of the pool, the first of the training set; all but those that
            validate when not given.
        copies: How often each image is in the pool.
        noise: Standard deviation of what is added to each pixel of each copy, in units of the
            pixels' own; the same in every run.
        seed: Draws the first labels and the order of training.
    """

    def __init__(
        self,
        data_dir: str | Path = "data",
        num_images: int | None = None,
        copies: int = 1,
        noise: float = 0.0,
        seed: int = 42,
    ) -> None:
        super().__init__(
            data_dir,
            initial_labeled_size=20,
            initial_sampling="balanced",
            batch_size=64,
            epoch_size=5056,
            seed=seed,
        )
        self.num_images = num_images
        self.copies = copies
        self.noise = noise

    def load_sets(self) -> DataSets:
        """Normalizes, holds out, repeats and adds noise."""
        sets = super().load_sets()
        images_N1HW, targets_N = _normalized(sets.train)
        pool_images = images_N1HW[:-NUM_VALIDATION][: self.num_images]
        pool_targets = targets_N[:-NUM_VALIDATION][: self.num_images]
        pool_images = pool_images.repeat(self.copies, 1, 1, 1)
        if self.noise:
            draw = torch.Generator().manual_seed(0)
            pool_images += self.noise * torch.randn(pool_images.shape, generator=draw)
        pool = Normalized(pool_images, pool_targets.repeat(self.copies))
        held_out = Normalized(images_N1HW[-NUM_VALIDATION:], targets_N[-NUM_VALIDATION:])
        return DataSets(
            train=pool, pool=pool, val=held_out, test=Normalized(*_normalized(sets.test))
        )


def _normalized(digits: Dataset[tuple[Tensor, int]] | None) -> tuple[Tensor, Tensor]:
    assert isinstance(digits, DigitImages)
    pixels = digits.images_NHW[:, None].float() / 255
    return (pixels - PIXEL_MEAN) / PIXEL_STD, digits.targets
