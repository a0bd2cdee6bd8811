"""A view of a data set: some of its rows; labels given by hand replace its own."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from al_lightning.data.items import replace_label, without_label


class UnreadableRowError(ValueError):
    """Says that a row is there and cannot be read; a data set may raise it."""


class RowView(Dataset[Any]):
    """Serves some rows of ``dataset``, each as the data set itself gives it.

    A data set with ``__getitems__`` is asked for a whole batch at once. Like torch, we expect a
    list of items from it; anything but a list is a batch that it has collated itself.

    Args:
        dataset: A map-style data set.
        indices: Its rows to serve, in order.
        given_labels: Data-set index to label; replaces the label in the data set's item.
        label_key: Its place in an item, see :func:`~al_lightning.data.items.read_label`.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        indices: Sequence[int] | Tensor,
        given_labels: Mapping[int, Any] | None = None,
        label_key: int | str | None = None,
    ) -> None:
        self.dataset = dataset
        self.indices = torch.as_tensor(indices, dtype=torch.int64)
        self.given_labels = given_labels or {}
        self.label_key = label_key

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Any:
        return self._item(int(self.indices[position]))

    def __getitems__(self, positions: Sequence[int]) -> Any:
        """Return the items at ``positions``, or the batch that the data set makes of them."""
        indices = self.indices[positions].tolist()
        whole_batch = getattr(self.dataset, "__getitems__", None)
        if whole_batch is not None and self.given_labels.keys().isdisjoint(indices):
            return whole_batch(indices)
        return [self._item(index) for index in indices]

    def _item(self, index: int) -> Any:
        item = self.dataset[index]
        if index in self.given_labels:
            label = opened(self.dataset, self.given_labels[index])
            return replace_label(item, label, self.label_key)
        return item


class UnlabeledView(RowView):
    """Serves the inputs of some rows alone, also where the data set knows their labels."""

    def __getitems__(self, positions: Sequence[int]) -> Any:
        items = super().__getitems__(positions)
        if isinstance(items, list):
            return [without_label(item, self.label_key) for item in items]
        return without_label(items, self.label_key)

    def _item(self, index: int) -> Any:
        return without_label(super()._item(index), self.label_key)


def opened(dataset: Any, label: Any) -> Any:
    """Return what ``dataset.open_label`` makes of a path; any other label as it is."""
    open_label = getattr(dataset, "open_label", None)
    return open_label(label) if open_label is not None and isinstance(label, str) else label
