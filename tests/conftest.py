"""Fixtures shared by all tests, and how they are dealt to workers."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parent.parent
MAX_WORKERS = 8
"""Each holds a gigabyte, and what takes longest is one test."""
PROCESSES_FIRST = ("test_compare", "test_ddp", "test_examples", "test_processes", "test_label_page")
"""Files with tests of many seconds, which must not be the last to begin."""
SHARED = {"ran", "commanded", "finished", "alone"}
"""Fixtures of many seconds: tests that share one have one worker."""

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch when it is imported
    assert "torch" not in sys.modules

# A loaded machine is slow, which is no fault of what is tested.
settings.register_profile(
    "tests", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("tests")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One worker a core for all tests; none where files or names are given, which start at once."""
    if config.option.keyword or any(Path(arg.split("::")[0]).is_file() for arg in config.args):
        return 0
    return min(len(os.sched_getaffinity(0)), MAX_WORKERS)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for name in sorted(SHARED.intersection(getattr(item, "fixturenames", ()))):
            item.add_marker(pytest.mark.xdist_group(f"{item.path.stem} {name}"))
            break
    items.sort(key=lambda item: item.path.stem not in PROCESSES_FIRST)


@pytest.fixture
def no_pictures(monkeypatch):
    """A run draws empty pictures: real ones take longer than all else in a small run."""
    from matplotlib.figure import Figure

    from al_lightning.monitor import pictures, tensorboard

    for module in (pictures, tensorboard):
        monkeypatch.setattr(module, "progress_figure", lambda results: Figure((1, 1)))
        monkeypatch.setattr(module, "query_figure", lambda loop, result: None)


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """A data folder with the real MNIST, fetched once and kept beside the checkout."""
    from al_lightning.mnist import ensure_mnist  # in a worker alone: it imports torch

    ensure_mnist(ROOT / "data")
    return ROOT / "data"
