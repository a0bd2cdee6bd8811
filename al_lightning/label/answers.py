"""Answers to a query: each one a record in the journal, folded into the answers that hold now.

Everything here comes from the journal alone. So one process can train while another serves the page
on which people label, and neither needs to know of the other.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, NamedTuple

from al_lightning.run.journal import Journal, Record
from al_lightning.run.records import INVALID, SKIP, Mark

Answer = Any
"""A label in plain values, ``SKIP`` or ``INVALID``; never None, which means no answer yet."""


def now() -> str:
    """Return the time in UTC, as ISO 8601, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


class AnswersError(ValueError):
    """Says why an oracle's answer cannot be accepted; the run is as before, and can go on."""


# ---- a row ---------------------------------------------------------------------------------------


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
    rows: dict[int, RowAnswers] = {}
    for record in standing(records):
        for index, answer in record["answers"]:
            row = rows.setdefault(index, RowAnswers())
            by = record["by"] or ""
            row.by_labeler[by] = from_plain(answer)
            row.at, row.how = record["at"], record["how"]
            if record["settles"] or (row.settled is not None and row.settled_by == by):
                row.settled, row.settled_by = from_plain(answer), by
    return rows


def standing(records: Iterable[Record]) -> list[Record]:
    """Return the ``answers`` records that nobody has undone, oldest first."""
    records = list(records)
    undone = {record["number"] for record in records if record["event"] == "undo"}
    return [r for r in records if r["event"] == "answers" and r["number"] not in undone]


def to_plain(answer: Answer) -> Any:
    """Return an answer as a journal holds it: ``"skip"``, ``"invalid"`` or ``{"label": ...}``."""
    return answer.value if isinstance(answer, Mark) else {"label": answer}


def from_plain(plain: Any) -> Answer:
    """Return the answer that :func:`to_plain` wrote.

    >>> [from_plain(to_plain(answer)) for answer in (7, SKIP)]
    [7, <Mark.SKIP: 'skip'>]
    """
    return plain["label"] if isinstance(plain, dict) else Mark(plain)


def in_words(answer: Answer, classes: Sequence[str]) -> str:
    """Return an answer as a person would write it.

    >>> in_words(1, ["cat", "dog"]), in_words(SKIP, ["cat", "dog"])
    ('dog', 'skip')
    """
    return str(answer.value) if isinstance(answer, Mark) else classes[answer]


# ---- the query that waits ------------------------------------------------------------------------


class RowsBefore(NamedTuple):
    """Holds the rows of a run as its closed queries left them, by data-set index."""

    labeled: set[int]
    outside: set[int]
    """Rows that can never get a label: held out for validation, or invalid."""


def rows_before(records: Sequence[Record]) -> RowsBefore:
    """Return the rows that are labeled or outside by now, from all records of a run."""
    split = records[0]["split"]
    labeled, outside = set(split["labeled_indices"]), {*split["held_out"], *split["invalid"]}
    for record in records:
        if record["event"] == "labels":
            labeled = labeled.union(record["indices"]).difference(record["invalid"])
            outside.update(record["invalid"])
    return RowsBefore(labeled, outside)


