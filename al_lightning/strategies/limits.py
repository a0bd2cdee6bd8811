"""Limits of a query: few rows of a group, and no near-copies."""

from collections import Counter
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from al_lightning.acquisition.checks import checked_embeddings
from al_lightning.acquisition.distances import nearest_squared
from al_lightning.settings import Settings, check_at_least
from al_lightning.strategies.compositions import Part, in_stages, part_of
from al_lightning.strategies.joined import Joined
from al_lightning.strategies.registry import find_strategy, strategy_name
from al_lightning.strategies.strategy import Column, PoolOutputs, Strategy


def limited(
    strategy: Part, *, max_per_group: int | None = None, min_distance: float | None = None
) -> Strategy:
    """Make a strategy whose query holds few rows of a group, and no near-copies.

    A row that the limits forbid is left out, and the strategy chooses again from the rows that they
    allow, until the query is full. The query is shorter when none is left.

    Args:
        strategy: Chooses.
        max_per_group: At most so many rows of a group; the data's ``group_key`` says which is
            whose.
        min_distance: Rows of a query are at least so far apart by the Euclidean distance of their
            embeddings.

    Raises:
        ValueError: for ``max_per_group`` below 1, or ``min_distance`` not above 0.
    """
    check_at_least(1, max_per_group=max_per_group)
    if min_distance is not None and not 0 < min_distance < float("inf"):
        raise ValueError(f"min_distance must be above 0, got {min_distance}; it is a distance")
    limits: dict[str, Column] = {"groups": "group"} if max_per_group is not None else {}
    limits |= {"embeddings": "embedding"} if min_distance is not None else {}
    part = part_of(strategy)
    if not limits:
        return part

    def at(start: int) -> Strategy:
        joined = Joined.of([part.at(start), Strategy(part.select, limits)])
        select = Limited(joined, max_per_group, min_distance)
        told = strategy_name(part)
        return replace(joined.strategy(select, name=told), may_give_fewer=True)

    return in_stages([part], at)


def strategy_of(settings: Settings) -> Strategy:
    """Return the strategy of a run, with its arguments and its limits."""
    strategy = find_strategy(settings.strategy, settings.strategy_args)
    limits = {"max_per_group": settings.max_per_group, "min_distance": settings.min_distance}
    return limited(strategy, **limits)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Limited:
    """Chooses by the first of two parts; the second keeps what the limits need."""

    joined: Joined
    max_per_group: int | None
    min_distance: float | None

    def __call__(self, pool: PoolOutputs, num: int, generator: Generator) -> Tensor:
        rows, limits = (pool.renamed(names) for names in self.joined.names)
        groups_N = None if self.max_per_group is None else limits.groups.long().cpu()
        embeddings_ND = None if self.min_distance is None else checked_embeddings(limits.embeddings)
        is_allowed_N = torch.ones(len(pool), dtype=torch.bool)
        taken = torch.empty(0, dtype=torch.int64)
        while len(taken) < num and is_allowed_N.any():
            left = is_allowed_N.nonzero()[:, 0]
            wanted = num - len(taken)
            positions = self.joined.parts[0].choose(rows.of(left, taken), wanted, generator)
            new = left[positions.cpu()]
            if embeddings_ND is not None:
                new = self._far_apart(embeddings_ND, new)
            if groups_N is not None:
                new = self._few_of_a_group(groups_N, taken, new)
            taken = torch.cat([taken, new])
            is_allowed_N[new] = False
            if len(taken) < num:
                is_allowed_N &= self._allowed(groups_N, embeddings_ND, taken, new)
        return taken

    def _far_apart(self, embeddings_ND: Tensor, rows: Tensor) -> Tensor:
        """Return the rows that are far from all before them."""
        vectors = embeddings_ND[rows.to(embeddings_ND.device)]
        kept: list[int] = []
        nearest = vectors.new_full((len(rows),), torch.inf, dtype=torch.float64)
        for n in range(len(rows)):
            if nearest[n] >= self._squared:
                kept.append(n)
                distances = (vectors - vectors[n]).double().square().sum(1)
                nearest = torch.minimum(nearest, distances)
        return rows[kept]

    def _few_of_a_group(self, groups_N: Tensor, taken: Tensor, rows: Tensor) -> Tensor:
        """Return the rows whose groups are not full by those that are taken and those before."""
        assert self.max_per_group is not None
        counts = Counter(groups_N[taken].tolist())
        kept = []
        for row, group in zip(rows.tolist(), groups_N[rows].tolist(), strict=True):
            if counts[group] < self.max_per_group:
                counts[group] += 1
                kept.append(row)
        return torch.tensor(kept, dtype=torch.int64)

    def _allowed(
        self, groups_N: Tensor | None, embeddings_ND: Tensor | None, taken: Tensor, new: Tensor
    ) -> Tensor:
        """Tell of each row whether it may still be taken."""
        is_allowed_N = None
        if groups_N is not None and self.max_per_group is not None:
            counts = Counter(groups_N[taken].tolist())
            full = [group for group, num in counts.items() if num >= self.max_per_group]
            is_allowed_N = ~torch.isin(groups_N, torch.tensor(full, dtype=torch.int64))
        if embeddings_ND is not None:
            centers = embeddings_ND[new.to(embeddings_ND.device)]
            is_far_N = (nearest_squared(embeddings_ND, centers)[0] >= self._squared).cpu()
            is_allowed_N = is_far_N if is_allowed_N is None else is_allowed_N & is_far_N
        assert is_allowed_N is not None
        return is_allowed_N

    @property
    def _squared(self) -> float:
        assert self.min_distance is not None
        return self.min_distance**2
