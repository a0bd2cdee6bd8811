"""Answers of people, folded into those that hold."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from al_lightning.run.journal import Record
from al_lightning.run.label_form import LabelForm
from al_lightning.run.records import Mark

Answer = Any
"""A label in plain values, ``SKIP`` or ``INVALID``; never None, which means no answer yet."""


@dataclass
class RowAnswers:
    """Holds the answers to one row."""

    by_labeler: dict[str, Answer] = field(default_factory=dict)
    """The latest answer of each person; ``""`` stands for a person without a name."""
    settled: Answer = None
    """The answer that holds against all others; None while nobody has settled the row."""
    settled_by: str = ""
    """The person who settled it, whose next answer replaces the settled one."""
    at: str = ""
    """The time of the last answer, see :func:`now`."""
    how: str = ""
    """The way by which it came, such as ``"page"``."""

    @property
    def answer(self) -> Answer:
        """Return the answer that holds; None while the row is open or people differ."""
        if self.settled is not None:
            return self.settled
        first, *others = self.by_labeler.values() or [None]
        return None if any(other != first for other in others) else first

    @property
    def in_conflict(self) -> bool:
        """Return True when people differ and nobody has settled the row."""
        return bool(self.by_labeler) and self.answer is None

    @property
    def labelers(self) -> list[str]:
        """Return the names of those who answered, in the order of their first answers."""
        return [name for name in self.by_labeler if name]


def fold(records: Iterable[Record]) -> dict[int, RowAnswers]:
    """Return the rows that have answers, by data-set index.

    Args:
        records: The records of one cycle; only ``answers`` and ``undo`` are read.
    """
    folded = Fold()
    for record in records:
        folded.add(record)
    return folded.rows


class Fold:
    """Folds records into the answers that hold, as they come.

    Attributes:
        rows: The rows that have answers, by data-set index.
        standing: The ``answers`` records that nobody has undone, oldest first.
        num: Number of ``answers`` records, undone or not.
    """

    def __init__(self) -> None:
        self.rows: dict[int, RowAnswers] = {}
        self.standing: list[Record] = []
        self.num = 0

    def add(self, record: Record) -> None:
        """Take one more record; only ``answers`` and ``undo`` count."""
        if record["event"] == "answers":
            self.num += 1
            self.standing.append(record)
            self._take(record)
        elif record["event"] == "undo":
            self.standing = [r for r in self.standing if r["number"] != record["number"]]
            self.rows = {}
            for one in self.standing:
                self._take(one)

    def _take(self, record: Record) -> None:
        for index, answer in record["answers"]:
            row = self.rows.setdefault(index, RowAnswers())
            by = record["by"] or ""
            row.by_labeler[by] = from_plain(answer)
            row.at, row.how = record["at"], record["how"]
            if record["settles"] or (row.settled is not None and row.settled_by == by):
                row.settled, row.settled_by = from_plain(answer), by


def to_plain(answer: Answer) -> Any:
    """Return an answer as a journal holds it: ``"skip"``, ``"invalid"`` or ``{"label": ...}``."""
    return answer.value if isinstance(answer, Mark) else {"label": answer}


def from_plain(plain: Any) -> Answer:
    """Return the answer that :func:`to_plain` wrote.

    >>> from al_lightning import SKIP
    >>> [from_plain(to_plain(answer)) for answer in (7, SKIP)]
    [7, <Mark.SKIP: 'skip'>]
    """
    return plain["label"] if isinstance(plain, dict) else Mark(plain)


def in_words(answer: Answer, form: LabelForm) -> str:
    """Return an answer as a person would write it.

    >>> from al_lightning import SKIP
    >>> form = LabelForm("multiclass", ["cat", "dog"])
    >>> in_words(1, form), in_words(SKIP, form)
    ('dog', 'skip')
    """
    return str(answer.value if isinstance(answer, Mark) else form.in_words(answer))
