"""Views of a data set: some of its rows, with labels given by hand laid over its own."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate


class UnreadableRowError(ValueError):
    """A data set may raise it for a row that it has and cannot read."""


class RowIndex(Protocol):
    """Positions to data-set indices: a :class:`~al_lightning.data.pool.MaskedRows` or a list."""

    def __len__(self) -> int: ...
    def at(self, positions: Sequence[int]) -> list[int]: ...
    def all(self) -> Tensor: ...


class ListedRows:
    """Rows written out one by one, for views that are small or in an order of their own."""

    def __init__(self, indices: Sequence[int]) -> None:
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def at(self, positions: Sequence[int]) -> list[int]:
        """Data-set indices at ``positions``, in that order."""
        return [self._indices[position] for position in positions]

    def all(self) -> Tensor:
        """Every data-set index, in order, int64."""
        return torch.tensor(self._indices, dtype=torch.int64)


class RowView(Dataset[Any]):
    """The rows of ``dataset`` that ``rows`` names, each as the data set itself gives it.

    A data set with ``__getitems__`` is asked for a whole batch at once. Like torch, we expect a
    list of items from it; anything but a list is a batch that it has collated itself.

    Args:
        dataset: A map-style data set.
        rows: Which of its rows, in which order.
        given_labels: Data-set index to label; replaces the label in the data set's item.
        label_key: Where the label sits in an item, see :func:`read_label`.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        rows: RowIndex,
        given_labels: Mapping[int, Any] | None = None,
        label_key: int | str | None = None,
    ) -> None:
        self.dataset = dataset
        self.rows = rows
        self.given_labels = given_labels or {}
        self.label_key = label_key

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> Any:
        return self._item(self.rows.at([range(len(self))[position]])[0])

    def __getitems__(self, positions: Sequence[int]) -> Any:
        """The items at ``positions`` as a list, or as the batch that the data set makes of them."""
        indices = self.rows.at(positions)
        whole_batch = getattr(self.dataset, "__getitems__", None)
        if whole_batch is not None and self.given_labels.keys().isdisjoint(indices):
            return whole_batch(indices)
        return [self._item(index) for index in indices]

    def _item(self, index: int) -> Any:
        item = self.dataset[index]
        if index in self.given_labels:
            return replace_label(item, self.given_labels[index], self.label_key)
        return item


def collate(items: Any) -> Any:
    """Collates a list of items; a batch that the data set collated itself passes through."""
    return default_collate(items) if isinstance(items, list) else items


def plain(value: Any) -> Any:
    """A number or a list of them for a tensor or an array, which JSON does not take."""
    if isinstance(value, Tensor | np.ndarray | np.generic):
        return value.tolist()
    return value


def read_label(item: Any, label_key: int | str | None = None) -> Any:
    """The label in a data set's item, as a plain Python value.

    Args:
        item: What ``dataset[i]`` gives: a tuple or list with the label second, or a dict with the
            label under ``"label"``, unless ``label_key`` says otherwise.
        label_key: Position in a tuple or key of a dict.

    Raises:
        ValueError: when there is no such position or key.
    """
    key = _label_key(item, label_key)
    value = item[key]
    return value.item() if isinstance(value, Tensor) and value.numel() == 1 else value


def holds_label(item: Any) -> bool:
    """Whether a data set's item has parts, of which one can be its label; else it is inputs."""
    return isinstance(item, dict | tuple | list)


def replace_label(item: Any, label: Any, label_key: int | str | None = None) -> Any:
    """A copy of ``item`` with ``label`` in the place where :func:`read_label` looks.

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
