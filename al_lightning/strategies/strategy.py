"""What a query strategy is, and how one is made of scores and selectors.

Shape suffixes: N candidates, M labeled rows, K posterior samples, C classes, D embedding
dimensions.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Generator, Tensor

from al_lightning.acquisition import (
    bald,
    consensus_kl,
    mean_std,
    stochastic,
    top_k,
    variation_ratio,
    vote_entropy,
)
from al_lightning.acquisition.checks import checked_embeddings


@dataclass(frozen=True)
class PoolOutputs:
    """What is known of the candidate rows, all in ascending order of data-set index."""

    indices: Tensor
    """Data-set indices (N,), int64."""
    predicted: Tensor | None = None
    """Likeliest class (N,), int64, when the pool was read."""
    scores: Tensor | None = None
    """(N,), higher = label sooner, for strategies with a score."""
    probs: Tensor | None = None
    """(N, C) or (N, K, C), for strategies that need them whole."""
    embeddings: Tensor | None = None
    """(N, D), for strategies that need them."""
    labeled_embeddings: Tensor | None = None
    """(M, D) of the rows labeled already, for strategies that need them."""

    def __len__(self) -> int:
        return len(self.indices)


Select = Callable[..., Tensor]
"""``select(pool, num, generator) -> positions``: ``num`` distinct positions in ``pool``, int64.

