"""A query that waits, as files: what people see, a table to fill in, and tasks for Label Studio."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from al_lightning.label.answers import OpenQuery
from al_lightning.label.label_studio import write_tasks
from al_lightning.label.oracle import query_rows
from al_lightning.label.query_file import LabelRow, write_to_label
from al_lightning.monitor.describe import Part, parts_of
from al_lightning.monitor.monitor import Loop, Monitor
from al_lightning.monitor.tables import form_of
from al_lightning.run.folder import ROWS, TO_LABEL, query_folder, write_whole
from al_lightning.run.journal import Journal
from al_lightning.run.records import NUM_DOUBTS_ON_PAGE, Query

LONGEST_SIDE = 1024
"""Pixels of a picture for a person; larger pictures are made smaller."""


class Exchange(Monitor):
    """Writes the folder ``queries/cycle_N`` once; people's entries are never overwritten."""

    def on_wait(self, loop: Loop, query: Query) -> None:
        form = form_of(loop)
        if (
            loop.run_dir is None
            or form.task == "dense"
            or (form.needs_classes and not form.classes)
        ):
            return
        folder = query_folder(loop.run_dir, query.cycle)
        if (folder / TO_LABEL).exists():
            return
        doubts = [int(row) for row, *_ in loop.results[-1].doubts or []][:NUM_DOUBTS_ON_PAGE]
        seen = {index: _write_row(loop, index, folder) for index in (*query.indices, *doubts)}
        lines = [json.dumps({"index": index, "parts": parts}) for index, parts in seen.items()]
        write_whole(folder / ROWS, "".join(f"{line}\n" for line in lines).encode())
        rows = label_rows(loop, query, seen)
        asked = query_rows(OpenQuery(Journal.in_memory(list(loop.records))))
        if all(any(part["kind"] in SHOWN for part in seen[row.index]) for row in rows):
            strategy = loop.records[0]["config"]["active"]["strategy"]
            pictures = {index: _picture_file(folder, index) for index in query.indices}
            found = {index: path for index, path in pictures.items() if path is not None}
            write_tasks(folder, rows, found, asked, strategy)
        write_to_label(folder / TO_LABEL, rows)  # last: with it the folder is complete


SHOWN = ("picture", "text", "table")
"""Parts that a task for Label Studio can hold."""


def label_rows(
    loop: Loop, query: Query, seen: Mapping[int, Sequence[Mapping[str, Any]]]
) -> list[LabelRow]:
    """Return the rows of a query as a person sees them."""
    empty = [""] * len(query.indices)
    names = query.names or empty
    predicted = [str(form_of(loop).told(one)) for one in query.predicted or empty]
    scores: Sequence[float | None] = query.scores or [None] * len(empty)
    rows = []
    for index, name, guess, score in zip(query.indices, names, predicted, scores, strict=True):
        texts = [part["text"] for part in seen[index] if part["kind"] == "text"]
        tables = [dict(part["cells"]) for part in seen[index] if part["kind"] == "table"]
        table = {name: cell for one in tables for name, cell in one.items()}
        rows.append(LabelRow(index, name, guess, score, text="\n".join(texts), table=table))
    return rows


def picture_of(loop: Loop, index: int) -> bytes | None:
    """Return a row as PNG, or as JPEG where that is much smaller.

    It is None when the row is no image, or cannot be read any more. A person can still call such a
    row invalid.
    """
    pictures = [part for part in _parts(loop, index) if part.kind == "picture"]
    return _encoded(pictures[0].value) if pictures else None


def can_be_seen(loop: Loop) -> bool:
    """Tell whether people can see more of the first row to ask for than its number."""
    pool = loop.data.unlabeled_indices
    return len(pool) == 0 or bool(_parts(loop, int(pool[0])))


def _parts(loop: Loop, index: int) -> list[Part]:
    return parts_of(loop.data.sets.for_people, index, loop.data.label_key)


def _write_row(loop: Loop, index: int, folder: Path) -> list[dict[str, Any]]:
    """Write the pictures of a row; return its parts for the page, in plain values."""
    written: list[dict[str, Any]] = []
    num_pictures = 0
    for kind, value, original in _parts(loop, index):
        if kind == "picture":
            content, is_smaller = _encoded(value), max(value.size) > LONGEST_SIDE
            num_pictures += 1
            name = f"{index}" if num_pictures == 1 else f"{index}_{num_pictures}"
            suffix = ".png" if content.startswith(b"\x89PNG") else ".jpg"
            path = folder / "images" / f"{name}{suffix}"
            write_whole(path, content)
            part = {"kind": kind, "file": f"images/{path.name}"}
            if original is not None and is_smaller:
                part["original"] = str(original.absolute())
            written.append(part)
        elif kind == "table":
            written.append({"kind": kind, "cells": [*map(list, value.items())]})
        elif kind in ("audio", "video"):
            written.append({"kind": kind, "file": str(value)})
        else:
            written.append({"kind": kind, "text": value})
    return written


def _picture_file(folder: Path, index: int) -> Path | None:
    files = [folder / "images" / f"{index}{suffix}" for suffix in (".png", ".jpg")]
    return next((file for file in files if file.is_file()), None)


def _encoded(picture: Image.Image) -> bytes:
    small = picture.copy() if max(picture.size) > LONGEST_SIDE else picture
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    content = io.BytesIO()
    if max(small.size) <= 256:  # where a JPEG's artefacts would show
        small.save(content, "PNG")
    else:
        small.convert("RGB").save(content, "JPEG", quality=90)
    return content.getvalue()
