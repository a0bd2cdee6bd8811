"""The mathematics of choosing: pure functions on tensors, on any device, importing torch alone."""

from al_lightning.acquisition.scores import entropy, least_confidence, margin
from al_lightning.acquisition.top_k import top_k

__all__ = ["entropy", "least_confidence", "margin", "top_k"]
