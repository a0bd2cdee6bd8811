"""The rows of a run that people have answered, to be found, opened and corrected."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from al_lightning.label.answers import OpenQuery
from al_lightning.label.fold import Answer, RowAnswers, fold, in_words
from al_lightning.label.page.rows import Shown, address, said, visible
from al_lightning.run.journal import Record
from al_lightning.run.label_form import LabelForm
from al_lightning.run.records import INVALID, SKIP

PAGE = 50
"""Rows that one page of the list holds."""


class Earlier(NamedTuple):
    """Holds a row that people answered in a query that is closed."""

    cycle: int
    position: int | None
    """Its place in that query; None for a row that was not asked."""
    name: str | None
    row: RowAnswers


def earlier_rows(records: Sequence[Record]) -> dict[int, Earlier]:
    """Return the rows that got an answer from people in closed queries, by data-set index.

    Args:
        records: Of the run.
    """
    found: dict[int, Earlier] = {}
    asked: Record = {}
    by_cycle: dict[int, list[Record]] = {}
    for record in records:
        if record["event"] in ("answers", "undo"):
            by_cycle.setdefault(record["cycle"], []).append(record)
        elif record["event"] == "query":
            asked = record
        elif record["event"] == "labels":
            rows = fold(by_cycle.get(record["cycle"], []))
            rows.update(_last_rows(record))
            place = {index: n for n, index in enumerate(asked["indices"])}
            names = asked["names"]
            for index, row in rows.items():
                n = place.get(index)
                name = None if names is None or n is None else names[n]
                found[index] = Earlier(record["cycle"], n, name, row)
    return found


def _last_rows(closing: Record) -> Iterator[tuple[int, RowAnswers]]:
    """Yield the answers that came with the closing itself."""
    held = dict(zip(closing["indices"], closing["labels"] or [], strict=False))
    held.update({index: label for index, label in closing["corrected"]})
    held.update(dict.fromkeys(closing["skipped"], SKIP))
    held.update(dict.fromkeys(closing["invalid"], INVALID))
    by = closing["by"] or ""
    for index in closing["last"]:
        answer = held.get(index)
        row = RowAnswers({by: answer}, at=closing["at"], how=closing["how"], answer=answer)
        yield index, row


@dataclass
class Filter:
    """Says which answered rows a person wants to see.

    Args:
        form: The form of a label.
        by: The person who looks.
        words: Lower-case text that a row's index, name, answers or people must hold.
        only: ``"yours"``, ``"differing"`` or ``""`` for all.
    """

    form: LabelForm
    by: str
    words: str
    only: str
    _told: dict[str, str] = field(default_factory=dict)

    def wants(self, index: int, name: str | None, row: RowAnswers) -> bool:
        """Tell whether a row is one of them."""
        said = row.by_labeler
        if self.only == "yours" and self.by not in said:
            return False
        if self.only == "differing" and len({*map(str, said.values())}) < 2:
            return False
        if self.words in str(index) or self.words in (name or "").lower():
            return True
        return any(
            self.words in who.lower() or self.words in self._in_words(said[who]) for who in said
        )

    def _in_words(self, answer: Answer) -> str:
        key = str(answer)  # a list cannot be looked up
        if key not in self._told:
            self._told[key] = in_words(answer, self.form).lower()
        return self._told[key]


def answered_page(
    query: OpenQuery,
    earlier: dict[int, Earlier],
    wanted: Filter,
    start: int,
    shown_of: Callable[[int], Shown],
) -> dict[str, Any]:
    """Return a page of the list of answers, the latest first.

    Args:
        query: The query that waits.
        earlier: As :func:`earlier_rows` returns them.
        wanted: Chooses rows.
        start: The number of rows to leave out.
        shown_of: Gives the files of a cycle's query.
    """
    names = query.record["names"]
    place = {index: n for n, index in enumerate(query.indices)} if names is not None else {}
    found: list[tuple[str, int, Earlier]] = []
    for index, row in query.rows.items():
        n = place.get(index)
        name = None if n is None else names[n]
        if wanted.wants(index, name, row):
            found.append((row.at, index, Earlier(query.cycle, n, name, row)))
    for index, entry in earlier.items():
        # A row that was corrected now stands for its earlier answer.
        if index not in query.rows and wanted.wants(index, entry.name, entry.row):
            found.append((entry.row.at, index, entry))
    found.sort(key=lambda one: one[:2], reverse=True)
    rows = [
        _line(index, entry, query, wanted.by, shown_of(entry.cycle))
        for _, index, entry in found[start : start + PAGE]
    ]
    return {"rows": rows, "num": len(found), "start": start}


def _line(index: int, entry: Earlier, query: OpenQuery, by: str, shown: Shown) -> dict[str, Any]:
    """Return what the list shows of a row."""
    answer = entry.row.answer
    return {
        "index": index,
        "cycle": entry.cycle,
        "is_open": entry.cycle == query.cycle,
        "name": None if entry.name is None else visible(entry.name),
        "picture": address(shown, index),
        "holds": None if answer is None else visible(in_words(answer, query.form)),
        "said": said(entry.row, query),
        "at": entry.row.at,
        "yours": by in entry.row.by_labeler,
    }


def used_classes(records: Sequence[Record], form: LabelForm) -> Counter[str]:
    """Count how often people chose each class."""
    used: Counter[str] = Counter()
    for record in records:
        for _, plain in record["answers"] if record["event"] == "answers" else ():
            label = plain["label"] if isinstance(plain, dict) else None
            if isinstance(label, int) and form.classes and 0 <= label < len(form.classes):
                used[form.classes[label]] += 1
    return used
