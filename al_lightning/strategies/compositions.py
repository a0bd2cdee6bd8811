"""Strategies made of strategies: shares of a batch, stages of a run, quotas of classes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor

from al_lightning.acquisition import entropy, stratified
from al_lightning.settings import is_number
from al_lightning.strategies.compose import by_score, name_of
from al_lightning.strategies.joined import Joined
from al_lightning.strategies.registry import STRATEGIES, find_strategy, strategy_name
from al_lightning.strategies.strategy import PoolOutputs, Score, Select, Strategy

Part = str | Strategy | Select | Mapping[str, Any]
"""A strategy: its name, itself, a function, or ``{"strategy": ..., "strategy_args": {...}}``."""

SOME_AT_RANDOM = {"random": 0.2, "margin": 0.8}
FEW_THEN_MANY = {0: "typiclust", 200: "margin"}  # as in TCM, arXiv:2403.03728
TOLERANCE = 1e-6


def mix(shares: Mapping[Any, float] = SOME_AT_RANDOM) -> Strategy:
    """Make a strategy of which each part chooses a share of the batch, in the order given.

    No row is taken twice: a part chooses from what the parts before it have left, whose rows count
    as labeled for it. Where a share is no whole number of rows, a draw decides whether it is
    rounded up or down, so that over many cycles each part gets its share. The parts take turns in
    the query, so whoever labels only its beginning has the mix too.

    Args:
        shares: By strategy the share of the batch, above 0, 1 in all. A strategy is a name in
            ``STRATEGIES``, a :class:`Strategy` or a function.

    Raises:
        ValueError: for shares that do not sum to 1 or are not above 0, and for unknown strategies.

    >>> mix({"random": 0.2, "margin": 0.8}).name
    'mix(random 0.2, margin 0.8)'
    """
    if not isinstance(shares, Mapping) or not shares:
        raise ValueError(
            "shares must name strategies and their shares, such as {'random': 0.2, 'margin': 0.8}, "
            f"got {shares!r}"
        )
    wrong = {str(n): v for n, v in shares.items() if not (is_number(v) and 0 < v <= 1)}
    if wrong or abs(sum(shares.values()) - 1) > TOLERANCE:
        found = wrong or f"{sum(shares.values()):g} in all"
        raise ValueError(f"shares must each be above 0 and sum to 1, got {found}; .2 is 20 %")
    parts = [part_of(part) for part in shares]
    told = [f"{strategy_name(part)} {share:g}" for part, share in shares.items()]
    name = f"mix({', '.join(told)})"

    def at(start: int) -> Strategy:
        joined = Joined.of([part.at(start) for part in parts])
        return joined.strategy(Mixed(joined, tuple(shares.values())), name=name, make=mix)

    return in_stages(parts, at)


def schedule(stages: Mapping[Any, Part] = FEW_THEN_MANY) -> Strategy:
    """Make a strategy that is another one from a number of labels on.

    Args:
        stages: The strategy that holds from each number of labels on; the first begins at 0.

    Raises:
        ValueError: for stages that do not begin at 0 or at whole numbers, and unknown strategies.

    >>> schedule({0: "typiclust", 200: "margin"}).at(200) is STRATEGIES["margin"]
    True
    """
    if not isinstance(stages, Mapping):
        raise ValueError(
            "stages must name a strategy by number of labels, such as {0: 'typiclust', 200: "
            f"'margin'}}, got {stages!r}"
        )
    starts = [_as_start(start) for start in stages]
    if not starts or min(starts) != 0 or len(set(starts)) < len(starts):
        raise ValueError(
            f"stages must begin at 0 labels, each at another number, got {[*stages]}; say what "
            "holds from the beginning under 0"
        )
    parts = dict(sorted(zip(starts, map(part_of, stages.values()), strict=True)))
    named = dict(zip(starts, stages.values(), strict=True))
    told = [f"{start} {_told(named[start])}" for start in parts]
    ends = [*list(parts)[1:], None]
    pairs = [
        (inner, part.at(inner))
        for (start, part), end in zip(parts.items(), ends, strict=True)
        for inner in [start, *(one for one in _starts(part) if one > start)]
        if end is None or inner < end
    ]
    return replace(
        pairs[0][1], stages=tuple(pairs), make=schedule, name=f"schedule({', '.join(told)})"
    )


def per_class(
    score: Score | str = entropy, *, share: float = 1.0, beta: float = 1.0, growth: float = 2.0
) -> Strategy:
    """Make a strategy that draws as many rows of each predicted class, likelier by score.

    Args:
        score: Row-wise, higher = label sooner and never below 0. Or ``"score"``, the module's own,
            or the name of a strategy that takes the highest of one: ``"margin"``.
        share: Share of the batch with a quota for each class; the rest is drawn from all rows.
        beta: The preference for high scores in the first cycle: 0 is uniform, and a large one takes
            the highest.
        growth: ``beta`` is multiplied with it in each further cycle, so chance decides less and
            less.

    Raises:
        ValueError: for an unknown score, a share outside [0, 1], ``beta`` below 0 or ``growth``
            below 1.

    References:
        ClaSP PE, Lüth et al. 2026, arXiv:2601.13677, whose score is the predictive entropy. The
        numbers are ours.

    >>> from al_lightning.acquisition import margin
    >>> per_class(margin).name
    'per_class(margin)'
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must lie in [0, 1], got {share}; .3 is 30 %")
    if not 0 <= beta < float("inf"):
        raise ValueError(f"beta must be at least 0 and finite, got {beta}; large values are top-k")
    if not 1 <= growth < float("inf"):
        raise ValueError(f"growth must be at least 1, got {growth}; 1 keeps beta as it is")
    found = score if score == "score" or callable(score) else _score_named(score)
    return replace(
        by_score(found),
        select=partial(_per_class, share=share, beta=beta, growth=growth),
        keep={"scores": found, "classes": "class"},
        name=f"per_class({name_of(found)})",
        make=per_class,
    )


