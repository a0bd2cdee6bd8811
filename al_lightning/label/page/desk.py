"""The desk behind the page: it gives each person the next row, and keeps their answers."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from al_lightning.label.answers import OpenQuery
from al_lightning.label.fold import Answer, RowAnswers, in_words
from al_lightning.label.page.answered import (
    Earlier,
    Filter,
    answered_page,
    earlier_rows,
    used_classes,
)
from al_lightning.label.page.people import People, Views
from al_lightning.label.page.progress import progress_of, results_in_words, told_between
from al_lightning.label.page.rows import (
    File,
    Shown,
    address,
    check_form,
    described,
    largest_group,
    visible,
)
from al_lightning.label.page.trainer import Elsewhere, Trainer
from al_lightning.run.folder import JOURNAL
from al_lightning.run.growth import classes_of
from al_lightning.run.journal import Journal, Record
from al_lightning.run.label_form import LabelForm

HOW = "page"
GRID = 60
"""Rows that are confirmed together at most."""
AHEAD = 4
"""Pictures that the page loads before they are needed."""


class Desk:
    """Shows each person the next row, and keeps their answers; knows nothing of HTTP.

    It follows the run's journal. So it opens the next query when the trainer has written it, and
    takes in what others have answered or closed.

    Args:
        query: The query that waits for answers; None to find it in the folder once it is there.
        run_dir: The folder of its run, which holds the pictures.
        trainer: Goes on with the run once a query is closed; another process when not given.

    Raises:
        ValueError: when the classes are not known.
    """

    def __init__(
        self, query: OpenQuery | None, run_dir: Path, trainer: Trainer | None = None
    ) -> None:
        self.run_dir = run_dir
        self.trainer: Trainer = Elsewhere(run_dir) if trainer is None else trainer
        self.journal = Journal.watched(run_dir / JOURNAL) if query is None else query.journal
        self.query: OpenQuery | None = None
        self.people = People()
        self.ends = False  # the server ends, because nobody here goes on with the run
        self._changed = time.monotonic()
        if query is not None:
            self._open(query)
        else:
            check_form(self.form)
            self.follow()

    def _open(self, query: OpenQuery) -> None:
        check_form(query.form)
        self.query = query
        self.position = {index: n for n, index in enumerate(query.indices)}
        self.earlier = earlier_rows(query.journal.records)
        self._files: dict[int, Shown] = {}
        self._views = Views()

    # ---- the run ---------------------------------------------------------------------------------

    def follow(self, *, as_writer: bool = False) -> None:
        """Take in what others have written to the journal.

        Args:
            as_writer: Mend a torn line too; only for the one who has the run's lock.

        Raises:
            ValueError: when the journal is damaged.
        """
        new = self.journal.follow(as_writer=as_writer)
        if new:
            self._changed = time.monotonic()
        last = self._last
        waits = last["event"] in ("query", "answers", "undo")
        has_class = any(record.get("classes") for record in new)
        if not waits:
            self.query = None
        elif self.query is None or self.query.cycle != last["cycle"] or has_class:
            # Its pictures are complete once the trainer has left the folder.
            self.query = None
            if not self.trainer.is_at_work():
                self._open(OpenQuery(self.journal))

    @property
    def form(self) -> LabelForm:
        """The form of a label."""
        records = self.journal.records
        task = records[0]["config"].get("active", {}).get("task", "multiclass")
        return LabelForm(task, classes_of(records))

    @property
    def about(self) -> dict[str, Any]:
        """Return the facts that stay the same while the query waits."""
        form, query, records = self.form, self.query, self.journal.records
        used = used_classes(records, form)
        people = {r["by"] for r in records if r["event"] == "answers" and r["by"]}
        return {
            "run": records[0].get("run"),
            "cycle": None if query is None else query.cycle,
            "num_rows": 0 if query is None else len(query.indices),
            "classes": [*map(visible, _choices(form))],
            "used": [used[name] for name in _choices(form)],
            "task": form.task,
            "strategy": records[0]["config"]["active"]["strategy"],
            "folder": str(self.run_dir),
            "people": sorted(map(visible, people)),
        }

    @property
    def kinds(self) -> tuple[type, ...]:
        """Return the types of a label on the page."""
        several, number = (list,), (int, float, list)
        return {"multilabel": several, "regression": number}.get(self.form.task, (int,))

    @property
    def closed(self) -> str | None:
        """Say why there is nothing to label now; None while a query waits."""
        if self.query is not None:
            return None
        return told_between(self._last, self.trainer)

    @property
    def is_over(self) -> bool:
        """Tell whether the run has ended."""
        is_end: bool = self._last["event"] == "end"
        return is_end

    @property
    def _last(self) -> Record:
        return self.journal.last or {"event": "nothing"}

    @property
    def progress(self) -> str:
        """Return the progress of the query, in words."""
        if self.query is None:
            return self.closed or ""
        num, num_open = len(self.query.indices), len(self.query.open_indices)
        return f"{num - num_open} of {_rows(num)} are answered, all kept in {self.journal.path}"

    # ---- what a person sees ----------------------------------------------------------------------

    def state(self, by: str, *, second: bool = False, show: int | None = None) -> dict[str, Any]:
        """Return the row that a person should answer next, and the progress of the query.

        Rows that nobody answered come first, then rows on which people differ.

        Args:
            by: The person's name; ``""`` for a person without one.
            second: Put rows that only others answered between the two, and labeled rows whose
                labels are in doubt at the end.
            show: Put this row first.

        Raises:
            ValueError: when the row to show is not of this run's queries.
        """
        query = self.query
        if query is None:
            return self._between()
        if show is not None and not self._may_be_answered(show):
            raise ValueError(f"row {show} is not of this query; reload the page to see what is")
        rows, differing, in_doubt = query.rows, query.differing, query.doubts
        others = [index for index, row in rows.items() if _wants_second(row, by)]
        if second:
            others.sort(key=lambda i: self.position.get(i, len(self.position)))
        coming = [
            *self._unanswered(by),
            *(others if second else ()),
            *differing,
            *(in_doubt if second else ()),
        ]
        if show is not None:
            coming = [show, *(index for index in coming if index != show)]
        self._views.sees(by, coming[:1])
        pictures = [address(self._shown(index), index) for index in coming[1 : 1 + AHEAD]]
        return {
            "cycle": query.cycle,
            "num_classes": len(_choices(query.form)),
            "row": self._described(coming[0], by) if coming else None,
            "next_picture": pictures[0] if pictures else None,
            "next_pictures": [picture for picture in pictures if picture],
            "num_open": len(query.open_indices),
            "num_differing": len(differing),
            "num_second": len(others),
            "num_doubts": len(in_doubt),
            "num_yours": sum(by in row.by_labeler for row in rows.values()),
        }

    def _between(self) -> dict[str, Any]:
        """Return what the page shows while no query waits."""
        records, is_trained = self.journal.records, not self.is_over and self.trainer.is_at_work()
        since = time.monotonic() - self._changed
        return {
            "closed": self.closed,
            "is_over": self.is_over,
            "goes_on": not (self.is_over or self.ends),
            "progress": progress_of(records, since) if is_trained else None,
            "results": results_in_words(records),
        }

    def grid(self, by: str) -> dict[str, Any]:
        """Return rows that nobody answered and that the model believes to be of one class.

        They are of the class with the most such rows.

        Args:
            by: The person who looks at them.

        Returns:
            ``guess`` in words, ``answer`` as a label, ``rows``, and the ``num`` of all such rows;
            nothing but an empty list of rows where the model has said nothing.
        """
        guess, members = largest_group(self._waiting, self._unanswered(by))
        if not members:
            return {"rows": []}
        rows = [self._described(index, by) for index in members[:GRID]]
        self._views.sees(by, members[:GRID])
        return {
            "guess": visible(guess),
            "answer": rows[0]["likely_answer"],
            "rows": rows,
            "num": len(members),
        }

    def answered(self, by: str, *, words: str, only: str, start: int) -> dict[str, Any]:
        """Return a page of the list of answers; see :func:`answered_page`."""
        wanted = Filter(self._waiting.form, by, words, only)
        return answered_page(self._waiting, self.earlier, wanted, start, self._files_of)

    def _unanswered(self, by: str) -> list[int]:
        rows = self._waiting.rows
        unanswered = [index for index in self._waiting.indices if index not in rows]
        # Two people at work share the rows: a row that another person sees now comes last.
        taken = self._views.of_others(by)
        free = [index for index in unanswered if index not in taken]
        return [*free, *(index for index in unanswered if index in taken)] if taken else free

    def _described(self, index: int, by: str) -> dict[str, Any]:
        query, shown = self._waiting, self._shown(index)
        found = described(query, index, self.position.get(index), query.rows.get(index), shown)
        earlier, row = self.earlier.get(index), query.rows.get(index)
        if row is None and earlier is not None:
            row = earlier.row
        yours = None if row is None else row.by_labeler.get(by)
        found["yours"] = None if yours is None else visible(in_words(yours, query.form))
        found["second"] = found["second"] or found["yours"] is not None
        if earlier is not None and index not in self.position and earlier.name is not None:
            found["name"] = visible(earlier.name)
        return found

    # ---- files -----------------------------------------------------------------------------------

    def picture_file(self, index: int) -> Path | None:
        """Return the picture of a row of this query or of an answered one; None without one."""
        return self._shown(index).picture(index) if self._is_known(index) else None

    def original(self, index: int) -> File | None:
        """Return the file from which the picture of such a row was made; None without one."""
        return self._shown(index).original(index) if self._is_known(index) else None

    def media(self, index: int, number: int) -> File | None:
        """Return the sound or film that is one part of such a row; None without one."""
        return self._shown(index).media(index, number) if self._is_known(index) else None

    def _is_known(self, index: int) -> bool:
        return self.query is not None and self._may_be_answered(index)

    def _shown(self, index: int) -> Shown:
        """Return the files of the query in which a row was asked."""
        earlier: Earlier | None = self.earlier.get(index)
        is_ours = index in self.position or index in self._waiting.doubts or earlier is None
        return self._files_of(self._waiting.cycle if is_ours or earlier is None else earlier.cycle)

    def _files_of(self, cycle: int) -> Shown:
        return self._files.setdefault(cycle, Shown(self.run_dir, cycle))

    # ---- what a person does ----------------------------------------------------------------------

    def answer(self, index: int, answer: Answer, by: str, *, settles: bool) -> None:
        """Keep an answer.

        Raises:
            ValueError: for a row that was neither asked nor answered, or a label that is no class.
            OSError, RuntimeError: as :meth:`~al_lightning.run.journal.Journal.append`.
        """
        self.answer_all([index], answer, by, settles=settles)

    def answer_all(
        self, indices: Sequence[int], answer: Answer, by: str, *, settles: bool = False
    ) -> None:
        """Keep one answer for several rows, all or none; see :meth:`answer`."""
        for index in indices:
            if not self._may_be_answered(index):
                raise ValueError(
                    f"row {index} is not of this query; reload the page to see what is"
                )
        seconds = self._views.seconds(by, indices)
        # Files may answer rows that were not asked, and people may differ on those rows too.
        unasked = not self.position.keys() >= {*indices}
        how: dict[str, Any] = {"by": by, "how": HOW, "settles": settles, "seconds": seconds}
        self._waiting.answer(dict.fromkeys(indices, answer), **how, accept_unasked=unasked)

    def undo(self, by: str, index: int | None = None) -> int:
        """Undo the person's last answer, or their answer to one row.

        Returns:
            Data-set index of the row; of several that were answered together, the first.

        Raises:
            ValueError: when there is none, or the last one came from a file with others.
        """
        query = self._waiting
        if index is not None:
            row = query.rows.get(index)
            if row is None or by not in row.by_labeler:
                closed = index in self.earlier
                raise ValueError(
                    "a label of a query that is closed cannot be taken back, only corrected: open "
                    "the row and choose another class, or mark it invalid"
                    if closed
                    else f"there is no answer of {by or 'yours'} to row {index} to take back"
                )
            query.answer({index: None}, by=by, how=HOW, accept_unasked=True)
            return index
        last = query.last_of(by)
        if last is not None and last["how"] != HOW:
            raise ValueError(
                f"the page takes back what was answered on it, and the last answers came by "
                f"{last['how']}, {_rows(len(last['answers']))} at once"
            )
        return query.undo(by=by, how=HOW)[0]

    def finish(self, by: str, *, num_open: int) -> str:
        """Close the query, and return a sentence that says so.

        Args:
            by: The person's name.
            num_open: The number of rows that return to the pool, as the person was told.

        Raises:
            ValueError: when another number would return by now, or the query cannot be closed.
        """
        query = self._waiting
        found = len(query.open_indices)
        if found != num_open:
            raise ValueError(
                f"the page said that {_rows(num_open)} without an answer would return to the pool, "
                f"and by now {found} would: somebody else went on; reload the page"
            )
        query.finish(by=by, how=HOW)
        self.query = None
        self.ends = not self.trainer.goes_on
        self._changed = time.monotonic()
        return f"The query of cycle {query.cycle} is closed. {self.trainer.told()}"

    @property
    def _waiting(self) -> OpenQuery:
        if self.query is None:
            raise ValueError(self.closed)
        return self.query

    def _may_be_answered(self, index: int) -> bool:
        query = self._waiting
        known = (self.position, query.rows, query.doubts, self.earlier)
        return any(index in rows for rows in known)


def _choices(form: LabelForm) -> Sequence[str]:
    """Return the classes among which a person chooses."""
    return form.classes or () if form.needs_classes else ()


def _wants_second(row: RowAnswers, by: str) -> bool:
    return row.settled is None and not row.in_conflict and by not in row.by_labeler


def _rows(num: int) -> str:
    return "1 row" if num == 1 else f"{num} rows"
