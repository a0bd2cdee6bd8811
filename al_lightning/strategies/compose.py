"""Strategies made from scores and selectors: highest scores, draws by score, a diverse choice."""

import inspect
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from torch import Generator, Tensor

from al_lightning.acquisition import (
    bald,
    consensus_kl,
    gaussian_bald,
    mean_std,
    predictive_variance,
    stochastic,
    top_k,
    variation_ratio,
    vote_entropy,
)
from al_lightning.acquisition.checks import checked_embeddings
from al_lightning.acquisition.stochastic import Kind
from al_lightning.strategies.strategy import PoolOutputs, Score, Strategy

OF_SAMPLES = (
    bald,
    consensus_kl,
    gaussian_bald,
    mean_std,
    predictive_variance,
    variation_ratio,
    vote_entropy,
)
"""Scores that compare samples; with one sample all rows are equal, and the choice is random."""


def by_score(score: Score, *, min_samples: int | None = None) -> Strategy:
    """Make a strategy that takes the rows with the highest ``score(probs) -> scores_N``.

    Args:
        score: Row-wise, higher = label sooner; or ``"score"``, the module's own.
        min_samples: The least number of posterior samples that it needs. When not given, 2 for the
            scores of ``acquisition`` that compare samples, and 1 for all others.

    >>> import torch
    >>> strategy = by_score(lambda probs_NC: 1 - probs_NC.amax(-1))
    >>> scores = strategy.keep["scores"](torch.eye(3) * 0.5 + 0.2)
    >>> strategy.choose(PoolOutputs(torch.arange(3), scores=scores), 1, torch.Generator())
    tensor([0])
    """
    return _of_score(_highest_scores, score, name_of(score), min_samples)


def power(score: Score, *, beta: float = 1.0) -> Strategy:
    """Make a strategy that draws rows in proportion to ``score ** beta``.

    A batch then holds fewer copies than the rows with the highest scores do, at the same cost:
    Kirsch et al. 2023, arXiv:2106.12059.

    >>> power(bald, beta=8.0).name
    'power(bald)'
    """
    return _of_score(partial(_drawn, "power", beta=beta), score, f"power({name_of(score)})")


def softmax(score: Score, *, beta: float = 1.0) -> Strategy:
    """Make a strategy that draws rows in proportion to ``exp(beta * score)``; see :func:`power`."""
    return _of_score(partial(_drawn, "softmax", beta=beta), score, f"softmax({name_of(score)})")


def softrank(score: Score, *, beta: float = 1.0) -> Strategy:
    """Make a strategy that draws rows in proportion to ``rank ** -beta``; see :func:`power`."""
    return _of_score(partial(_drawn, "softrank", beta=beta), score, f"softrank({name_of(score)})")


def diverse(score: Score, *, by: Callable[..., Tensor], factor: float = 10.0) -> Strategy:
    """Make a strategy that takes a diverse ``num`` of the ``factor * num`` highest scores.

    Args:
        score: Row-wise, higher = label sooner.
        by: A selector of embeddings, ``by(embeddings, labeled, num)``, with ``generator`` if it
            takes one: ``core_set``, ``kmeans``, ``typiclust``, ``probcover``.
        factor: Number of candidates for each row to choose; at least 1.

    Raises:
        ValueError: when ``factor`` is below 1.

    References:
        Filter by uncertainty, then cluster: Zhdanov 2019, arXiv:1901.05954, section 3.1, with
        ``factor`` its beta.

    >>> from al_lightning.acquisition import core_set, margin
    >>> diverse(margin, by=core_set).name
    'diverse(margin, by=core_set)'
    """
    if not factor >= 1:
        raise ValueError(f"factor must be at least 1, got {factor}; it multiplies the batch")
    return Strategy(
        partial(_diverse, by=by, factor=factor),
        {"scores": score, "embeddings": "embedding"},
        labeled=("embeddings",),
        min_samples=_least(score),
        name=f"diverse({name_of(score)}, by={name_of(by)})",
    )


class OfColumns:
    """Chooses by a selector of ``acquisition``, which gets columns of the pool.

    Args:
        selector: Called as ``selector(*columns, num)``, with ``generator`` if it takes one.
        columns: Names of the columns, in the order of its parameters.
    """

    def __init__(self, selector: Callable[..., Tensor], *columns: str) -> None:
        self.selector = selector
        self.columns = columns
        self.__signature__ = inspect.signature(selector)  # its own arguments are the strategy's
        self.__qualname__ = name_of(selector)

    def __call__(
        self, pool: PoolOutputs, num: int, generator: Generator, **arguments: Any
    ) -> Tensor:
        columns = (getattr(pool, name) for name in self.columns)
        return _selected(self.selector, columns, num, generator, **arguments)


def name_of(function: Callable[..., Any] | str) -> str:
    """Return a function's name, that of a callable object's class, or a name itself."""
    if isinstance(function, str):
        return function
    return getattr(function, "__qualname__", type(function).__name__)


def _of_score(
    select: Callable[..., Tensor], score: Score, name: str, min_samples: int | None = None
) -> Strategy:
    least = _least(score) if min_samples is None else min_samples
    return Strategy(select, {"scores": score}, min_samples=least, name=name)


def _least(score: Score) -> int:
    return 2 if getattr(score, "score", score) in OF_SAMPLES else 1


def _highest_scores(pool: PoolOutputs, num: int, generator: Generator) -> Tensor:
    return top_k(pool.scores, num)


def _drawn(kind: Kind, pool: PoolOutputs, num: int, generator: Generator, *, beta: float) -> Tensor:
    return stochastic(pool.scores, num, kind, beta, generator=generator)


def _diverse(
    pool: PoolOutputs,
    num: int,
    generator: Generator,
    *,
    by: Callable[..., Tensor],
    factor: float,
) -> Tensor:
    best = top_k(pool.scores, int(factor * num))
    embeddings_ND = checked_embeddings(pool.embeddings)  # also where no candidate is
    return best[_selected(by, (embeddings_ND[best], pool.labeled_embeddings), num, generator)]


def _selected(
    selector: Callable[..., Tensor],
    inputs: Iterable[Tensor],
    num: int,
    generator: Generator,
    **arguments: Any,
) -> Tensor:
    if "generator" in inspect.signature(selector).parameters:
        arguments["generator"] = generator
    return selector(*inputs, num, **arguments)
