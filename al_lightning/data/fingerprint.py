"""Short sums of some rows of a data set, by which it is known again when a run is resumed."""

import zlib
from collections.abc import Mapping, Sequence, Sized
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from al_lightning.data.views import UnreadableRowError
from al_lightning.seeds import seeded

NUM_ROWS = 32


def fingerprint(dataset: Dataset[Any]) -> dict[str, str]:
    """Checksums of ``NUM_ROWS`` rows, evenly spaced, by data-set index.

    Read under a seed of its own, so that random transforms which draw from the global generators
    give the same values each time. Rows that differ at a second reading all the same are left out,
    and rows that cannot be read: they say nothing about the data set.

    Args:
        dataset: Map-style.

    Returns:
        Eight hexadecimal digits for each index, which is text as in JSON.
    """
    num_rows = len(cast(Sized, dataset))
    indices = sorted({i * (num_rows - 1) // max(1, NUM_ROWS - 1) for i in range(NUM_ROWS)})
    first, second = ({i: _read(dataset, i) for i in indices} for _ in range(2))
    return {
        str(i): f"{crc:08x}" for i, crc in first.items() if crc is not None and crc == second[i]
    }


def _read(dataset: Dataset[Any], index: int) -> int | None:
    try:
        with seeded(index, "fingerprint"):
            return _sum(dataset[index], 0)
    except UnreadableRowError:
        return None


def _sum(value: Any, crc: int) -> int:
    """The checksum of ``crc`` and a value, by what it holds; of unknown objects the class alone."""
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
