"""The query behind the page: it gives each person the next row, and keeps their answers."""

import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from al_lightning.label.answers import OpenQuery
from al_lightning.label.fold import Answer, RowAnswers, in_words
from al_lightning.run.folder import query_folder

HOW = "page"
PAUSE = 600.0
"""Seconds; who takes longer for a row has gone away, and so many count."""


class Desk:
    """Shows each person the next row, and keeps their answers; knows nothing of HTTP.

    Args:
        query: The query that waits for answers.
        run_dir: The folder of its run, which holds the pictures.

    Raises:
        ValueError: when the classes are not known.
    """

    def __init__(self, query: OpenQuery, run_dir: Path) -> None:
        form = query.form
        if form.task == "dense":
            raise ValueError(
                "the page has no place for a label of many parts, found task='dense'; let the data "
                "set read finished masks and tell() their rows"
            )
        if form.needs_classes and form.classes is None:
            raise ValueError(
                "the page shows a button for each class, and the run does not know its classes; "
                'begin it with their names in the data module: classes=["cat", "dog"]'
            )
        self.query = query
        self.run_dir = run_dir
        self.position = {index: n for n, index in enumerate(query.indices)}
        self.pictures = {f"{index}": index for index in (*query.indices, *query.doubts)}
        self.closed: str | None = None
        self._before: dict[str, int] = {}  # the row that each person with a name sees now
        self._since: dict[str, tuple[int, float]] = {}  # the row that each person sees, since when

    @property
    def about(self) -> dict[str, Any]:
        """Return the facts that stay the same while the query waits."""
        form = self.query.form
        return {
            "cycle": self.query.cycle,
            "num_rows": len(self.query.indices),
            "classes": list(form.classes or ()) if form.needs_classes else [],
            "task": form.task,
            "strategy": self.query.journal.records[0]["config"]["active"]["strategy"],
            "folder": str(self.run_dir),
        }

    @property
    def kinds(self) -> tuple[type, ...]:
        """Return the types of a label on the page."""
        several, number = (list,), (int, float, list)
        return {"multilabel": several, "regression": number}.get(self.query.form.task, (int,))

    def state(self, by: str, *, second: bool = False, show: int | None = None) -> dict[str, Any]:
        """Return the row that a person should answer next, and the progress of the query.

        Rows that nobody answered come first, then rows on which people differ.

        Args:
            by: The person's name; ``""`` for a person without one.
            second: Put rows that only others answered between the two, and labeled rows whose
                labels are in doubt at the end.
            show: Put this row first.
        """
        rows = self.query.rows
        unanswered = [index for index in self.query.indices if index not in rows]
        in_order = sorted(rows, key=lambda i: self.position.get(i, len(self.position)))
        others = [index for index in in_order if _wants_second(rows[index], by)]
        differing = [i for i, row in rows.items() if row.in_conflict]
        # Two people at work share the rows: a row that another person sees now comes last.
        taken = {index for name, index in self._before.items() if name != by}
        unanswered.sort(key=lambda index: index in taken)
        in_doubt = self.query.doubts
        coming = [
            *unanswered,
            *(others if second else ()),
            *differing,
            *(in_doubt if second else ()),
        ]
        if show is not None:
            coming = [show, *(index for index in coming if index != show)]
        if by and coming:
            self._before[by] = coming[0]
        else:
            self._before.pop(by, None)
        if coming and self._since.get(by, (None,))[0] != coming[0]:
            self._since[by] = coming[0], time.monotonic()
        return {
            "row": self._described(coming[0], rows) if coming else None,
            "next_picture": self._picture(coming[1]) if len(coming) > 1 else None,
            "num_open": len(self.query.open_indices),
            "num_differing": len(differing),
            "num_second": len(others),
            "num_doubts": len(in_doubt),
            "num_yours": sum(by in row.by_labeler for row in rows.values()),
        }

    def answer(self, index: int, answer: Answer, by: str, *, settles: bool) -> None:
        """Keep an answer.

        Raises:
            ValueError: for a row that was neither asked nor answered, or a label that is no class.
            OSError, RuntimeError: as :meth:`~al_lightning.run.journal.Journal.append`.
        """
        # Files may answer rows that were not asked, and people may differ on those rows too.
        unasked = index not in self.position
        if unasked and index not in self.query.rows and index not in self.query.doubts:
            raise ValueError(f"row {index} is not of this query; reload the page to see what is")
        shown, since = self._since.get(by, (None, 0.0))
        seconds = min(PAUSE, time.monotonic() - since) if shown == index else None
        how: dict[str, Any] = {"by": by, "how": HOW, "settles": settles}
        self.query.answer({index: answer}, **how, accept_unasked=unasked, seconds=seconds)

    def undo(self, by: str) -> int:
        """Undo the person's last answer.

        Returns:
            Data-set index of its row.

        Raises:
            ValueError: when there is none, or it came from a file with others.
        """
        last = self.query.last_of(by)
        if last is not None and last["how"] != HOW:
            raise ValueError(
                f"the page takes back what was answered on it, and the last answers came by "
                f"{last['how']}, {_rows(len(last['answers']))} at once"
            )
        (index,) = self.query.undo(by=by, how=HOW)
        return index

    def finish(self, by: str, *, num_open: int) -> str:
        """Close the query, and return a sentence that says so.

        Args:
            by: The person's name.
            num_open: The number of rows that return to the pool, as the person was told.

        Raises:
            ValueError: when another number would return by now, or the query cannot be closed.
        """
        found = len(self.query.open_indices)
        if found != num_open:
            raise ValueError(
                f"the page said that {_rows(num_open)} without an answer would return to the pool, "
                f"and by now {found} would: somebody else went on; reload the page"
            )
        self.query.finish(by=by, how=HOW)
        folder = shlex.quote(str(self.run_dir))
        self.closed = (
            f"The query of cycle {self.query.cycle} is closed. Go on with the run: "
            f"--active.run_dir {folder} --active.resume true, or ActiveLearningLoop.resume."
        )
        return self.closed

    @property
    def progress(self) -> str:
        """Return the progress of the query, in words."""
        num, num_open = len(self.query.indices), len(self.query.open_indices)
        path = self.query.journal.path
        return f"{num - num_open} of {_rows(num)} are answered, all kept in {path}"

    def picture_file(self, index: int) -> Path | None:
        """Return the picture of a row that the training process wrote; None when there is none."""
        folder = query_folder(self.run_dir, self.query.cycle) / "images"
        files = [folder / f"{index}{suffix}" for suffix in (".png", ".jpg")]
        return next((file for file in files if file.is_file()), None)

    def _described(self, index: int, rows: Mapping[int, RowAnswers]) -> dict[str, Any]:
        """Return all that the page shows of a row."""
        row = rows.get(index)
        position = self.position.get(index)
        form = self.query.form
        columns = ("predicted", "scores", "names")
        predicted, score, name = (self._of_query(column, position) for column in columns)
        doubt = self.query.doubts.get(index)
        if doubt is not None:
            predicted = int(doubt[2])
        return {
            "index": index,
            "number": None if position is None else position + 1,
            # A file's name need not be proper text.
            "name": None if name is None else name.encode(errors="replace").decode(),
            "picture": self._picture(index),
            "guess": None if predicted is None else form.told(predicted),
            "score": None if score is None else f"{score:.3g}",
            "second": row is not None and not row.in_conflict,
            "said": [
                {"by": name or "somebody without a name", "answer": in_words(answer, form)}
                for name, answer in (row.by_labeler.items() if row and row.in_conflict else ())
            ],
            **({} if doubt is None else self._doubted(doubt)),
        }

    def _doubted(self, doubt: Sequence[float]) -> dict[str, str]:
        _, probability, _, label = doubt
        return {"doubt": self.query.form.in_words(int(label)), "likely": f"{probability:.2g}"}

    def _of_query(self, column: str, position: int | None) -> Any:
        values = self.query.record.get(column)
        return None if values is None or position is None else values[position]

    def _picture(self, index: int) -> str | None:
        shown = f"{index}" in self.pictures and self.picture_file(index) is not None
        return f"/images/{index}" if shown else None


def _wants_second(row: RowAnswers, by: str) -> bool:
    return row.settled is None and not row.in_conflict and by not in row.by_labeler


def _rows(num: int) -> str:
    return "1 row" if num == 1 else f"{num} rows"
