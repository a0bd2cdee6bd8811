"""MNIST: getting its files, its active data module, the default network and recipe."""

from pathlib import Path

from al_lightning.mnist.datamodule import ActiveMNISTDataModule, DigitImages
from al_lightning.mnist.files import ensure_mnist, read_idx

RECIPE = Path(__file__).parent / "recipe.yaml"
"""The settings that ``train.py`` has by default, as LightningCLI's YAML."""

__all__ = ["RECIPE", "ActiveMNISTDataModule", "DigitImages", "ensure_mnist", "read_idx"]
