"""Query strategies: from what the model says of the pool to the rows worth a label."""

from al_lightning.strategies.registry import STRATEGIES, find_strategy, strategy_name
from al_lightning.strategies.strategy import (
    Need,
    PoolOutputs,
    Select,
    Strategy,
    by_score,
    checked_positions,
    diverse,
    power,
    softmax,
    softrank,
)

__all__ = [
    "STRATEGIES",
    "Need",
    "PoolOutputs",
    "Select",
    "Strategy",
    "by_score",
    "checked_positions",
    "diverse",
    "find_strategy",
    "power",
    "softmax",
    "softrank",
    "strategy_name",
]
