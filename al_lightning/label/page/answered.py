"""The rows of a run that people have answered, to be found, opened and corrected."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from al_lightning.label.answers import OpenQuery
from al_lightning.label.fold import RowAnswers, fold, in_words
from al_lightning.label.page.rows import Shown, address, said, visible
from al_lightning.run.journal import Record
from al_lightning.run.label_form import LabelForm
from al_lightning.run.records import INVALID, SKIP

PAGE = 50
"""Rows that one page of the list holds."""


@dataclass(frozen=True)
class Earlier:
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


def answered_page(
    query: OpenQuery,
    earlier: dict[int, Earlier],
    run_dir: Path,
    shown: Shown,
    *,
    by: str,
    words: str,
    only: str,
    start: int,
) -> dict[str, Any]:
    """Return a page of the list of answers, the latest first.

    Args:
        query: The query that waits.
        earlier: As :func:`earlier_rows` returns them.
        run_dir: The run's folder.
        shown: The files of the query that waits.
        by: The person who looks.
        words: Lower-case text that the row's name, index, answers or people must hold.
        only: ``"yours"``, ``"differing"`` or ``""`` for all.
        start: The number of rows to leave out.
    """
    place = {index: n for n, index in enumerate(query.indices)}
    names = query.record["names"]

    def of_query() -> Iterator[tuple[int, Earlier]]:
        for index, row in query.rows.items():
            n = place.get(index)
            name = None if names is None or n is None else names[n]
            yield index, Earlier(query.cycle, n, name, row)

    # In one dict a row that was corrected now stands for its earlier answer.
    entries = {**earlier, **dict(of_query())}
    wanted = []
    for index, entry in entries.items():
        if only == "yours" and by not in entry.row.by_labeler:
            continue
        if only == "differing" and len({*map(repr, entry.row.by_labeler.values())}) < 2:
            continue
        if words and words not in _all_words(index, entry, query).lower():
            continue
        wanted.append((entry.row.at, index, entry))
    wanted.sort(key=lambda one: one[:2], reverse=True)
    files = {query.cycle: shown}
    rows = []
    for _, index, entry in wanted[start : start + PAGE]:
        of_cycle = files.setdefault(entry.cycle, Shown(run_dir, entry.cycle))
        answer = entry.row.answer
        rows.append(
            {
                "index": index,
                "cycle": entry.cycle,
                "is_open": entry.cycle == query.cycle,
                "name": None if entry.name is None else visible(entry.name),
                "picture": address(of_cycle, index),
                "holds": None if answer is None else visible(in_words(answer, query.form)),
                "said": said(entry.row, query),
                "at": entry.row.at,
                "yours": by in entry.row.by_labeler,
            }
        )
    return {"rows": rows, "num": len(wanted), "start": start}


def _all_words(index: int, entry: Earlier, query: OpenQuery) -> str:
    answers = [in_words(answer, query.form) for answer in entry.row.by_labeler.values()]
    return " ".join([str(index), entry.name or "", *entry.row.by_labeler, *answers])


def used_classes(records: Sequence[Record], form: LabelForm) -> Counter[str]:
    """Count how often people chose each class."""
    used: Counter[str] = Counter()
    for record in records:
        for _, plain in record["answers"] if record["event"] == "answers" else ():
            label = plain["label"] if isinstance(plain, dict) else None
            if isinstance(label, int) and form.classes and 0 <= label < len(form.classes):
                used[form.classes[label]] += 1
    return used
