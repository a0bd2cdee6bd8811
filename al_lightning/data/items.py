"""An item of a data set: the place of its label, the network's input, and batches of items."""

import copy
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

IGNORED = -100
"""The class that torch's losses leave out: no label."""


def collate(items: Any) -> Any:
    """Collate a list of items; leave a batch that the data set collated itself as it is."""
    return default_collate(items) if isinstance(items, list) else items


def inputs_of(item: Any) -> Any:
    """Return the network's input in an item or a batch: the first part of a tuple or list.

    Where that is text, such as a path, and another part holds floats, it is the first of those.
    """
    if not isinstance(item, tuple | list):
        return item
    is_named = len(item) > 2 and _is_text(item[0])
    floats = [part for part in item if isinstance(part, Tensor) and part.is_floating_point()]
    return floats[0] if is_named and floats else item[0]


def _is_text(part: Any) -> bool:
    return isinstance(part, str) or (
        isinstance(part, tuple | list) and all(isinstance(one, str) for one in part)
    )


def is_record(item: Any) -> bool:
    """Tell whether an item holds its parts by name, as a dict does, or a row of pandas."""
    return isinstance(item, Mapping) or (hasattr(item, "keys") and hasattr(item, "__getitem__"))


def holds_label(item: Any, label_key: int | str | None = None) -> bool:
    """Tell whether there is something in an item where :func:`read_label` looks."""
    place = _place(item, label_key)
    if is_record(item):
        return place in item
    return isinstance(item, tuple | list) and isinstance(place, int) and 0 <= place < len(item)


def check_form(item: Any, label_key: int | str | None, *, is_labeled: bool) -> None:
    """Raise ValueError when we cannot know where the label of an item is, or is to go."""
    if not isinstance(item, tuple | list):
        return
    if label_key is None and len(item) > 1 + is_labeled:
        what = "more than two parts" if is_labeled else "several parts and no label"
        raise ValueError(
            f"an item of {what} needs label_key, the position of its label, found {len(item)} "
            "parts; give ActiveDataModule label_key="
        )
    place = _place(item, label_key)
    if not (isinstance(place, int) and 0 <= place <= len(item) - is_labeled):
        raise ValueError(
            f"label_key must be a position in an item, found {place!r} for {len(item)} parts; "
            "count from 0, and give the number of parts to put the label behind them"
        )


def read_label(item: Any, label_key: int | str | None = None) -> Any:
    """Return the label in an item, as a plain Python value.

    Args:
        item: The value of ``dataset[i]``: a tuple or list with the label second, or a dict with the
            label under ``"label"`` or ``"labels"``, unless ``label_key`` says otherwise.
        label_key: Position in a tuple, name of a field in a named one, or key of a dict.

    Raises:
        ValueError: when there is no such position or key.
    """
    if not holds_label(item, label_key):
        raise ValueError(
            f"an item of the data set must hold its label at {_place(item, label_key)!r}, found "
            f"{described(item)}; say where it sits with label_key="
        )
    value = item[_place(item, label_key)]
    return value.item() if isinstance(value, Tensor) and value.numel() == 1 else value


def replace_label(item: Any, label: Any, label_key: int | str | None = None) -> Any:
    """Return a copy of ``item`` with ``label`` in the place where :func:`read_label` looks.

    An item that is inputs alone becomes ``(inputs, label)``; a tuple that has no such place yet
    gets one at its end.

    Raises:
        ValueError: when the label cannot be of the kind that the item holds.
    """
    if not (is_record(item) or isinstance(item, tuple | list)):
        return item, label
    place = _place(item, label_key)
    held = item[place] if holds_label(item, label_key) else None
    if isinstance(held, Tensor | np.ndarray):  # or batches would mix tensors and numbers
        made: Any = torch.as_tensor if isinstance(held, Tensor) else np.asarray
        try:
            label = made(label, dtype=held.dtype)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"a label must be as the data set's are, {held.dtype}, got {label!r}"
            ) from error
        if math.prod(label.shape) == math.prod(held.shape):  # a number where (1,) is held
            label = label.reshape(held.shape)
        elif label.ndim == 0 and held.ndim == 1:
            label = _one_hot(int(label), held)
    elif isinstance(held, list | tuple) and type(label) is int and _is_one_hot(held):
        label = type(held)(_one_hot(label, np.asarray(held)).tolist())
    if is_record(item):
        changed: Any = copy.copy(item)
        changed[place] = label
        return changed
    check_form(item, place, is_labeled=False)
    parts = [*item[:place], label, *item[place + 1 :]]
    if hasattr(item, "_make") and len(parts) == len(item):
        return item._make(parts)  # a named tuple stays one
    return parts if type(item) is list else tuple(parts)


def without_label(item: Any, label_key: int | str | None = None) -> Any:
    """Return an item, or a batch, without its label; a single part that is left stands alone.

    >>> without_label((5, 1)), without_label({"x": 5, "label": 1}), without_label(("a", 5, 1), 2)
    (5, {'x': 5}, ('a', 5))
    """
    if not holds_label(item, label_key):
        return item
    place = _place(item, label_key)
    if is_record(item):
        return {key: item[key] for key in item.keys() if key != place}  # noqa: SIM118
    left = [*item[:place], *item[place + 1 :]]
    if len(left) == 1:
        return left[0]
    return left if type(item) is list else tuple(left)


def is_none(label: Any) -> bool:
    """Tell whether a label says that there is none: None, NaN, or the class -100.

    An array or a tensor is none when all its elements are.

    >>> is_none(-100), is_none(-100.0), is_none([float("nan")] * 2), is_none([-100, 1])
    (True, False, True, False)
    """
    if hasattr(label, "tolist"):
        label = label.tolist()
    if isinstance(label, list | tuple):
        return bool(label) and all(map(is_none, label))
    if isinstance(label, float):
        return math.isnan(label)
    return label is None or (isinstance(label, int) and label == IGNORED)


def described(item: Any) -> str:
    """Return what an item is made of, for a sentence."""
    if is_record(item):
        return f"a dict with {sorted(map(str, item))}"
    if isinstance(item, tuple | list):
        return f"{len(item)} parts"
    return type(item).__name__


def _one_hot(position: int, held: Any) -> Any:
    """Return zeros and a one at a position, in the form of the label that an item holds."""
    if not 0 <= position < len(held):
        raise ValueError(
            f"a label must be a position in the {len(held)} classes of the data set's labels, got "
            f"{position}"
        )
    label = held * 0
    label[position] = 1
    return label


def _is_one_hot(held: Any) -> bool:
    return len(held) > 1 and sorted(held) == [0] * (len(held) - 1) + [1]


def _place(item: Any, label_key: int | str | None) -> Any:
    if is_record(item):
        plural = "labels" in item and "label" not in item  # as Hugging Face has it
        return label_key if label_key is not None else "labels" if plural else "label"
    fields = getattr(item, "_fields", ())
    if label_key in fields:
        return fields.index(label_key)
    return 1 if label_key is None else label_key