def part_of(given: Any) -> Strategy:
    """Return the strategy that a part of a composition names; raise ValueError as find_strategy."""
    if not isinstance(given, Mapping):
        return find_strategy(given)
    if not {"strategy"} <= given.keys() <= {"strategy", "strategy_args"}:
        raise ValueError(
            "a part must name its strategy, and perhaps strategy_args, got "
            f"{sorted(map(str, given))}; write {{'strategy': 'power_bald', 'strategy_args': "
            "{'beta': 4}}"
        )
    return find_strategy(given["strategy"], given.get("strategy_args"))


@dataclass(frozen=True)
class Mixed:
    """Lets each part choose its share of a batch."""

    joined: Joined
    shares: tuple[float, ...]

    def __call__(self, pool: PoolOutputs, num: int, generator: Generator) -> Tensor:
        num = min(num, len(pool))
        counts = shared_out(self.shares, num, float(torch.rand(1, generator=generator)))
        is_left_N = torch.ones(len(pool), dtype=torch.bool)
        chosen: list[Tensor] = []
        for part, names, count in zip(self.joined.parts, self.joined.names, counts, strict=True):
            left = is_left_N.nonzero()[:, 0]
            taken = torch.cat([left[:0], *chosen])
            rows = pool.renamed(names).of(left, taken)
            positions = part.choose(rows, count, generator) if count else left[:0]
            chosen.append(left[positions.cpu()])
            is_left_N[chosen[-1]] = False
        turns = torch.cat([(torch.arange(len(one)) + 0.5) / len(one) for one in chosen])
        return torch.cat(chosen)[turns.argsort(stable=True)]


def shared_out(shares: Iterable[float], num: int, draw: float) -> list[int]:
    """Return how many of ``num`` rows each share gets: its part of them, rounded up or down.

    Args:
        shares: 1 in all.
        num: Number of rows.
        draw: In [0, 1), drawn evenly: each share then gets its exact part on average.

    >>> shared_out([0.2, 0.8], 10, 0.9), shared_out([0.5, 0.5], 1, 0.3)
    ([2, 8], [0, 1])
    """
    counts, sum_so_far, before = [], 0.0, 0
    for share in shares:
        sum_so_far += share * num
        upto = int(round(sum_so_far, 6) + draw)
        counts.append(upto - before)
        before = upto
    return counts


def _per_class(
    pool: PoolOutputs,
    num: int,
    generator: Generator,
    *,
    share: float,
    beta: float,
    growth: float,
) -> Tensor:
    beta = min(beta * growth ** (pool.cycle - 1), 1e9)
    return stratified(pool.scores, pool.classes, num, share=share, beta=beta, generator=generator)


def in_stages(parts: Sequence[Strategy], at: Callable[[int], Strategy]) -> Strategy:
    """Return what ``at`` makes, anew from each number of labels where a part changes."""
    starts = sorted({0, *(start for part in parts for start in _starts(part))})
    first = at(0)
    if len(starts) == 1:
        return first
    return replace(first, stages=tuple((start, at(start)) for start in starts))


def _starts(part: Strategy) -> list[int]:
    return [start for start, _ in part.stages]


def _as_start(given: Any) -> int:
    """Return a number of labels, which a journal gives back as text."""
    is_text = isinstance(given, str) and given.strip().isdigit()
    if is_text or (isinstance(given, int) and not isinstance(given, bool) and given >= 0):
        return int(given)
    raise ValueError(f"stages must begin at whole numbers of labels, got {given!r}; write 200")


def _told(part: Part) -> str:
    return str(part["strategy"]) if isinstance(part, Mapping) else strategy_name(part)


def _score_named(name: str) -> Callable[..., Tensor]:
    """Return the score by which a strategy takes the highest."""
    score = find_strategy(name).keep.get("scores")
    if not callable(score):
        able = [n for n in STRATEGIES if callable(find_strategy(n).keep.get("scores"))]
        raise ValueError(f"score must be that of one of {able}, got {name!r}, which has none")
    return score


STRATEGIES.update(mix=mix(), schedule=schedule(), per_class=per_class())
