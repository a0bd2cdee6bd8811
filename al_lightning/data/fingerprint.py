"""Checksums of some rows: a run that is resumed knows its data set by them."""

import time
import zlib
from collections.abc import Iterable, Mapping, Sequence, Sized
from contextlib import suppress
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from al_lightning.data.items import holds_label, read_label, replace_label
from al_lightning.data.views import UnreadableRowError
from al_lightning.run.records import plain
from al_lightning.seeds import derive_seed, isolated, seed_all

NUM_ROWS = 32
NUM_MORE, SECONDS = 2048, 1.0
"""Rows that are read to see whether they differ, and the time after which fewer will do."""


class Row(NamedTuple):
    """Holds what one reading of a row gave."""

    checksum: int
    """Of the whole item."""
    inputs: int
    """Of the item without its label."""
    label: Any
    """None where there is none."""


class SomeRows:
    """Reads ``NUM_ROWS`` rows, evenly spaced, twice, each under a seed of its own.

    A random transform that draws from the global generators gives the same values each time. A row
    that cannot be read is left out.

    Args:
        dataset: Map-style.
        label_key: The place of the label in an item.
        num_rows: Only the first rows; all when not given.

    Attributes:
        dataset: The data set.
        first: What the first reading gave, by data-set index.
        unsteady: Rows that were others when they were read again.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        label_key: int | str | None = None,
        num_rows: int | None = None,
    ) -> None:
        self.dataset = dataset
        self._label_key = label_key
        num_rows = num_rows or len(cast(Sized, dataset))
        spaced = sorted({i * (num_rows - 1) // max(1, NUM_ROWS - 1) for i in range(NUM_ROWS)})
        self.first = self._read(spaced, "fingerprint")
        again = self._read(self.first, "fingerprint")
        self.unsteady = [i for i, row in self.first.items() if not _same(row, again.get(i))]

    @property
    def steady(self) -> dict[int, Row]:
        """The rows that were the same both times."""
        return {i: row for i, row in self.first.items() if i not in self.unsteady}

    def drawn(self) -> list[int]:
        """Read the steady rows under another seed, and return those that differ."""
        other = self._read(self.steady, "another seed")
        return [i for i, row in self.steady.items() if not _same(row, other.get(i))]

    def more(self) -> dict[int, Row]:
        """Read up to ``NUM_MORE`` rows, drawn at random, once; stop after ``SECONDS``."""
        num_rows, begin = len(cast(Sized, self.dataset)), time.monotonic()
        rows = dict(self.first)
        order = np.random.RandomState(0).permutation(num_rows)[:NUM_MORE].tolist()
        for index in order:
            if time.monotonic() - begin > SECONDS:
                break
            rows |= self._read([index] if index not in rows else [], "fingerprint")
        return rows

    def _read(self, indices: Iterable[int], purpose: str) -> dict[int, Row]:
        rows = {}
        with isolated():
            for index in indices:
                seed_all(derive_seed(index, purpose))
                with suppress(UnreadableRowError):
                    rows[index] = _row(self._item(index), self._label_key)
        return rows

    def _item(self, index: int) -> Any:
        try:
            return cast(Any, self.dataset)[index]
        except IndexError as error:
            num = len(cast(Sized, self.dataset))
            raise ValueError(
                f"a data set must have as many rows as its len() says, but "
                f"{type(self.dataset).__name__} promises {num} rows and row {index} is an "
                "IndexError; mend its __len__"
            ) from error


def _row(item: Any, label_key: int | str | None) -> Row:
    checksum = _sum(item, 0)
    if not holds_label(item, label_key):
        return Row(checksum, checksum, None)
    inputs = replace_label(item, 0, label_key)
    return Row(checksum, _sum(inputs, 0), plain(read_label(item, label_key)))


def _same(row: Row, other: Row | None) -> bool:
    return other is not None and row.checksum == other.checksum


def fingerprint(rows: SomeRows) -> dict[str, str]:
    """Return checksums of some rows by data-set index; leave out those that are never the same.

    Returns:
        Eight hexadecimal digits for each index, which is text as in JSON.
    """
    return {str(i): f"{row.checksum:08x}" for i, row in rows.steady.items()}


def checksum(value: Any) -> str:
    """Return eight hexadecimal digits of what a value holds, such as the weights of a network."""
    return f"{_sum(value, 0):08x}"


def _sum(value: Any, crc: int) -> int:
    """Return the checksum of ``crc`` and what a value holds; of an unknown object, its class."""
    crc = zlib.crc32(type(value).__qualname__.encode(), crc)
    if isinstance(value, Mapping):
        for key, part in value.items():
            crc = _sum(part, zlib.crc32(repr(key).encode(), crc))
    elif isinstance(value, str | bytes | int | float | bool | None):
        crc = zlib.crc32(repr(value).encode(), crc)
    elif isinstance(value, Sequence):
        for part in value:
            crc = _sum(part, crc)
    elif isinstance(value, Tensor):
        content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        crc = zlib.crc32(content, zlib.crc32(f"{value.dtype}{value.shape}".encode(), crc))
    elif hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
        array = np.asarray(value)
        if array.dtype.hasobject:  # its bytes are addresses
            return _sum(array.tolist(), crc)
        shape = f"{array.dtype}{array.shape}".encode()
        crc = zlib.crc32(np.ascontiguousarray(array).tobytes(), zlib.crc32(shape, crc))
    return crc
