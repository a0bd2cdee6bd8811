"""The query that waits: each answer is a record in the journal.

Everything here comes from the journal alone. So one process can train while another serves the page
on which people label, and neither needs to know of the other.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import NamedTuple

from al_lightning.label.fold import Answer, Fold, RowAnswers, to_plain
from al_lightning.run.growth import classes_of, num_rows_of
from al_lightning.run.journal import Journal, Record
from al_lightning.run.label_form import LabelForm
from al_lightning.run.records import INVALID, NUM_DOUBTS_ON_PAGE, SKIP, Mark


def now() -> str:
    """Return the time in UTC, as ISO 8601, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


class AnswersError(ValueError):
    """Says why an oracle's answer cannot be accepted; the run is as before, and can go on."""


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
            labeled.update(record["indices"])
            labeled.difference_update(record["invalid"])
            outside.update(record["invalid"])
        outside.update((record.get("grown") or {"invalid": ()})["invalid"])
    return RowsBefore(labeled, outside)


def doubted(records: Sequence[Record], doubts: Sequence[Sequence[float]]) -> list[Sequence[float]]:
    """Return the labels in doubt that nobody has looked at since they got their labels.

    Args:
        records: Of the run.
        doubts: As :class:`~al_lightning.run.records.CycleResult` holds them.
    """
    settled = {
        index
        for record in records
        if record["event"] == "labels"
        for index in (*(row for row, _ in record["corrected"]), *record["invalid"])
    }
    return [doubt for doubt in doubts if doubt[0] not in settled]


class OpenQuery:
    """Holds the query at the end of a journal, and its answers.

    When a method that changes something returns, the change is on the disk.

    Args:
        journal: The journal of the run.

    Attributes:
        record: The journal's record of the query.
        cycle: The number of its cycle.
        indices: Data-set indices that were asked, most wanted first.
        form: What a label is.

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
        began = journal.records[0]["config"]
        task = began.get("active", {}).get("task", "multiclass")  # absent in earlier versions
        self.form = LabelForm(task, classes_of(journal.records))
        self._asked = set(self.indices)
        self._before = rows_before(journal.records)
        self._answers, self._num_read = Fold(), journal.records.index(asked)
        listed = (journal.find("test", self.cycle) or {}).get("doubts") or []
        self._doubts = doubted(journal.records, listed)[:NUM_DOUBTS_ON_PAGE]

    @classmethod
    def of(cls, journal: Journal, known: "OpenQuery | None" = None) -> "OpenQuery":
        """Return the query at the end of a journal: the one that is known, or a new one."""
        last = journal.last or {"event": "nothing", "cycle": None}
        is_it = known is not None and known.journal is journal and last["cycle"] == known.cycle
        return known if known is not None and is_it and last["event"] != "labels" else cls(journal)

    @property
    def records(self) -> list[Record]:
        """Return the records of the query's cycle, oldest first."""
        return [record for record in self.journal.records if record.get("cycle") == self.cycle]

    @property
    def answers(self) -> Fold:
        """The answers so far."""
        for record in self.journal.records[self._num_read :]:
            self._answers.add(record)
        self._num_read = len(self.journal.records)
        return self._answers

    @property
    def doubts(self) -> dict[int, Sequence[float]]:
        """Return the labels in doubt that nobody has looked at yet, by data-set index."""
        rows = self.rows
        return {int(doubt[0]): doubt for doubt in self._doubts if doubt[0] not in rows}

    @property
    def rows(self) -> dict[int, RowAnswers]:
        """Return the answers by data-set index, including those to rows that were not asked."""
        return self.answers.rows

    @property
    def differing(self) -> dict[int, RowAnswers]:
        """Return those of :attr:`rows` on which people differ."""
        return self.answers.differing

    @property
    def open_indices(self) -> list[int]:
        """Return asked rows without an answer that holds: nobody answered, or people differ."""
        rows, differing = self.rows, self.differing
        return [i for i in self.indices if i not in rows or i in differing]

    def answer(
        self,
        answers: Mapping[int, Answer],
        *,
        by: str | None = None,
        how: str,
        settles: bool = False,
        accept_unasked: bool = False,
        source: str | None = None,
        seconds: float | None = None,
    ) -> None:
        """Record answers: all of them or, on an error, none.

        A later answer of the same person to the same row replaces the earlier one, and None takes
        it back. A label for a row that has a label already corrects it.

        Args:
            answers: By data-set index.
            by: The person's name.
            how: The way by which they come, such as ``"page"``.
            settles: These answers hold against all others.
            accept_unasked: Accept answers to rows of the pool that were not asked.
            source: Name of the file that holds the answers.
            seconds: The time that they took, where it is known.

        Raises:
            ValueError: for a row that was not asked, or a label that is no class.
        """
        self.check(answers, accept_unasked=accept_unasked)
        self.journal.append(
            "answers",
            cycle=self.cycle,
            number=self.answers.num,
            answers=[[index, to_plain(answer)] for index, answer in answers.items()],
            by=by or None,
            at=now(),
            how=how,
            settles=settles,
            source=source,
            seconds=seconds,
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
        last = self.last_of(by)
        if last is None:
            raise ValueError(f"there is no answer{f' of {by}' if by else ''} to take back")
        self.journal.append(
            "undo", cycle=self.cycle, number=last["number"], by=by or None, at=now(), how=how
        )
        return [index for index, _ in last["answers"]]

    def last_of(self, by: str | None) -> Record | None:
        """Return the last answer of a person, or with None of anybody, that still stands."""
        theirs = (r for r in reversed(self.answers.standing) if by is None or (r["by"] or "") == by)
        return next(theirs, None)

    def outcome(self, last: Mapping[int, Answer] = {}) -> Record:
        """Return what :meth:`finish` would record now, without the rows on which people differ.

        Args:
            last: Answers that come with the closing; they hold against all others.
        """
        labeled = self._before.labeled
        differing = self.differing
        agreed = {i: row.answer for i, row in self.rows.items() if i not in differing}
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
        differing = [i for i in self.differing if i not in last]
        if differing:
            raise ValueError(
                f"answers must agree before the query is closed, found {len(differing)} rows on "
                f"which people differ: {differing[:5]}; settle them"
            )
        result = self.outcome(last)
        labeled = self._before.labeled.union(result["indices"])
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
        labeled, outside = self._before
        strangers = [i for i in answers if i not in labeled and i not in self._asked]
        if strangers and not accept_unasked:
            raise ValueError(
                f"answers must be to rows that were asked, found {len(strangers)} that were not: "
                f"{strangers[:5]}; accept them with accept_unasked"
            )
        num_rows = num_rows_of(self.journal.records) if strangers else 0
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
        for index, answer in answers.items():
            is_no_label = answer is None or isinstance(answer, Mark)
            if not (is_no_label or self.form.accepts(answer)):
                raise ValueError(
                    f"a label must be {self.form.rule}, got {answer!r} for row {index}"
                )
