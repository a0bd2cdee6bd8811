"""What people answer to a query: each answer a journal record, folded into what holds now.

Everything here derives from the journal alone, so the process that trains and the page that people
label on need not be the same, nor know of each other.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from enum import Enum
from itertools import combinations
from typing import Any

from al_lightning.run.journal import Journal, Record


class Mark(Enum):
    """An answer that is not a label."""

    SKIP = "skip"
    """The row stays in the pool and is not asked again."""
    INVALID = "invalid"
    """The row leaves the pool: a broken image, say."""


SKIP = Mark.SKIP
INVALID = Mark.INVALID

Answer = Any
"""A label in plain values, :data:`SKIP` or :data:`INVALID`; never None, which is no answer yet."""


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


class AnswersError(ValueError):
    """What an oracle answered cannot be taken; the run is as before and goes on from there."""


# ---- a row ---------------------------------------------------------------------------------------


@dataclass
class RowAnswers:
    """What was answered for one row."""

    by_labeler: dict[str, Answer] = field(default_factory=dict)
    """The latest answer of each person; ``""`` is somebody without a name."""
    settled: Answer = None
    """What holds whatever the people said; None while nobody settled it."""
    settled_by: str = ""
    """Who settled it, and may change it by another answer."""
    at: str = ""
    """When the last answer came, see :func:`now`."""
    how: str = ""
    """Through what it came."""

    @property
    def answer(self) -> Answer:
        """What holds; None while the row is open or people differ."""
        if self.settled is not None:
            return self.settled
        first, *others = self.by_labeler.values() or [None]
        return None if any(other != first for other in others) else first

    @property
    def in_conflict(self) -> bool:
        """Whether people differ and nobody has settled it."""
        return bool(self.by_labeler) and self.answer is None

    @property
    def labelers(self) -> list[str]:
        """Everybody with a name who answered, in order of first answers."""
        return [name for name in self.by_labeler if name]


def fold(records: Iterable[Record]) -> dict[int, RowAnswers]:
    """The rows that have answers, by data-set index.

    Args:
        records: Those of one cycle; ``answers`` and ``undo`` are read.
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
    """The ``answers`` records that nobody took back, oldest first."""
    records = list(records)
    taken_back = {record["number"] for record in records if record["event"] == "undo"}
    return [r for r in records if r["event"] == "answers" and r["number"] not in taken_back]


def to_plain(answer: Answer) -> Any:
    """An answer as it stands in a journal: ``"skip"``, ``"invalid"`` or ``{"label": ...}``."""
    return answer.value if isinstance(answer, Mark) else {"label": answer}


def from_plain(plain: Any) -> Answer:
    """The answer that :func:`to_plain` wrote.

    >>> [from_plain(to_plain(answer)) for answer in (7, SKIP)]
    [7, <Mark.SKIP: 'skip'>]
    """
    return plain["label"] if isinstance(plain, dict) else Mark(plain)


# ---- the query that waits ------------------------------------------------------------------------


