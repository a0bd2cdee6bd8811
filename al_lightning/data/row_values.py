"""A value of each row beside its label, such as its group or what a label of it costs."""

import math
from collections.abc import Sequence, Sized
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset

from al_lightning.data.items import described, holds_label, read_label
from al_lightning.data.sets import read_or_none
from al_lightning.run.records import plain
from al_lightning.seeds import isolated

Key = int | str


def values_under(dataset: Dataset[Any], key: Key, name: str) -> list[Any]:
    """Return the value of each row under a key, in plain values; None for an unreadable row.

    A data set may tell them without a look at its items: a table by a column of that name, any
    other by an attribute of that name with one value a row. Else each item is read once.

    Args:
        dataset: Of all rows.
        key: A position in a tuple, a field of a named one, a key of a dict, a column, an attribute.
        name: Of the argument, for an error.

    Raises:
        ValueError: when an item has nothing there.
    """
    told = _told(dataset, key) if isinstance(key, str) else None
    if told is not None:
        return [plain(value) for value in told]
    values = []
    for row in range(len(cast(Sized, dataset))):
        with isolated():  # a transform may draw
            item = read_or_none(cast(Any, dataset).__getitem__, row)
        if item is not None and not holds_label(item, key):
            raise ValueError(
                f"{name} must name something that each item or the data set has, one value a row, "
                f"got {key!r} and found {described(item)} in row {row}; name another key, or give "
                "the data set an attribute of that name"
            )
        values.append(None if item is None else plain(read_label(item, key)))
    return values


def group_numbers(values: Sequence[Any]) -> Tensor:
    """Return (N,) int64, equal where the values are; a row without a group is one of its own.

    >>> group_numbers(["ann", "bob", None, "ann"])
    tensor([0, 1, 2, 0])
    """
    numbers: dict[Any, int] = {}
    found = []
    for row, value in enumerate(values):
        is_none = value is None or (isinstance(value, float) and math.isnan(value))
        found.append(numbers.setdefault(("row", row) if is_none else str(value), len(numbers)))
    return torch.tensor(found, dtype=torch.int64)


def checked_costs(values: Sequence[Any]) -> list[float]:
    """Return the costs of rows; 0 for an unreadable one, whose value is None.

    Raises:
        ValueError: for a cost that is no number, not finite or below zero; names the rows.
    """
    wrong = [
        row
        for row, value in enumerate(values)
        if value is not None and not (isinstance(value, int | float) and 0 <= value < float("inf"))
    ]
    if wrong:
        raise ValueError(
            f"a cost must be a finite number, at least 0, found {values[wrong[0]]!r} in row "
            f"{wrong[0]} and {len(wrong)} such rows in all; correct what cost_key names"
        )
    return [float(value or 0) for value in values]


def _told(dataset: Any, name: str) -> Sequence[Any] | None:
    """Return the values of all rows as the data set tells them by itself; None if it does not."""
    if isinstance(dataset, Subset):
        inner = _told(dataset.dataset, name)
        return None if inner is None else [inner[int(index)] for index in dataset.indices]
    if isinstance(dataset, ConcatDataset):
        parts = [_told(part, name) for part in dataset.datasets]
        return None if any(p is None for p in parts) else [v for p in parts for v in p or ()]
    columns = getattr(dataset, "columns", None)  # of a table
    if columns is not None and name in columns:
        return cast(Sequence[Any], columns[name])
    if name in (getattr(dataset, "column_names", None) or ()):  # of Hugging Face
        return cast(Sequence[Any], dataset[name])
    values = getattr(dataset, name, None)
    is_list = hasattr(values, "__len__") and hasattr(values, "__getitem__")
    is_one_a_row = (
        is_list and not isinstance(values, str) and len(cast(Any, values)) == len(dataset)
    )
    return values if is_one_a_row else None
