"""The results that the loop returns, and the query of a cycle, as a journal holds them."""

import base64
import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from html import escape
from typing import Any

from al_lightning.run.journal import Record

NUM_SHOWN = 5
"""A message names this many of a kind, and counts the others."""


NUM_DOUBTS = 500
"""Labels in doubt that a cycle lists at most."""

NUM_DOUBTS_ON_PAGE = 50
"""Of these the labeling page shows so many."""

NUM_PICTURED = 10
"""Rows of a query that a picture shows, with what is predicted of their pixels."""


class Mark(Enum):
    """Names the answers that are not labels."""

    SKIP = "skip"
    """The row stays in the pool and is not asked for again."""
    INVALID = "invalid"
    """The row leaves the pool: a broken image, for example."""


SKIP = Mark.SKIP
INVALID = Mark.INVALID


@dataclass(frozen=True)
class Query:
    """Holds the rows to label next, most wanted first."""

    cycle: int
    indices: list[int]
    """Data-set indices."""
    scores: list[float] | None = None
    """One for each row, higher = label sooner; None for a strategy without scores."""
    predicted: list[Any] | None = None
    """The model's likeliest class for each row; for several labels, zeros and ones; for pixels or
    tokens, the share of each class; for numbers, each with its deviation where there is one. None
    when the pool was not read."""
    names: list[str] | None = None
    """A name of each row that people know, such as a file's path; None without names."""
    maps: list[str] | None = None
    """The likeliest classes of the pixels of the first rows, see :func:`map_of`; None without."""

    def _repr_html_(self) -> str:
        shown: dict[str, list[Any]] = {"row": self.indices[:NUM_PICTURED]}
        for name in ("names", "scores", "predicted"):
            values = getattr(self, name)
            shown |= {} if values is None else {name: values[:NUM_PICTURED]}
        shown |= {"scores": [f"{one:.4f}" for one in shown["scores"]]} if "scores" in shown else {}
        table = _table(list(shown), zip(*shown.values(), strict=True))
        return f"cycle {self.cycle} asks for {len(self.indices):,} rows, most wanted first{table}"


@dataclass(frozen=True)
class CycleResult:
    """Holds the results of one cycle."""

    cycle: int
    num_labeled: int
    """Training-set size of this cycle's fit."""
    metrics: dict[str, float]
    """The metrics that the module logged in fit and test, by name."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time of ``fit``, ``test``, ``predict`` and ``query``."""
    query: Query | None = None
    """The query at its end; None in the last cycle."""
    cost: float | None = None
    """The cost of all labels so far, by the data's ``cost_key``; None without one."""
    labeling_hours: float = 0.0
    """Hours that people have spent on the labeling page so far, all people together."""
    num_skipped: int = 0
    """Rows that people have skipped or marked invalid so far."""
    doubts: list[list[float]] | None = None
    """Labels in doubt: data-set index, probability of the label, likeliest class and label, the
    least likely first; None where they were not looked for."""


class Results(list[CycleResult]):
    """Holds the results of a run, one a cycle; a notebook shows them as a table."""

    def _repr_html_(self) -> str:
        names = sorted({name for result in self for name in result.metrics})
        head = ["cycle", "labels", *names, "seconds", "asked"]
        rows = [
            [
                result.cycle,
                f"{result.num_labeled:,}",
                *(f"{result.metrics[n]:.4f}" if n in result.metrics else "" for n in names),
                f"{sum(result.seconds.values()):.1f}",
                len(result.query.indices) if result.query else "",
            ]
            for result in self
        ]
        return _table(head, rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return an HTML table."""
    lines = ["".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows]
    header = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f"<table><tr>{header}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


STEPS = ("fit", "test", "query", "end")
"""Events of which the results of a cycle are made."""


def results_of(records: Sequence[Record]) -> list[CycleResult]:
    """Return a result for each cycle that is over: fitted, tested and, but for the last, asked.

    In a run that began without labels the first is cycle 0, which only asked.
    """
    by_cycle: dict[int, list[Record]] = {}
    for record in records:
        if record["event"] in STEPS:
            by_cycle.setdefault(record["cycle"], []).append(record)
    return [
        result_of(steps, cycle)
        for cycle, steps in sorted(by_cycle.items())
        if steps[-1]["event"] in ("query", "end")
    ]


def result_of(records: Sequence[Record], cycle: int) -> CycleResult:
    """Return the results of a cycle, as far as it has come."""
    found = {r["event"]: r for r in records if r.get("cycle") == cycle}
    nothing: Record = {"num_labeled": 0, "metrics": {}, "seconds": {}}
    fit, test, asked = (found.get(event) for event in ("fit", "test", "query"))
    spent = (fit or nothing).get("spent", {})  # which came later, as doubts did
    steps = [step or nothing for step in (fit, test, asked)]
    query = None
    if asked is not None:
        held = {name: asked[name] for name in ("indices", "scores", "predicted", "names")}
        query = Query(cycle, **held, maps=asked.get("maps"))  # which came later
    return CycleResult(
        cycle=cycle,
        num_labeled=(fit or nothing)["num_labeled"],
        metrics={**steps[0]["metrics"], **steps[1]["metrics"]},
        seconds={name: value for step in steps for name, value in step["seconds"].items()},
        query=query,
        cost=spent.get("cost"),
        labeling_hours=spent.get("labeling_seconds", 0) / 3600,
        num_skipped=spent.get("num_skipped", 0),
        doubts=(test or nothing).get("doubts"),
    )


def labeling_seconds(answers: Iterable[Record]) -> float:
    """Return how long people took for these answers, as far as the page measured it."""
    return sum(record.get("seconds") or 0.0 for record in answers)


def packed_map(map_hw: Any) -> str:
    """Return a small square map of classes, uint8, in text for a journal."""
    return base64.b64encode(zlib.compress(bytes(map_hw.flatten().tolist()))).decode()


def map_of(packed: str) -> list[list[int]]:
    """Return the rows of the map that :func:`packed_map` wrote.

    >>> import torch
    >>> map_of(packed_map(torch.tensor([[0, 2], [1, 1]])))
    [[0, 2], [1, 1]]
    """
    values = zlib.decompress(base64.b64decode(packed))
    side = math.isqrt(len(values))
    return [list(values[start : start + side]) for start in range(0, len(values), side)]


def plain(value: Any) -> Any:
    """Return a number or a list of them for a tensor or an array, which JSON does not take."""
    return value.tolist() if hasattr(value, "tolist") else value


def listed(found: Sequence[str], num: int = NUM_SHOWN, between: str = ", ") -> str:
    """Join the first few, and count the others.

    >>> listed("abcdefg")
    'a, b, c, d, e and 2 more'
    """
    more = f" and {len(found) - num} more" if len(found) > num else ""
    return between.join(found[:num]) + more
