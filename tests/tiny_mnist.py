"""MNIST in small: four IDX files of drawn digits-to-be, for tests that need a whole run."""

import struct
from pathlib import Path

import torch

from al_lightning.mnist import files


def write_idx(path: Path, values: torch.Tensor) -> None:
    shape = values.shape
    header = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)
    path.write_bytes(header + values.to(torch.uint8).numpy().tobytes())


def write_tiny_mnist(folder: Path, num_train: int = 300, num_test: int = 60) -> None:
    """Images whose class is where a bright bar stands, with noise; learned in a few steps."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = torch.Generator().manual_seed(0)
    for prefix, num in (("train", num_train), ("t10k", num_test)):
        labels = torch.arange(num) % 10
        images = torch.randint(0, 60, (num, 28, 28), generator=draw)
        for image, label in zip(images, labels, strict=True):
            image[:, 2 + 2 * label : 4 + 2 * label] += 190
        write_idx(folder / f"{prefix}-images-idx3-ubyte", images)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", labels)
    assert {path.name for path in folder.iterdir()} == set(files.FILES)
