"""An item of a data set: the place of its label, the network's input, and batches of items."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate


def collate(items: Any) -> Any:
    """Collate a list of items; leave a batch that the data set collated itself as it is."""
    return default_collate(items) if isinstance(items, list) else items


def inputs_of(item: Any) -> Any:
    """Return the network's input in an item or a batch: the first part of a tuple or list."""
    return item[0] if isinstance(item, tuple | list) else item


def holds_label(item: Any) -> bool:
    """Return False for an item that is inputs alone: it has no parts, so none can be its label."""
    return isinstance(item, dict | tuple | list)


def read_label(item: Any, label_key: int | str | None = None) -> Any:
    """Return the label in an item, as a plain Python value.

    Args:
        item: The value of ``dataset[i]``: a tuple or list with the label second, or a dict with the
            label under ``"label"``, unless ``label_key`` says otherwise.
        label_key: Position in a tuple or key of a dict.

    Raises:
        ValueError: when there is no such position or key.
    """
    value = item[_label_key(item, label_key)]
    return value.item() if isinstance(value, Tensor) and value.numel() == 1 else value


def replace_label(item: Any, label: Any, label_key: int | str | None = None) -> Any:
    """Return a copy of ``item`` with ``label`` in the place where :func:`read_label` looks.

    An item that is inputs alone becomes ``(inputs, label)``.

    Raises:
        ValueError: as :func:`read_label`; also when the label cannot be of the kind that the item
            holds.
    """
    if not holds_label(item):
        return item, label
    key = _label_key(item, label_key)
    if isinstance(item[key], Tensor):  # or batches would mix tensors and numbers
        try:
            label = torch.as_tensor(label, dtype=item[key].dtype)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"a label must be as the data set's are, {item[key].dtype}, got {label!r}"
            ) from error
    if isinstance(item, dict):
        return {**item, key: label}
    return tuple(label if position == key else part for position, part in enumerate(item))


def _label_key(item: Any, label_key: int | str | None) -> Any:
    if isinstance(item, dict):
        key: int | str = "label" if label_key is None else label_key
        found, holds = f"a dict with {sorted(map(str, item))}", key in item
    elif isinstance(item, tuple | list):
        key = 1 if label_key is None else label_key
        found = f"{len(item)} parts"
        holds = isinstance(key, int) and 0 <= key < len(item)
    else:
        key, found, holds = label_key or 1, type(item).__name__, False
    if not holds:
        raise ValueError(
            f"an item of the data set must hold its label at {key!r}, found {found}; "
            "say where it sits with label_key="
        )
    return key
