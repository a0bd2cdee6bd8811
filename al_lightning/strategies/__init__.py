"""Query strategies: from what the model says of the pool to the rows worth a label."""

from al_lightning.strategies.compose import by_score, diverse, power, softmax, softrank
from al_lightning.strategies.compositions import mix, per_class, schedule
from al_lightning.strategies.limits import limited, strategy_of
from al_lightning.strategies.registry import STRATEGIES, find_strategy, strategy_name
from al_lightning.strategies.replay import replay
from al_lightning.strategies.strategy import Column, PoolOutputs, Select, Strategy, needs_of

__all__ = [
    "STRATEGIES",
    "Column",
    "PoolOutputs",
    "Select",
    "Strategy",
    "by_score",
    "diverse",
    "find_strategy",
    "limited",
    "mix",
    "needs_of",
    "per_class",
    "power",
    "replay",
    "schedule",
    "softmax",
    "softrank",
    "strategy_name",
    "strategy_of",
]
