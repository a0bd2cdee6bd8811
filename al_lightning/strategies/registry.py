"""Every strategy by its name, and how one is found.

The keyword-only parameters of a selector or function are the arguments that a configuration may
set. Those that are made of others join the table in :mod:`al_lightning.strategies.compositions`.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor

from al_lightning.acquisition import (
    badge,
    bait,
    bald,
    batchbald,
    cluster_margin,
    consensus_kl,
    core_set,
    direct,
    drop_query,
    entropy,
    epig,
    gaussian_bald,
    kmeans,
    least_confidence,
    margin,
    max_herding,
    mean_std,
    predictive_variance,
    probcover,
    top_k,
    typiclust,
    uncertainty_herding,
    variation_ratio,
    vote_entropy,
)
from al_lightning.acquisition.checks import checked_embeddings
from al_lightning.acquisition.scores import mean_probs
from al_lightning.settings import check_at_least, hint
from al_lightning.statistics import calibration
from al_lightning.strategies.compose import OfColumns, by_score, name_of, power
from al_lightning.strategies.strategy import Column, PoolOutputs, Select, Strategy


def _random(pool: PoolOutputs, num: int, generator: Generator) -> Tensor:
    return torch.randperm(len(pool), generator=generator)[:num]


def _epig(pool: PoolOutputs, num: int, generator: Generator, *, num_targets: int = 100) -> Tensor:
    check_at_least(1, num_targets=num_targets)
    probs_NKC = pool.probs
    # The pool stands for where the model will be used (arXiv:2304.08151).
    targets = torch.randperm(len(pool), generator=generator)[:num_targets]
    return top_k(epig(probs_NKC, probs_NKC[targets]), num)


def _kmeans(pool: PoolOutputs, num: int, generator: Generator) -> Tensor:
    embeddings_ND = pool.embeddings
    return kmeans(embeddings_ND, embeddings_ND[:0], num, generator)  # labeled rows play no part


def _bait(
    pool: PoolOutputs, num: int, generator: Generator, *, regularization: float = 1.0
) -> Tensor:
    return bait(
        pool.probs,
        pool.embeddings,
        num,
        labeled_probs=pool.labeled_probs if len(pool.labeled_probs) else None,
        labeled_embeddings=pool.labeled_embeddings if len(pool.labeled_probs) else None,
        regularization=regularization,
    )


def _direct(pool: PoolOutputs, num: int, generator: Generator) -> Tensor:
    if "labeled_labels" not in pool.columns:
        return direct(pool.probs, num)
    labels = pool.labeled_labels
    return direct(pool.probs, num, labeled_probs=pool.labeled_probs, labels=labels)


def _drop_query(pool: PoolOutputs, num: int, generator: Generator) -> Tensor:
    flips_NK = checked_embeddings(pool.flips, "flips")
    counts_N = flips_NK.sum(1).long()
    return drop_query(counts_N, pool.embeddings, num, generator, num_passes=flips_NK.shape[1])


def _uncertainty_herding(
    pool: PoolOutputs,
    num: int,
    generator: Generator,
    *,
    bandwidth: float | None = None,
    temperature: float | None = None,
) -> Tensor:
    if temperature is None:
        temperature = _calibrated(pool)
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}; 1 changes nothing")
    uncertainty_N = margin(calibration.sharpened(mean_probs(pool.probs), temperature))
    covered = pool.embeddings, pool.labeled_embeddings
    return uncertainty_herding(uncertainty_N, *covered, num, bandwidth=bandwidth)


def _calibrated(pool: PoolOutputs) -> float:
    """Return the temperature that calibrates the validation rows; 1 where there are none."""
    if "validation_labels" not in pool.columns:
        return 1.0
    return calibration.temperature(mean_probs(pool.validation_probs), pool.validation_labels)


EMBEDDINGS: dict[str, Column] = {"embeddings": "embedding"}
GRADIENTS: dict[str, Column] = {"probs": "probs", "embeddings": "embedding"}
SAMPLES: dict[str, Column] = {"probs": "probs"}
COVERED = ("embeddings", "labeled_embeddings")  # for selectors that look at labeled rows too

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
    "predictive_variance": by_score(predictive_variance),
    "gaussian_bald": by_score(gaussian_bald),
    "greedy_outputs": Strategy(
        OfColumns(core_set, "means", "labeled_means"), {"means": "mean"}, labeled=("means",)
    ),
    "score": by_score("score"),
    "batchbald": Strategy(OfColumns(batchbald, "probs"), SAMPLES, min_samples=2),
    "core_set": Strategy(OfColumns(core_set, *COVERED), EMBEDDINGS, labeled=("embeddings",)),
    "badge": Strategy(OfColumns(badge, *GRADIENTS), GRADIENTS),
    "kmeans": Strategy(_kmeans, EMBEDDINGS),
    "typiclust": Strategy(OfColumns(typiclust, *COVERED), EMBEDDINGS, labeled=("embeddings",)),
    "probcover": Strategy(OfColumns(probcover, *COVERED), EMBEDDINGS, labeled=("embeddings",)),
    "max_herding": Strategy(OfColumns(max_herding, *COVERED), EMBEDDINGS, labeled=("embeddings",)),
    "uncertainty_herding": Strategy(
        _uncertainty_herding, GRADIENTS, labeled=("embeddings",), validation=("probs",)
    ),
    "bait": Strategy(_bait, GRADIENTS, labeled=("probs", "embeddings")),
    "direct": Strategy(_direct, SAMPLES, labeled=("probs",), labels=True),
    "drop_query": Strategy(
        _drop_query, {"flips": "flips", "embeddings": "embedding"}, min_samples=2
    ),
    "cluster_margin": Strategy(OfColumns(cluster_margin, *GRADIENTS), GRADIENTS),
}
"""Name to strategy. Add your own: ``STRATEGIES["mine"] = select``."""

ON_REQUEST: dict[str, Callable[..., Strategy]] = {}
"""Name to the function that makes a strategy which is nothing without its arguments."""


def find_strategy(
    strategy: str | Strategy | Select, arguments: Mapping[str, Any] | None = None
) -> Strategy:
    """Find the strategy of that name; a plain ``select`` function gets the probabilities whole.

    Args:
        strategy: A name in :data:`STRATEGIES`, a :class:`Strategy` or a function.
        arguments: Arguments of its ``select``, by name.

    Raises:
        ValueError: for an unknown name (names the nearest), or an argument that it does not take.
        TypeError: for anything but a name, a Strategy or a function.

    >>> find_strategy("power_bald", {"beta": 4.0}).keep["scores"] is bald
    True
    """
    name = strategy if isinstance(strategy, str) else ""
    if isinstance(strategy, str):
        if not strategy.strip():
            raise ValueError(
                f"a strategy must have a name, got {strategy!r}; name one of {sorted(STRATEGIES)}"
            )
        if strategy in ON_REQUEST and arguments:
            return _made(strategy, ON_REQUEST[strategy], arguments)
        if strategy not in STRATEGIES:
            if "(" in strategy:
                raise ValueError(
                    f"a strategy that was composed cannot be made from its name, got {strategy!r}; "
                    f"give it itself, also when the run is resumed: strategy={strategy}"
                )
            raise ValueError(
                f"strategy must be one of {sorted(STRATEGIES)}, got {strategy!r}; "
                f"{hint(strategy, STRATEGIES, 0.4)}add your own with STRATEGIES[name] = select"
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
    _check_taken(name or strategy_name(strategy), arguments_of(strategy), arguments)
    if strategy.make is not None:
        return strategy.make(**arguments)
    return replace(strategy, select=partial(strategy.select, **arguments))


def _made(name: str, make: Callable[..., Strategy], arguments: Mapping[str, Any]) -> Strategy:
    _check_taken(name, sorted(inspect.signature(make).parameters), arguments)
    return make(**arguments)


def _check_taken(name: str, taken: list[str], arguments: Mapping[str, Any]) -> None:
    if unknown := sorted(set(arguments) - set(taken)):
        takes = f"takes {taken}" if taken else "takes no arguments"
        raise ValueError(f"strategy {name!r} {takes}, got {unknown}")


def strategy_name(strategy: str | Strategy | Select) -> str:
    """Return the strategy's name in :data:`STRATEGIES`, or else its own name, for a journal."""
    if isinstance(strategy, str):
        return strategy
    names = [name for name, known in STRATEGIES.items() if known is strategy]
    if names:
        return names[0]
    if isinstance(strategy, Strategy) and strategy.name:
        return strategy.name
    return name_of(strategy.select if isinstance(strategy, Strategy) else strategy)


def arguments_of(strategy: Strategy | Select) -> list[str]:
    """Return the names of the arguments that a configuration may set.

    They are those of the function that makes the strategy, or else the keyword-only parameters of
    ``select``.
    """
    if isinstance(strategy, Strategy):
        if strategy.make is not None:
            return sorted(inspect.signature(strategy.make).parameters)
        strategy = strategy.select
    parameters = inspect.signature(strategy).parameters.values()
    return sorted(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)
