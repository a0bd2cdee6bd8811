"""Answers of people, folded into those that hold."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from al_lightning.run.journal import Record
from al_lightning.run.label_form import LabelForm
from al_lightning.run.records import Mark

Answer = Any
"""A label in plain values, ``SKIP`` or ``INVALID``; never None, which means no answer."""


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
    """The time of the last answer, see :func:`~al_lightning.label.answers.now`."""
    how: str = ""
    """The way by which it came, such as ``"page"``."""
    answer: Answer = None
    """The answer that holds; None while the row is open or people differ."""
    in_conflict: bool = False
    """True when people differ and nobody has settled the row."""

    @property
    def labelers(self) -> list[str]:
        """Return the names of those who answered, in the order of their first answers."""
        return [name for name in self.by_labeler if name]

    def take(self, record: Record, plain: Any) -> None:
        """Take one more answer, as a journal holds it; None takes the person's answer back."""
        by, answer = record["by"] or "", from_plain(plain)
        if answer is None:
            self.by_labeler.pop(by, None)
        else:
            self.by_labeler[by] = answer
        self.at, self.how = record["at"], record["how"]
        if record["settles"] or (self.settled is not None and self.settled_by == by):
            self.settled, self.settled_by = answer, by
        first, *others = self.by_labeler.values() or [None]
        agreed = None if any(other != first for other in others) else first
        self.answer = agreed if self.settled is None else self.settled
        self.in_conflict = bool(self.by_labeler) and self.answer is None


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

    An answer costs the same whether ten came before it or ten thousand.

    Attributes:
        rows: The rows that have answers, by data-set index.
        differing: Those of them on which people differ.
        num: Number of ``answers`` records, undone or not.
    """

    def __init__(self) -> None:
        self.rows: dict[int, RowAnswers] = {}
        self.differing: dict[int, RowAnswers] = {}
        self._standing: dict[int, Record] = {}
        self.num = 0
        self._of_row: dict[int, list[tuple[Record, Any]]] = {}

    @property
    def standing(self) -> list[Record]:
        """The ``answers`` records that nobody has undone, oldest first."""
        return [*self._standing.values()]

    def add(self, record: Record) -> None:
        """Take one more record; only ``answers`` and ``undo`` count."""
        if record["event"] == "answers":
            self.num += 1
            self._standing[record["number"]] = record
            for index, plain in record["answers"]:
                self._of_row.setdefault(index, []).append((record, plain))
                row = self.rows.get(index) or RowAnswers()
                row.take(record, plain)
                self._keep(index, row)
        elif record["event"] == "undo":
            undone = self._standing.pop(record["number"])
            for index in dict(undone["answers"]):
                left = [pair for pair in self._of_row[index] if pair[0] is not undone]
                self._of_row[index] = left
                row = RowAnswers()
                for earlier, plain in left:
                    row.take(earlier, plain)
                self._keep(index, row)

    def last(self, index: int, by: str) -> Record | None:
        """Return the record of a person's last answer to a row that stands; None without one."""
        theirs = (r for r, _ in reversed(self._of_row.get(index, [])) if (r["by"] or "") == by)
        return next(theirs, None)

    def _keep(self, index: int, row: RowAnswers) -> None:
        for place, belongs in ((self.rows, row.by_labeler), (self.differing, row.in_conflict)):
            if belongs:
                place[index] = row
            else:
                place.pop(index, None)


def to_plain(answer: Answer) -> Any:
    """Return an answer as a journal holds it: ``"skip"``, ``"invalid"`` or ``{"label": ...}``."""
    if answer is None:
        return None
    return answer.value if isinstance(answer, Mark) else {"label": answer}


def from_plain(plain: Any) -> Answer:
    """Return the answer that :func:`to_plain` wrote; None where one was taken back.

    >>> from al_lightning import SKIP
    >>> [from_plain(to_plain(answer)) for answer in (7, SKIP, None)]
    [7, <Mark.SKIP: 'skip'>, None]
    """
    if plain is None:
        return None
    return plain["label"] if isinstance(plain, dict) else Mark(plain)


def in_words(answer: Answer, form: LabelForm) -> str:
    """Return an answer as a person would write it.

    >>> from al_lightning import SKIP
    >>> form = LabelForm("multiclass", ["cat", "dog"])
    >>> in_words(1, form), in_words(SKIP, form)
    ('dog', 'skip')
    """
    return str(answer.value if isinstance(answer, Mark) else form.in_words(answer))
