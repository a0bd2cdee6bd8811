"""MNIST: how its files are obtained, its active data module, and the default recipe."""

from pathlib import Path

from al_lightning.mnist.datamodule import ActiveMNISTDataModule, DigitImages
from al_lightning.mnist.files import ensure_mnist, read_idx

RECIPE = Path(__file__).parent / "recipe.yaml"
"""What ``train.py`` does unless it is told otherwise, as LightningCLI's YAML."""

__all__ = ["RECIPE", "ActiveMNISTDataModule", "DigitImages", "ensure_mnist", "read_idx"]
