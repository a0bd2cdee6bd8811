"""The mathematics of choosing: pure functions on tensors, on any device, importing torch alone."""

from al_lightning.acquisition.disagreement import (
    bald,
    consensus_kl,
    mean_std,
    variation_ratio,
    vote_entropy,
)
from al_lightning.acquisition.epig import epig
from al_lightning.acquisition.scores import entropy, least_confidence, margin
from al_lightning.acquisition.stochastic import stochastic
from al_lightning.acquisition.top_k import top_k

__all__ = [
    "bald",
    "consensus_kl",
    "entropy",
    "epig",
    "least_confidence",
    "margin",
    "mean_std",
    "stochastic",
    "top_k",
    "variation_ratio",
    "vote_entropy",
]
