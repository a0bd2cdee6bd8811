"""Fixtures shared by all tests."""

from pathlib import Path

import pytest

from al_lightning.mnist import ensure_mnist

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """A data folder with the real MNIST, fetched once and kept beside the checkout."""
    ensure_mnist(ROOT / "data")
    return ROOT / "data"
