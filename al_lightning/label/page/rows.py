"""Rows as the page shows them: the files of a query's folder, and words about each row."""

import json
import mimetypes
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from al_lightning.label.answers import OpenQuery
from al_lightning.label.fold import RowAnswers, in_words
from al_lightning.run.folder import ROWS, query_folder
from al_lightning.run.label_form import LabelForm

SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
}
"""First bytes of the pictures that a browser shows; WebP has its own test."""
LONGEST_TEXT = 100_000
"""Characters of a text that the page shows."""


class File(NamedTuple):
    """Names a file that the page may ask for, and its media type."""

    path: Path
    kind: str


class Shown:
    """Finds what a query's folder holds of each row. The training process has written it.

    Args:
        run_dir: The run's folder.
        cycle: The query's cycle.
    """

    def __init__(self, run_dir: Path, cycle: int) -> None:
        self.folder = query_folder(run_dir, cycle)

    @cached_property
    def described(self) -> dict[int, list[dict[str, Any]]]:
        """The parts of each row that are more than one picture, by data-set index."""
        try:
            lines = (self.folder / ROWS).read_text(encoding="utf-8").splitlines()
        except OSError:
            return {}
        return {row["index"]: row["parts"] for row in map(json.loads, lines)}

    def picture(self, index: int) -> Path | None:
        """Return the picture of a row, with at most 1,024 pixels a side."""
        files = [self.folder / "images" / f"{index}{suffix}" for suffix in (".png", ".jpg")]
        return next((file for file in files if file.is_file()), None)

    def original(self, index: int) -> File | None:
        """Return the file that a picture was made from, where a browser can show it."""
        found = [part["original"] for part in self.described.get(index, ()) if "original" in part]
        return picture_file(Path(found[0])) if found else None

    def media(self, index: int, number: int) -> File | None:
        """Return the file of one part of a row: a sound, a film, a further picture."""
        parts = self.described.get(index, [])
        part = parts[number] if 0 <= number < len(parts) else {}
        if "file" not in part:
            return None
        path = self.folder / part["file"]  # an absolute path stays one
        if part["kind"] == "picture":
            return picture_file(path)
        kind = mimetypes.guess_type(path.name)[0] or ""
        return File(path, kind) if kind.startswith(part["kind"]) and path.is_file() else None

    def parts(self, index: int) -> list[dict[str, Any]]:
        """Return the parts of a row for the page: texts, tables, addresses, and what went wrong."""
        found: list[dict[str, Any]] = []
        has_picture = False
        for number, part in enumerate(self.described.get(index, ())):
            kind = part["kind"]
            if kind == "text":
                found.append({"kind": kind, "text": visible(part["text"][:LONGEST_TEXT])})
            elif kind == "table":
                cells = [[visible(name), visible(value)] for name, value in part["cells"]]
                found.append({"kind": kind, "cells": cells})
            elif kind == "problem":
                found.append({"kind": kind, "text": visible(part["text"])})
            elif kind in ("audio", "video") or (kind == "picture" and has_picture):
                found.append({"kind": kind, "address": f"/media/{index}/{number}"})
            has_picture = has_picture or kind == "picture"
        return found


def picture_file(path: Path) -> File | None:
    """Return a picture that a browser can show; None for any other file."""
    try:
        with open(path, "rb") as file:
            begin = file.read(16)
    except OSError:
        return None
    kinds = [kind for signature, kind in SIGNATURES.items() if begin.startswith(signature)]
    if begin[:4] == b"RIFF" and begin[8:12] == b"WEBP":
        kinds = ["image/webp"]
    return File(path, kinds[0]) if kinds else None


DIRECTION = re.compile(
    "[\u0000-\u0008\u000b-\u001f\u007f-\u009f"  # control characters, but for tab and line end
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]"
)
"""Characters that are not seen themselves and change how others are seen."""


def visible(text: str) -> str:
    r"""Return a text in which characters that turn or hide others are shown as such.

    >>> visible("gpj.\u202eexe"), visible("\udcff.png")
    ('gpj.<U+202E>exe', '?.png')
    """
    proper = text.encode(errors="replace").decode()  # a file's name need not be proper text
    return DIRECTION.sub(lambda found: f"<U+{ord(found[0]):04X}>", proper)


def check_form(form: LabelForm) -> None:
    """Raise ValueError when the page has no place for such labels."""
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


def described(
    query: OpenQuery, index: int, position: int | None, row: RowAnswers | None, shown: Shown
) -> dict[str, Any]:
    """Return all that the page shows of a row.

    Args:
        query: The query that waits.
        index: Data-set index.
        position: Its place in the query; None for a row that was not asked.
        row: Its answers so far.
        shown: The files of the query in which it was asked.
    """
    form = query.form
    columns = ("predicted", "scores", "names")
    predicted, score, name = (_of_query(query, column, position) for column in columns)
    doubt = query.doubts.get(index)
    if doubt is not None:
        predicted = int(doubt[2])
    return {
        "index": index,
        "number": None if position is None else position + 1,
        "name": None if name is None else visible(name),
        "picture": address(shown, index),
        "original": None if shown.original(index) is None else f"/originals/{index}",
        "parts": shown.parts(index),
        "guess": None if predicted is None else visible(str(form.told(predicted))),
        "likely_answer": predicted if form.accepts(predicted) and form.needs_classes else None,
        "score": None if score is None else f"{score:.3g}",
        "second": row is not None and not row.in_conflict,
        "said": said(row, query) if row is not None and row.in_conflict else [],
        **({} if doubt is None else _doubted(query, doubt)),
    }


def largest_group(query: OpenQuery, indices: Sequence[int]) -> tuple[str, list[int]]:
    """Return the class that the model sees most often in some rows, in words, and those rows.

    Args:
        query: The query that waits.
        indices: Rows that were asked. None is returned where the model has said nothing of them, or
            says numbers.
    """
    predicted = query.record.get("predicted")
    groups: dict[str, list[int]] = {}
    if predicted is not None and query.form.needs_classes:
        guesses = dict(zip(query.indices, predicted, strict=True))
        for index in indices:
            groups.setdefault(str(query.form.told(guesses[index])), []).append(index)
    return max(groups.items(), key=lambda pair: len(pair[1]), default=("", []))


def said(row: RowAnswers, query: OpenQuery) -> list[dict[str, str]]:
    """Return who answered what."""
    return [
        {
            "by": visible(name) or "somebody without a name",
            "answer": visible(in_words(answer, query.form)),
        }
        for name, answer in row.by_labeler.items()
    ]


def address(shown: Shown, index: int) -> str | None:
    """Return where the page finds the picture of a row."""
    return None if shown.picture(index) is None else f"/images/{index}"


def _doubted(query: OpenQuery, doubt: Sequence[float]) -> Mapping[str, str]:
    _, probability, _, label = doubt
    return {"doubt": query.form.in_words(int(label)), "likely": f"{probability:.2g}"}


def _of_query(query: OpenQuery, column: str, position: int | None) -> Any:
    values = query.record.get(column)
    return None if values is None or position is None else values[position]
