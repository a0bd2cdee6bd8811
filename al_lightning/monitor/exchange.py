"""A query that waits, as files: pictures, a table to fill in, and tasks for Label Studio."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from al_lightning.data.sets import extras, read_or_none
from al_lightning.label.answers import OpenQuery
from al_lightning.label.label_studio import write_tasks
from al_lightning.label.oracle import query_rows
from al_lightning.label.query_file import LabelRow, write_to_label
from al_lightning.monitor.monitor import Loop, Monitor
from al_lightning.monitor.pictures import as_image
from al_lightning.monitor.tables import form_of
from al_lightning.run.folder import query_folder, write_whole
from al_lightning.run.journal import Journal
from al_lightning.run.records import NUM_DOUBTS_ON_PAGE, Query

TO_LABEL = "to_label.csv"
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
        found = {index: picture_of(loop, index) for index in (*query.indices, *doubts)}
        pictures = {index: picture for index, picture in found.items() if picture is not None}
        for index, picture in pictures.items():
            suffix = ".png" if picture.startswith(b"\x89PNG") else ".jpg"
            write_whole(folder / "images" / f"{index}{suffix}", picture)
        rows = label_rows(loop, query)
        asked = query_rows(OpenQuery(Journal.in_memory(list(loop.records))))
        pictures = {index: pictures[index] for index in query.indices if index in pictures}
        if len(pictures) == len(rows):
            strategy = loop.records[0]["config"]["active"]["strategy"]
            write_tasks(folder, rows, pictures, asked, strategy)
        write_to_label(folder / TO_LABEL, rows)  # last: with it the folder is complete


def label_rows(loop: Loop, query: Query) -> list[LabelRow]:
    """Return the rows of a query as a person sees them."""
    empty = [""] * len(query.indices)
    names = query.names or empty
    predicted = [str(form_of(loop).told(one)) for one in query.predicted or empty]
    scores: Sequence[float | None] = query.scores or [None] * len(empty)
    columns = zip(query.indices, names, predicted, scores, strict=True)
    return [LabelRow(*cells) for cells in columns]


def picture_of(loop: Loop, index: int) -> bytes | None:
    """Return a row as PNG, or as JPEG where that is much smaller.

    It is None when the row is no image, or cannot be read any more. A person can still call such a
    row invalid.
    """
    dataset: Any = loop.data.sets.for_people
    picture = read_or_none(extras(dataset).picture or dataset.__getitem__, index)
    if not isinstance(picture, Image.Image):
        pixels = as_image(picture)
        if pixels is None:
            return None
        picture = Image.fromarray((pixels * 255).round().astype(np.uint8))
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    content = io.BytesIO()
    if max(picture.size) <= 256:  # where a JPEG's artefacts would show
        picture.save(content, "PNG")
    else:
        picture.convert("RGB").save(content, "JPEG", quality=90)
    return content.getvalue()
