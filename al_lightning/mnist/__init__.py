"""MNIST: how its files are obtained, and its active data module."""

from al_lightning.mnist.datamodule import ActiveMNISTDataModule, DigitImages
from al_lightning.mnist.files import ensure_mnist, read_idx

__all__ = ["ActiveMNISTDataModule", "DigitImages", "ensure_mnist", "read_idx"]