class OpenQuery:
    """The query at the end of a journal, and its answers; each is on the disk when a call returns.

    Args:
        journal: Of the run.

    Attributes:
        record: The journal's record of the query.
        cycle: Of the query.
        indices: Data-set indices that were asked, most wanted first.
        classes: Names of the classes, where a label is a position in them; None when unknown.

    Raises:
        ValueError: when no query waits for answers.
    """

    def __init__(self, journal: Journal) -> None:
        last: Record = journal.records[-1] if journal.records else {"event": "nothing"}
        if last["event"] not in ("query", "answers", "undo"):
            raise ValueError(
                f"no query waits for labels: the run's last event is {last['event']!r}; go on with "
                "the run until it asks"
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
        """Answers and what was taken back, oldest first."""
        return [
            record
            for record in self.journal.records
            if record.get("cycle") == self.cycle and record["event"] in ("answers", "undo")
        ]

    @property
    def rows(self) -> dict[int, RowAnswers]:
        """What was answered, by data-set index; also of rows that were not asked."""
        return fold(self.records)

    @property
    def open_indices(self) -> list[int]:
        """Asked rows without an answer that holds: nobody answered, or people differ."""
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
        """Records answers, all of them or on an error none.

        Another answer of the same person to the same row takes the place of the first. A label for
        a row that is labeled already corrects it.

        Args:
            answers: By data-set index.
            by: Who.
            how: Through what, such as ``"page"``.
            settles: These hold, whatever others answered.
            accept_unasked: Takes answers to rows of the pool that were not asked.
            source: Name of the file that they stand in.

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
        """Takes the last answer back that still stands.

        Args:
            by: Of that person, ``""`` for those without a name; None for anybody.
            how: Through what, such as ``"page"``.

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

    def finish(
        self, last: Mapping[int, Answer] | None = None, *, by: str | None = None, how: str
    ) -> Record:
        """Closes the query with what was answered; the rest of it returns to the pool.

        Args:
            last: Answers that come with the closing, and hold whatever was answered before.
            by: Who closes it.
            how: Through what.

        Returns:
            The journal's record: ``indices`` and ``labels``, ``skipped``, ``invalid``, and
            ``corrected`` pairs of index and label.

        Raises:
            ValueError: while people differ on a row, or when the first query of a run that begins
                without labels got none.
        """
        last = last or {}
        self.check(last)
        rows = {index: row for index, row in self.rows.items() if index not in last}
        differing = [index for index, row in rows.items() if row.in_conflict]
        if differing:
            raise ValueError(
                f"answers must agree before the query is closed, found {len(differing)} rows on "
                f"which people differ: {differing[:5]}; settle them"
            )
        labeled = self._labeled
        held = {**{index: row.answer for index, row in rows.items()}, **last}
        labels = {i: answer for i, answer in held.items() if not isinstance(answer, Mark)}
        new = [index for index in labels if index not in labeled]
        invalid = [index for index, answer in held.items() if answer is INVALID]
        if not labeled.union(new).difference(invalid):
            raise ValueError(
                "at least one row must get a label before the model can train, found none; label "
                "a row, or begin another run with other first rows"
            )
        return self.close(
            {
                "indices": new,
                "labels": [labels[index] for index in new],
                "skipped": [index for index, answer in held.items() if answer is SKIP],
                "invalid": invalid,
                "corrected": [[i, label] for i, label in labels.items() if i in labeled],
                "last": list(last),
            },
            by=by,
            how=how,
        )

    def close(self, result: Record, *, by: str | None, how: str) -> Record:
        """Closes the query with rows and labels as they stand in ``result``; see :meth:`finish`.

        Args:
            result: ``indices`` and ``labels``, where None is the data set's own; perhaps more.
            by: Who closes it.
            how: Through what.
        """
        nothing: Record = {"skipped": [], "invalid": [], "corrected": [], "last": []}
        fields = {**nothing, **result, "by": by or None, "at": now(), "how": how}
        return self.journal.append("labels", cycle=self.cycle, **fields)

    @property
    def _labeled(self) -> set[int]:
        """Rows that were labeled before this query."""
        start, *later = self.journal.records
        labeled = set(start["split"]["labeled_indices"])
        for record in later:
            if record["event"] == "labels":
                labeled = labeled.union(record["indices"]).difference(record["invalid"])
        return labeled

    def check(self, answers: Mapping[int, Answer], *, accept_unasked: bool = False) -> None:
        """Raises as :meth:`answer` does, and changes nothing."""
        asked, labeled = set(self.indices), self._labeled
        strangers = [index for index in answers if index not in asked and index not in labeled]
        if strangers and not accept_unasked:
            raise ValueError(
                f"answers must be to rows that were asked, found {len(strangers)} that were not: "
                f"{strangers[:5]}; accept them with accept_unasked"
            )
        start, *later = self.journal.records
        split = start["split"]
        outside = set(split["held_out"]).union(split["invalid"])
        outside.update(*(record["invalid"] for record in later if record["event"] == "labels"))
        gone = [i for i in strangers if not 0 <= i < split["num_rows"] or i in outside]
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
        if self.classes is None:
            return
        for index, answer in answers.items():
            is_position = type(answer) is int and 0 <= answer < len(self.classes)
            # Several classes at once, or shares of each, are a list.
            if not (isinstance(answer, Mark | list) or is_position):
                raise ValueError(
                    f"a label must be a position in the {len(self.classes)} classes "
                    f"{self.classes[:10]}, got {answer!r} for row {index}"
                )


# ---- agreement -----------------------------------------------------------------------------------


def cohens_kappa(first: Sequence[Answer], second: Sequence[Answer]) -> float:
    """Agreement of two people on the same rows beyond chance; 1 is full, 0 is that of chance.

    ``(p_o - p_e) / (1 - p_e)`` with the observed share of equal answers and the one expected of two
    people who answer independently with the shares of their own: Cohen 1960, Educational and
    Psychological Measurement 20(1).

    Returns:
        In [-1, 1]; NaN when both gave one and the same answer throughout, which says nothing.

    >>> cohens_kappa([0, 0, 1, 1], [0, 0, 1, 0])
    0.5
    """
    num = len(first)
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / num
    answers = [*first, *second]
    kinds = [a for n, a in enumerate(answers) if a not in answers[:n]]
    expected = sum(list(first).count(a) * list(second).count(a) for a in kinds) / num**2
    return (observed - expected) / (1 - expected) if expected < 1 else float("nan")


@dataclass(frozen=True)
class Agreement:
    """How far two people agree."""

    first: str
    second: str
    num_rows: int
    """Rows that both answered."""
    num_equal: int
    kappa: float


def agreements(records: Iterable[Record]) -> list[Agreement]:
    """Agreement of each two people who answered the same rows, settled or not.

    Args:
        records: Those of a run.
    """
    by_cycle: dict[int, list[Record]] = {}
    for record in records:
        if record["event"] in ("answers", "undo"):
            by_cycle.setdefault(record["cycle"], []).append(record)
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
