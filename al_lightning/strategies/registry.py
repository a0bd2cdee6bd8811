"""Every strategy by its name, and how one is found.

A function here unpacks the pool's outputs for one selector of ``acquisition``; its keyword-only
parameters are the arguments that a configuration may set.
"""

import difflib
import inspect
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor

from al_lightning.acquisition import (
    badge,
    bald,
    batchbald,
    cluster_margin,
    consensus_kl,
    core_set,
    entropy,
    epig,
    kmeans,
    least_confidence,
    margin,
    mean_std,
    probcover,
    top_k,
    typiclust,
    variation_ratio,
    vote_entropy,
)
from al_lightning.strategies.compose import by_score, name_of, power
from al_lightning.strategies.strategy import Column, PoolOutputs, Select, Strategy


def _random(pool: PoolOutputs, num: int, generator: Generator) -> Tensor:
    return torch.randperm(len(pool), generator=generator)[:num]


def _epig(pool: PoolOutputs, num: int, generator: Generator, *, num_targets: int = 100) -> Tensor:
    if num_targets < 1:
        raise ValueError(f"num_targets must be at least 1, got {num_targets}")
    probs_NKC = pool.probs
    # The pool stands for where the model will be used (arXiv:2304.08151).
    targets = torch.randperm(len(pool), generator=generator)[:num_targets]
    return top_k(epig(probs_NKC, probs_NKC[targets]), num)


def _batchbald(
    pool: PoolOutputs, num: int, generator: Generator, *, max_configurations: int = 10_000
) -> Tensor:
    return batchbald(pool.probs, num, generator, max_configurations=max_configurations)


def _core_set(pool: PoolOutputs, num: int, generator: Generator) -> Tensor:
    return core_set(pool.embeddings, pool.labeled_embeddings, num)


def _badge(pool: PoolOutputs, num: int, generator: Generator) -> Tensor:
    return badge(pool.probs, pool.embeddings, num, generator)


def _kmeans(pool: PoolOutputs, num: int, generator: Generator) -> Tensor:
    embeddings_ND = pool.embeddings
    return kmeans(embeddings_ND, embeddings_ND[:0], num, generator)  # labeled rows play no part


def _typiclust(
    pool: PoolOutputs, num: int, generator: Generator, *, max_clusters: int = 500
) -> Tensor:
    labeled = pool.labeled_embeddings
    return typiclust(pool.embeddings, labeled, num, generator, max_clusters=max_clusters)


def _probcover(
    pool: PoolOutputs,
    num: int,
    generator: Generator,
    *,
    delta: float | None = None,
    num_classes: int = 10,
) -> Tensor:
    return probcover(
        pool.embeddings,
        pool.labeled_embeddings,
        num,
        generator,
        delta=delta,
        num_classes=num_classes,
    )


def _cluster_margin(
    pool: PoolOutputs, num: int, generator: Generator, *, candidate_factor: float = 10.0
) -> Tensor:
    probs, embeddings = pool.probs, pool.embeddings
    return cluster_margin(probs, embeddings, num, generator, candidate_factor=candidate_factor)


EMBEDDINGS: dict[str, Column] = {"embeddings": "embedding"}
GRADIENTS: dict[str, Column] = {"probs": "probs", "embeddings": "embedding"}
SAMPLES: dict[str, Column] = {"probs": "probs"}

STRATEGIES: dict[str, Strategy | Select] = {
    "random": Strategy(_random, {}),
    "least_confidence": by_score(least_confidence),
    "margin": by_score(margin),
    "entropy": by_score(entropy),
    "bald": by_score(bald),
    "variation_ratio": by_score(variation_ratio),
    "mean_std": by_score(mean_std),
    "vote_entropy": by_score(vote_entropy),
    "consensus_kl": by_score(consensus_kl),
    "epig": Strategy(_epig, SAMPLES, min_samples=2),
    "power_bald": power(bald),
    "batchbald": Strategy(_batchbald, SAMPLES, min_samples=2),
    "core_set": Strategy(_core_set, EMBEDDINGS, labeled=("embeddings",)),
    "badge": Strategy(_badge, GRADIENTS),
    "kmeans": Strategy(_kmeans, EMBEDDINGS),
    "typiclust": Strategy(_typiclust, EMBEDDINGS, labeled=("embeddings",)),
    "probcover": Strategy(_probcover, EMBEDDINGS, labeled=("embeddings",)),
    "cluster_margin": Strategy(_cluster_margin, GRADIENTS),
}
"""Name to strategy. Add your own: ``STRATEGIES["mine"] = select``."""


def find_strategy(
    strategy: str | Strategy | Select, arguments: Mapping[str, Any] | None = None
) -> Strategy:
    """Find the strategy of that name; a plain ``select`` function gets the probabilities whole.

    Args:
        strategy: A name in :data:`STRATEGIES`, a :class:`Strategy` or a function.
        arguments: Set for its ``select``, by name.

    Raises:
        ValueError: for an unknown name (tells the nearest), or an argument it does not take.
        TypeError: for anything but a name, a Strategy or a function.

    >>> find_strategy("power_bald", {"beta": 4.0}).keep["scores"] is bald
    True
    """
    name = strategy if isinstance(strategy, str) else ""
    if isinstance(strategy, str):
        if strategy not in STRATEGIES:
            near = difflib.get_close_matches(strategy, STRATEGIES, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(
                f"strategy must be one of {sorted(STRATEGIES)}, got {strategy!r}; {hint}"
                "add your own with STRATEGIES[name] = select"
            )
        strategy = STRATEGIES[strategy]
    if not isinstance(strategy, Strategy):
        if not callable(strategy):
            raise TypeError(
                "strategy must be a name, a Strategy or a function select(pool, num, generator), "
                f"got {type(strategy).__name__}"
            )
        strategy = Strategy(strategy)
    if not arguments:
        return strategy
    taken = arguments_of(strategy.select)
    if unknown := sorted(set(arguments) - set(taken)):
        takes = f"takes {taken}" if taken else "takes no arguments"
        raise ValueError(f"strategy {name or strategy_name(strategy)!r} {takes}, got {unknown}")
    return replace(strategy, select=partial(strategy.select, **arguments))


def strategy_name(strategy: str | Strategy | Select) -> str:
    """Return the strategy's name in :data:`STRATEGIES`, or its own, for a journal."""
    if isinstance(strategy, str):
        return strategy
    names = [name for name, known in STRATEGIES.items() if known is strategy]
    if names:
        return names[0]
    if isinstance(strategy, Strategy) and strategy.name:
        return strategy.name
    return name_of(strategy.select if isinstance(strategy, Strategy) else strategy)


def arguments_of(select: Select) -> list[str]:
    """Return the names of the keyword-only parameters, which are the strategy's own."""
    parameters = inspect.signature(select).parameters.values()
    return sorted(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)