class OpenQuery:
    """Holds the query at the end of a journal, and its answers.

    When a method that changes something returns, the change is on the disk.

    Args:
        journal: The journal of the run.

    Attributes:
        record: The journal's record of the query.
        cycle: The number of its cycle.
        indices: Data-set indices that were asked, most wanted first.
        classes: Names of the classes, where a label is a position in them; None when unknown.

    Raises:
        ValueError: when no query waits for answers.
    """

    def __init__(self, journal: Journal) -> None:
        last: Record = journal.last or {"event": "nothing"}
        if last["event"] not in ("query", "answers", "undo"):
            raise ValueError(
                f"no query waits for labels: the run's last event is {last['event']!r}; go on with "
                "the run until it asks; in Python call ask() first"
            )
        asked = journal.find("query", last["cycle"])
        assert asked is not None
        self.journal = journal
        self.record = asked
        self.cycle: int = asked["cycle"]
        self.indices: list[int] = asked["indices"]
        self.classes: list[str] | None = journal.records[0]["config"]["data"]["classes"]

    @property
    def records(self) -> list[Record]:
        """Return the records of the query's cycle, oldest first."""
        return [record for record in self.journal.records if record.get("cycle") == self.cycle]

    @property
    def rows(self) -> dict[int, RowAnswers]:
        """Return the answers by data-set index, including those to rows that were not asked."""
        return fold(self.records)

    @property
    def open_indices(self) -> list[int]:
        """Return asked rows without an answer that holds: nobody answered, or people differ."""
        rows = self.rows
        return [i for i in self.indices if i not in rows or rows[i].answer is None]

    def answer(
        self,
        answers: Mapping[int, Answer],
        *,
        by: str | None = None,
        how: str,
        settles: bool = False,
        accept_unasked: bool = False,
        source: str | None = None,
    ) -> None:
        """Record answers: all of them or, on an error, none.

        A later answer of the same person to the same row replaces the earlier one. A label for a
        row that has a label already corrects it.

        Args:
            answers: By data-set index.
            by: The person's name.
            how: The way by which they come, such as ``"page"``.
            settles: These answers hold against all others.
            accept_unasked: Accept answers to rows of the pool that were not asked.
            source: Name of the file that holds the answers.

        Raises:
            ValueError: for a row that was not asked, or a label that is no class.
        """
        self.check(answers, accept_unasked=accept_unasked)
        self.journal.append(
            "answers",
            cycle=self.cycle,
            number=sum(record["event"] == "answers" for record in self.records),
            answers=[[index, to_plain(answer)] for index, answer in answers.items()],
            by=by or None,
            at=now(),
            how=how,
            settles=settles,
            source=source,
        )

    def undo(self, *, by: str | None = None, how: str) -> list[int]:
        """Undo the last answer that still stands.

        Args:
            by: Undo an answer of this person, ``""`` for those without a name; None for anybody.
            how: The way by which the wish comes, such as ``"page"``.

        Returns:
            Data-set indices of its rows.

        Raises:
            ValueError: when there is none.
        """
        candidates = [r for r in standing(self.records) if by is None or (r["by"] or "") == by]
        if not candidates:
            raise ValueError(f"there is no answer{f' of {by}' if by else ''} to take back")
        last = candidates[-1]
        self.journal.append(
            "undo", cycle=self.cycle, number=last["number"], by=by or None, at=now(), how=how
        )
        return [index for index, _ in last["answers"]]

    def outcome(self, last: Mapping[int, Answer] = {}) -> Record:
        """Return what :meth:`finish` would record now, without the rows on which people differ.

        Args:
            last: Answers that come with the closing; they hold against all others.
        """
        labeled = rows_before(self.journal.records).labeled
        agreed = {i: row.answer for i, row in self.rows.items() if not row.in_conflict}
        held = {**{i: answer for i, answer in agreed.items() if i not in last}, **last}
        labels = {i: answer for i, answer in held.items() if not isinstance(answer, Mark)}
        new = [index for index in labels if index not in labeled]
        return {
            "indices": new,
            "labels": [labels[index] for index in new],
            "skipped": [index for index, answer in held.items() if answer is SKIP],
            "invalid": [index for index, answer in held.items() if answer is INVALID],
            "corrected": [[i, label] for i, label in labels.items() if i in labeled],
            "last": list(last),
        }

    def finish(self, last: Mapping[int, Answer] = {}, *, by: str | None = None, how: str) -> Record:
        """Close the query with the answers so far; its other rows return to the pool.

        Args:
            last: Answers that come with the closing; they hold against all others.
            by: The person who closes it.
            how: The way by which it is closed.

        Returns:
            The journal's record: ``indices`` and ``labels``, ``skipped``, ``invalid``, and
            ``corrected`` pairs of index and label.

        Raises:
            ValueError: while people differ on a row, or when the first query of a run that begins
                without labels got none.
        """
        self.check(last)
        differing = [i for i, row in self.rows.items() if row.in_conflict and i not in last]
        if differing:
            raise ValueError(
                f"answers must agree before the query is closed, found {len(differing)} rows on "
                f"which people differ: {differing[:5]}; settle them"
            )
        result = self.outcome(last)
        labeled = rows_before(self.journal.records).labeled.union(result["indices"])
        if not labeled.difference(result["invalid"]):
            raise ValueError(
                "at least one row must get a label before the model can train, found none; label "
                "a row, or begin another run with other first rows"
            )
        return self.close(result, by=by, how=how)

    def close(self, result: Record, *, by: str | None, how: str) -> Record:
        """Close the query with the rows and labels in ``result``; see :meth:`finish`.

        Args:
            result: ``indices`` and ``labels``, where None means the data set's own; perhaps more.
            by: The person who closes it.
            how: The way by which it is closed.
        """
        nothing: Record = {"skipped": [], "invalid": [], "corrected": [], "last": []}
        fields = {**nothing, **result, "by": by or None, "at": now(), "how": how}
        return self.journal.append("labels", cycle=self.cycle, **fields)

    def check(self, answers: Mapping[int, Answer], *, accept_unasked: bool = False) -> None:
        """Raise ValueError as :meth:`answer` does; change nothing."""
        labeled, outside = rows_before(self.journal.records)
        known = labeled.union(self.indices)
        strangers = [i for i in answers if i not in known]
        if strangers and not accept_unasked:
            raise ValueError(
                f"answers must be to rows that were asked, found {len(strangers)} that were not: "
                f"{strangers[:5]}; accept them with accept_unasked"
            )
        num_rows = self.journal.records[0]["split"]["num_rows"]
        gone = [i for i in strangers if not 0 <= i < num_rows or i in outside]
        if gone:
            raise ValueError(
                f"answers must be to rows of the pool, found {len(gone)} others: {gone[:5]}; they "
                "are held out, invalid or no rows at all"
            )
        skipped = [i for i in answers if answers[i] is SKIP and i in labeled]
        if skipped:
            raise ValueError(
                f"a row that has a label cannot be skipped, found {skipped[:5]}; give another "
                "label, or mark it invalid"
            )
        if self.classes is not None:
            _check_labels(answers, self.classes)


def _check_labels(answers: Mapping[int, Answer], classes: Sequence[str]) -> None:
    """Raise ValueError unless each label is the position of a class, or a list."""
    for index, answer in answers.items():
        is_position = type(answer) is int and 0 <= answer < len(classes)
        # Several classes at once, or shares of each, are a list.
        if not (isinstance(answer, Mark | list) or is_position):
            raise ValueError(
                f"a label must be a position in the {len(classes)} classes "
                f"{classes[:10]}, got {answer!r} for row {index}"
            )
