"""The mathematics of choosing: pure functions on tensors, on any device, with torch alone."""

from al_lightning.acquisition.badge import badge
from al_lightning.acquisition.bait import bait
from al_lightning.acquisition.batchbald import batchbald
from al_lightning.acquisition.cluster_margin import cluster_margin
from al_lightning.acquisition.core_set import core_set
from al_lightning.acquisition.direct import direct
from al_lightning.acquisition.disagreement import (
    bald,
    consensus_kl,
    mean_std,
    variation_ratio,
    vote_entropy,
)
from al_lightning.acquisition.drop_query import drop_query
from al_lightning.acquisition.epig import epig
from al_lightning.acquisition.herding import max_herding, uncertainty_herding
from al_lightning.acquisition.kmeans import kmeans
from al_lightning.acquisition.over_parts import over_parts
from al_lightning.acquisition.probcover import probcover
from al_lightning.acquisition.regression import gaussian_bald, predictive_variance
from al_lightning.acquisition.scores import entropy, least_confidence, margin
from al_lightning.acquisition.stochastic import stochastic
from al_lightning.acquisition.stratified import stratified
from al_lightning.acquisition.top_k import top_k
from al_lightning.acquisition.typiclust import typiclust

__all__ = [
    "badge",
    "bait",
    "bald",
    "batchbald",
    "cluster_margin",
    "consensus_kl",
    "core_set",
    "direct",
    "drop_query",
    "entropy",
    "epig",
    "gaussian_bald",
    "kmeans",
    "least_confidence",
    "margin",
    "max_herding",
    "mean_std",
    "over_parts",
    "predictive_variance",
    "probcover",
    "stochastic",
    "stratified",
    "top_k",
    "typiclust",
    "uncertainty_herding",
    "variation_ratio",
    "vote_entropy",
]
