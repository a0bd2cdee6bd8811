"""Agreement between people: Cohen's kappa, from the journal alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from al_lightning.label.fold import Answer, fold
from al_lightning.run.journal import Record


def cohens_kappa(first: Sequence[Answer], second: Sequence[Answer]) -> float:
    """Return how far two people agree on the same rows: 1 is fully, 0 is no more than by chance.

    It is ``(p_o - p_e) / (1 - p_e)``. ``p_o`` is the observed share of equal answers. ``p_e`` is
    the share that chance would give if each person answered at random, with the frequencies of
    their own answers. Cohen 1960, Educational and Psychological Measurement 20(1).

    Returns:
        In [-1, 1]; NaN when both gave the same single answer everywhere, which says nothing.

    >>> cohens_kappa([0, 0, 1, 1], [0, 0, 1, 0])
    0.5
    """
    num = len(first)
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / num
    kinds: list[Answer] = []
    for answer in (*first, *second):
        if answer not in kinds:  # lists, which cannot be hashed, among them
            kinds.append(answer)
    expected = sum(list(first).count(a) * list(second).count(a) for a in kinds) / num**2
    return (observed - expected) / (1 - expected) if expected < 1 else float("nan")


@dataclass(frozen=True)
class Agreement:
    """Holds the agreement of two people."""

    first: str
    second: str
    num_rows: int
    """Rows that both answered."""
    num_equal: int
    kappa: float


def agreements(records: Iterable[Record]) -> list[Agreement]:
    """Return the agreement of each two people who answered the same rows, settled or not.

    Args:
        records: All records of a run.
    """
    by_cycle: dict[int | None, list[Record]] = {}
    for record in records:
        by_cycle.setdefault(record.get("cycle"), []).append(record)
    # A row that is corrected in a later cycle counts in both.
    rows = [row.by_labeler for cycle in by_cycle.values() for row in fold(cycle).values()]
    people = sorted({name for row in rows for name in row if name})
    found = []
    for a, b in combinations(people, 2):
        both = [(row[a], row[b]) for row in rows if a in row and b in row]
        if both:
            equal = sum(one == other for one, other in both)
            kappa = cohens_kappa(*zip(*both, strict=True))
            found.append(Agreement(a, b, len(both), equal, kappa))
    return found
