"""What the loop gives out: the query of a cycle, and the record of one."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Query:
    """Rows to label next, most wanted first."""

    cycle: int
    indices: list[int]
    """Data-set indices."""
    scores: list[float] | None = None
    """One a row, higher = label sooner; None for a strategy without scores."""
    predicted: list[int] | None = None
    """The model's likeliest class, one a row; None when the pool was not read."""
    names: list[str] | None = None
    """What a person knows each row by, such as a file's path; None for a data set without names."""


@dataclass(frozen=True)
class CycleResult:
    """What one cycle did."""

    cycle: int
    num_labeled: int
    """Training-set size of this cycle's fit."""
    metrics: dict[str, float]
    """What the module logged in fit and test, by name."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time of ``fit``, ``test``, ``predict`` and ``query``."""
    query: Query | None = None
    """What was asked after it; None in the last cycle."""
