"""Query strategies: from what the model says of the pool to the rows worth a label."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from al_lightning.acquisition import entropy, least_confidence, margin, top_k


@dataclass(frozen=True)
class PoolOutputs:
    """What is known of the candidate rows, all in ascending order of data-set index.

    Shape suffixes: N candidates, K posterior samples, C classes, D embedding dimensions.
    """

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

    def __len__(self) -> int:
        return len(self.indices)


Select = Callable[[PoolOutputs, int, Generator], Tensor]
"""``select(pool, num, generator) -> positions``: ``num`` distinct positions in ``pool``, int64."""

Need = Literal["probs", "embeddings"]


@dataclass(frozen=True)
class Strategy:
    """How rows are chosen, and what must be kept of the model's outputs to choose them.

    Args:
        select: Chooses the positions; see :data:`Select`.
        needs: What the model must give. With nothing needed the pool is not read at all.
        score: When given, each batch of probabilities is reduced to scores as the pool is read, and
            ``select`` finds ``pool.scores`` instead of ``pool.probs``: 4 bytes a row, not 4 C.
    """

    select: Select
    needs: frozenset[Need] = frozenset({"probs"})
    score: Callable[[Tensor], Tensor] | None = None


def by_score(score: Callable[[Tensor], Tensor]) -> Strategy:
    """A strategy that takes the rows with the highest ``score(probs) -> scores_N``.

    >>> import torch
    >>> strategy = by_score(lambda probs_NC: 1 - probs_NC.amax(-1))
    >>> pool = PoolOutputs(torch.arange(3), scores=strategy.score(torch.eye(3) * 0.5 + 0.2))
    >>> strategy.select(pool, 1, torch.Generator())
    tensor([0])
    """
    return Strategy(select=_highest_scores, score=score)


def _highest_scores(pool: PoolOutputs, num: int, generator: Generator) -> Tensor:
    assert pool.scores is not None
    return top_k(pool.scores, num)


def _random(pool: PoolOutputs, num: int, generator: Generator) -> Tensor:
    return torch.randperm(len(pool), generator=generator)[:num]


STRATEGIES: dict[str, Strategy | Select] = {
    "random": Strategy(select=_random, needs=frozenset()),
    "least_confidence": by_score(least_confidence),
    "margin": by_score(margin),
    "entropy": by_score(entropy),
}
"""Name to strategy. Add your own: ``STRATEGIES["mine"] = select``."""


def find_strategy(strategy: str | Strategy | Select) -> Strategy:
    """The strategy of that name; a plain ``select`` function gets the probabilities whole.

    Raises:
        ValueError: for an unknown name; tells the nearest.
        TypeError: for anything but a name, a :class:`Strategy` or a function.
    """
    if isinstance(strategy, str):
        if strategy not in STRATEGIES:
            near = difflib.get_close_matches(strategy, STRATEGIES, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(
                f"strategy must be one of {sorted(STRATEGIES)}, got {strategy!r}; {hint}"
                "add your own with STRATEGIES[name] = select"
            )
        strategy = STRATEGIES[strategy]
    if isinstance(strategy, Strategy):
        return strategy
    if not callable(strategy):
        raise TypeError(
            "strategy must be a name, a Strategy or a function select(pool, num, generator), got "
            f"{type(strategy).__name__}"
        )
    return Strategy(select=strategy)


def strategy_name(strategy: str | Strategy | Select) -> str:
    """What a journal calls the strategy: its name in :data:`STRATEGIES`, or the function's own."""
    if isinstance(strategy, str):
        return strategy
    names = [name for name, known in STRATEGIES.items() if known is strategy]
    chooses = (strategy.score or strategy.select) if isinstance(strategy, Strategy) else strategy
    return names[0] if names else getattr(chooses, "__qualname__", type(chooses).__name__)


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
