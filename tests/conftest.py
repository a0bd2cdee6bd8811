"""Fixtures shared by all tests, and how they are dealt to workers."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).parent.parent
WHOLE = ("test_compare", "test_cli", "test_examples", "test_ddp", "test_notebook")
"""Files whose tests share a fixture of many seconds, so that one worker has them all."""
EARLY = (
    "test_processes",
    "test_label_page",
    "test_label_work",
    "test_label_folder",
    "test_import_cost",
)
"""Files with tests of many seconds, which must not be the last to begin."""

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch when it is imported
    assert "torch" not in sys.modules

# A loaded machine is slow, which is no fault of what is tested.
settings.register_profile(
    "tests", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("tests")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """No worker where files or names are given, which start at once; else xdist's own number."""
    if config.option.keyword or any(Path(arg.split("::")[0]).is_file() for arg in config.args):
        return 0
    return None


class ByTest(LoadScopeScheduling):
    """Deals single tests, and some files whole, those first."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0]
        return file if Path(file).stem in WHOLE else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByTest:
    return ByTest(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in EARLY)


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


# ---- the labeling page in a browser; what drives it is imported when a test needs it -------------


@pytest.fixture(scope="module")
def chromium():
    from label_browser import launched

    yield from launched()


@pytest.fixture
def browse(chromium):
    from label_browser import browsing

    yield from browsing(chromium)


@pytest.fixture
def start():
    from label_browser import starting

    yield from starting()


@pytest.fixture
def serve():
    from label_browser import serving

    yield from serving()
