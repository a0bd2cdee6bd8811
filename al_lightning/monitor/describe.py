"""Rows as people see them: pictures, texts, tables, sounds and films.

A data set may say it by ``describe(index)``. What that returns:

- text, or a path: of a picture, a sound or a film, which the suffix tells;
- a picture: a PIL image, or pixels as a tensor or array, (H, W), (1, H, W), (3, H, W) or (H, W, 3);
- a dict whose keys are all among ``picture``, ``text``, ``table``, ``audio`` and ``video``;
- any other dict, or a row of pandas: the columns of a table;
- a list of these.

Without it, images, texts, dicts of numbers and words, and rows of pandas are found in the items.
"""

import mimetypes
import os
from collections.abc import Iterator, Mapping
from numbers import Number
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from al_lightning.data.items import inputs_of, is_record, without_label
from al_lightning.data.pictures import UnreadableImageError, read_picture
from al_lightning.data.sets import extras
from al_lightning.data.views import UnreadableRowError
from al_lightning.monitor.pictures import as_image

KINDS = ("picture", "text", "table", "audio", "video")
LONG_WORDS = 80
"""Characters from which on a text in a dict stands for itself, and not in a table."""


class Part(NamedTuple):
    """Holds one thing that a person sees of a row."""

    kind: str
    """One of :data:`KINDS`, or ``"problem"``."""
    value: Any
    """A PIL image, text, a dict of text, the path of a sound or film, or what went wrong."""
    original: Path | None = None
    """The file of a picture."""


def parts_of(dataset: Any, index: int, label_key: int | str | None = None) -> list[Part]:
    """Return what people see of a row; nothing where it can only be seen as a number.

    A description that fails becomes a part that says so, because the other rows can still be seen.

    Args:
        dataset: The rows as people see them.
        index: Of the row.
        label_key: The place of the label in an item, which people are not shown.
    """
    told = extras(dataset)
    try:
        if told.describe is not None:
            return [*_described(told.describe(index))]
        if told.picture is not None:
            picture = _picture(told.picture(index))
            path = None if told.file is None else Path(told.file(index))
            return [] if picture is None else [Part("picture", picture, path)]
        found = [*_found(dataset[index], label_key)]
    except UnreadableRowError as error:
        return [Part("problem", f"the row cannot be read: {error}")]
    except UnreadableImageError as error:
        return [Part("problem", f"the file is no picture that can be read: {error}")]
    except Exception as error:  # of the user's code, for one row
        if told.describe is None:
            raise
        return [Part("problem", f"describe({index}) failed: {type(error).__name__}: {error}")]
    path = None if told.file is None else Path(told.file(index))
    return [part._replace(original=path) if part.kind == "picture" else part for part in found]


def _described(value: Any) -> Iterator[Part]:
    """Yield the parts in what ``describe`` returned."""
    if isinstance(value, str):
        yield Part("text", value)
    elif isinstance(value, os.PathLike):
        kind = (mimetypes.guess_type(Path(value).name)[0] or "").partition("/")[0]
        if kind not in ("image", "audio", "video"):
            raise ValueError(
                f"a path must be of a picture, a sound or a film, got {value}; give the text of a "
                "file itself"
            )
        yield _of_kind("picture" if kind == "image" else kind, value)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _described(one)
    elif isinstance(value, Mapping) and value and {*value} <= {*KINDS}:
        for kind, one in value.items():
            for each in one if isinstance(one, list | tuple) else [one]:
                yield _of_kind(kind, each)
    elif is_record(value):
        yield _table(value)
    else:
        yield _of_kind("picture", value)


def _of_kind(kind: str, value: Any) -> Part:
    """Return a part of this kind; raise ValueError when the value is of another."""
    if kind == "text":
        return Part(kind, str(value))
    if kind == "table":
        return _table(value)
    if isinstance(value, str | os.PathLike):
        path = Path(value).absolute()
        if kind == "picture":
            return Part(kind, read_picture(path), path)
        if not path.is_file():
            raise ValueError(f"{kind} must be the path of a file, found nothing at {path}")
        return Part(kind, path)
    picture = _picture(value) if kind == "picture" else None
    if picture is None:
        raise ValueError(
            f"{kind} must be {'an image or a path' if kind == 'picture' else 'a path'}, got "
            f"{type(value).__name__}; describe(index) returns text, a picture, a path, a dict or a "
            "list of these"
        )
    return Part(kind, picture)


def _found(item: Any, label_key: int | str | None) -> Iterator[Part]:
    """Yield what can be seen in an item of a well-known kind."""
    item = without_label(item, label_key)
    inputs = inputs_of(item)
    picture = _picture(item) if is_record(item) else _picture(inputs)
    if picture is not None:
        yield Part("picture", picture)
    if isinstance(inputs, str):
        yield Part("text", inputs)
    if not is_record(inputs):
        return
    cells = {}
    for name in inputs.keys():  # noqa: SIM118
        value = inputs[name]
        if isinstance(value, str) and len(value) > LONG_WORDS:
            yield Part("text", value)
        elif isinstance(value, str | Number) or (hasattr(value, "item") and np.ndim(value) == 0):
            cells[name] = value
    texts = [value for value in cells.values() if isinstance(value, str)]
    if len(cells) == len(texts) == 1:
        yield Part("text", texts[0])
    elif cells:
        yield _table(cells)


def _table(columns: Any) -> Part:
    return Part("table", {str(name): _cell(columns[name]) for name in columns.keys()})  # noqa: SIM118


def _cell(value: Any) -> str:
    value = value.item() if hasattr(value, "item") and np.ndim(value) == 0 else value
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _picture(value: Any) -> Image.Image | None:
    """Return an image as PIL; None for what is none."""
    if isinstance(value, Image.Image):
        return value
    if isinstance(value, np.ndarray):
        value = value.transpose(2, 0, 1) if value.ndim == 3 and value.shape[-1] in (1, 3) else value
        value = Tensor(value / 255 if value.dtype == np.uint8 else value)
    pixels = as_image(value)
    return None if pixels is None else Image.fromarray((pixels * 255).round().astype(np.uint8))
