"""Active learning for PyTorch Lightning: keep your LightningModule, make your data active."""

from al_lightning.cli import ActiveCLI
from al_lightning.data.datamodule import ActiveDataModule
from al_lightning.data.images import ActiveImageDataModule, ImagePool
from al_lightning.data.sets import DataSets
from al_lightning.label.answers import INVALID, SKIP
from al_lightning.loop import DEFAULT_MONITORS, ActiveLearningLoop, Monitor
from al_lightning.mnist import ActiveMNISTDataModule
from al_lightning.mnist.model import LitSimpleCNN
from al_lightning.monitor import Console, Exchange, Pictures, Tables, TensorBoard
from al_lightning.prediction.ensemble import Ensemble
from al_lightning.prediction.mc_dropout import MCDropout
from al_lightning.run.records import CycleResult, Query
from al_lightning.strategies import (
    STRATEGIES,
    PoolOutputs,
    Strategy,
    by_score,
    diverse,
    power,
    softmax,
    softrank,
)

DEFAULT_MONITORS.extend([Tables, TensorBoard, Pictures, Exchange, Console])

__all__ = [
    "INVALID",
    "SKIP",
    "STRATEGIES",
    "ActiveCLI",
    "ActiveDataModule",
    "ActiveImageDataModule",
    "ActiveLearningLoop",
    "ActiveMNISTDataModule",
    "CycleResult",
    "DataSets",
    "Ensemble",
    "Exchange",
    "ImagePool",
    "LitSimpleCNN",
    "MCDropout",
    "Monitor",
    "PoolOutputs",
    "Query",
    "Strategy",
    "by_score",
    "diverse",
    "power",
    "softmax",
    "softrank",
]