Keyword-only parameters after these three are the strategy's own arguments.
"""

Score = Callable[[Tensor], Tensor]
"""``score(probs) -> scores_N``: row-wise, higher = label sooner."""

Need = Literal["probs", "samples", "embeddings", "labeled_embeddings"]

NEED_SAMPLES: set[Score] = {bald, consensus_kl, mean_std, variation_ratio, vote_entropy}
"""Scores that say nothing of one prediction; with one sample they would rank at random."""


@dataclass(frozen=True)
class Strategy:
    """How rows are chosen, and what must be kept of the model's outputs to choose them.

    Args:
        select: Chooses the positions; see :data:`Select`.
        needs: What the model must give: ``"probs"``; ``"samples"``, which is probabilities
            (N, K, C) with K above 1; ``"embeddings"``; ``"labeled_embeddings"``, which has the
            labeled rows read too. With nothing needed the pool is not read at all.
        score: When given, each batch of probabilities is reduced to scores as the pool is read, and
            ``select`` finds ``pool.scores`` instead of ``pool.probs``: 4 bytes a row, not 4 C.
        name: What a journal calls it; the name of the function when not given.
    """

    select: Select
    needs: frozenset[Need] = frozenset({"probs"})
    score: Score | None = None
    name: str = ""

    def choose(self, pool: PoolOutputs, num: int, generator: Generator) -> Tensor:
        """``select``, held to its word: ``min(num, N)`` distinct int64 positions, best first.

        An empty pool gives none.

        Raises:
            ValueError: when ``select`` returned anything else.
        """
        if not len(pool):
            return torch.empty(0, dtype=torch.int64)
        return checked_positions(self.select(pool, num, generator), num, len(pool))


def checked_positions(positions: Tensor, num: int, pool_size: int) -> Tensor:
    """Returns what a strategy chose, when it kept its word.

    Raises:
        ValueError: unless it is ``min(num, pool_size)`` distinct int64 positions in the pool.
    """
    num = min(num, pool_size)
    if not isinstance(positions, Tensor) or positions.dtype != torch.int64:
        found = positions.dtype if isinstance(positions, Tensor) else type(positions).__name__
        raise ValueError(f"a strategy must return an int64 tensor of positions, got {found}")
    in_range = bool(((positions >= 0) & (positions < pool_size)).all())
    num_distinct = len(set(positions.flatten().tolist()))
    if positions.shape != (num,) or not in_range or num_distinct != num:
        raise ValueError(
            f"a strategy must return {num} distinct positions in 0..{pool_size - 1}, got "
            f"{num_distinct} distinct of shape {tuple(positions.shape)}"
            f"{'' if in_range else ', some out of range'}; they are positions in the pool, not "
            "data-set indices"
        )
    return positions


# ---- compositions --------------------------------------------------------------------------------


def by_score(score: Score) -> Strategy:
    """A strategy that takes the rows with the highest ``score(probs) -> scores_N``.

    >>> import torch
    >>> strategy = by_score(lambda probs_NC: 1 - probs_NC.amax(-1))
    >>> pool = PoolOutputs(torch.arange(3), scores=strategy.score(torch.eye(3) * 0.5 + 0.2))
    >>> strategy.choose(pool, 1, torch.Generator())
    tensor([0])
    """
    return Strategy(_highest_scores, _needs(score), score, _name(score))


def power(score: Score, *, beta: float = 1.0) -> Strategy:
    """A strategy that draws rows in proportion to ``score ** beta``.

    Batches lose the copies that a cut at the top collects, at the same cost: Kirsch et al. 2023,
    arXiv:2106.12059.

    >>> from al_lightning.acquisition import bald
    >>> power(bald, beta=8.0).name
    'power(bald)'
    """
    select = partial(_drawn, "power", beta=beta)
    return Strategy(select, _needs(score), score, f"power({_name(score)})")


def softmax(score: Score, *, beta: float = 1.0) -> Strategy:
    """A strategy that draws rows in proportion to ``exp(beta * score)``; see :func:`power`."""
    select = partial(_drawn, "softmax", beta=beta)
    return Strategy(select, _needs(score), score, f"softmax({_name(score)})")


def softrank(score: Score, *, beta: float = 1.0) -> Strategy:
    """A strategy that draws rows in proportion to ``rank ** -beta``; see :func:`power`."""
    select = partial(_drawn, "softrank", beta=beta)
    return Strategy(select, _needs(score), score, f"softrank({_name(score)})")


def diverse(score: Score, *, by: Callable[..., Tensor], factor: float = 10.0) -> Strategy:
    """A strategy that takes the ``factor * num`` highest scores, and of these a diverse ``num``.

    Args:
        score: Row-wise, higher = label sooner.
        by: A selector of embeddings, ``by(embeddings, labeled, num)``, with ``generator`` if it
            takes one: ``core_set``, ``kmeans``, ``typiclust``, ``probcover``.
        factor: How many candidates for each row to choose; at least 1.

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
    select = partial(_diverse, by=by, factor=factor)
    embeddings: frozenset[Need] = frozenset({"embeddings", "labeled_embeddings"})
    name = f"diverse({_name(score)}, by={_name(by)})"
    return Strategy(select, _needs(score) | embeddings, score, name)


def _highest_scores(pool: PoolOutputs, num: int, generator: Generator) -> Tensor:
    return top_k(given(pool.scores), num)


def _drawn(
    kind: Literal["power", "softmax", "softrank"],
    pool: PoolOutputs,
    num: int,
    generator: Generator,
    *,
    beta: float,
) -> Tensor:
    return stochastic(given(pool.scores), num, kind, beta, generator=generator)


def _diverse(
    pool: PoolOutputs,
    num: int,
    generator: Generator,
    *,
    by: Callable[..., Tensor],
    factor: float,
) -> Tensor:
    best = top_k(given(pool.scores), int(factor * num))
    draws: dict[str, Any] = {}
    if "generator" in inspect.signature(by).parameters:
        draws["generator"] = generator
    embeddings_ND = checked_embeddings(given(pool.embeddings))  # also where no candidate is
    chosen = by(embeddings_ND[best], given(pool.labeled_embeddings), num, **draws)
    return best[chosen]


def given(column: Tensor | None) -> Tensor:
    """A column of the pool that the strategy's needs ask for, so it is there."""
    assert column is not None
    return column


def _needs(score: Score) -> frozenset[Need]:
    return frozenset({"samples"} if score in NEED_SAMPLES else {"probs"})


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", type(function).__name__)
