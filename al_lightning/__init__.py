"""Active learning for PyTorch Lightning: keep your LightningModule, make your data active.

Each name is imported when it is used. So ``import al_lightning`` takes no time, and a command that
needs no torch imports none.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from al_lightning.acquisition import over_parts as over_parts
    from al_lightning.cli import ActiveCLI as ActiveCLI
    from al_lightning.data.datamodule import ActiveDataModule as ActiveDataModule
    from al_lightning.data.image_pool import ImagePool as ImagePool
    from al_lightning.data.images import ActiveImageDataModule as ActiveImageDataModule
    from al_lightning.data.sets import DataSets as DataSets
    from al_lightning.loop import ActiveLearningLoop as ActiveLearningLoop
    from al_lightning.mnist import ActiveMNISTDataModule as ActiveMNISTDataModule
    from al_lightning.mnist.model import LitSimpleCNN as LitSimpleCNN
    from al_lightning.monitor import Console as Console
    from al_lightning.monitor import Exchange as Exchange
    from al_lightning.monitor import Monitor as Monitor
    from al_lightning.monitor import Pictures as Pictures
    from al_lightning.monitor import Tables as Tables
    from al_lightning.monitor import TensorBoard as TensorBoard
    from al_lightning.prediction.cached import cache_features as cache_features
    from al_lightning.prediction.ensemble import Ensemble as Ensemble
    from al_lightning.prediction.mc_dropout import MCDropout as MCDropout
    from al_lightning.run.records import INVALID as INVALID
    from al_lightning.run.records import SKIP as SKIP
    from al_lightning.run.records import CycleResult as CycleResult
    from al_lightning.run.records import Query as Query
    from al_lightning.strategies import STRATEGIES as STRATEGIES
    from al_lightning.strategies import PoolOutputs as PoolOutputs
    from al_lightning.strategies import Strategy as Strategy
    from al_lightning.strategies import by_score as by_score
    from al_lightning.strategies import diverse as diverse
    from al_lightning.strategies import limited as limited
    from al_lightning.strategies import mix as mix
    from al_lightning.strategies import per_class as per_class
    from al_lightning.strategies import power as power
    from al_lightning.strategies import schedule as schedule
    from al_lightning.strategies import softmax as softmax
    from al_lightning.strategies import softrank as softrank

_NAMES = {
    "cli": "ActiveCLI",
    "data.datamodule": "ActiveDataModule",
    "data.sets": "DataSets",
    "data.images": "ActiveImageDataModule",
    "data.image_pool": "ImagePool",
    "loop": "ActiveLearningLoop",
    "mnist": "ActiveMNISTDataModule",
    "mnist.model": "LitSimpleCNN",
    "monitor": "Console Exchange Monitor Pictures Tables TensorBoard",
    "prediction.cached": "cache_features",
    "prediction.ensemble": "Ensemble",
    "prediction.mc_dropout": "MCDropout",
    "run.records": "INVALID SKIP CycleResult Query",
    "acquisition": "over_parts",
    "strategies": "STRATEGIES PoolOutputs Strategy by_score diverse power softmax softrank "
    "limited mix per_class schedule",
}
"""Public names by module, for Python; the imports above are for type checkers."""

_MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}
_ROOMS = ("acquisition", "mnist", "monitor", "strategies")
"""Folders that are reached as attributes too: ``al_lightning.acquisition.bald``."""

__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    """Import a public name when it is used."""
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS})
