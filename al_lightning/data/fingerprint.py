"""Checksums of some rows: a run that is resumed knows its data set by them."""

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
    """Return checksums of ``NUM_ROWS`` rows, evenly spaced, by data-set index.

    Each row is read under a seed of its own, so a random transform that draws from the global
    generators gives the same values each time. A row that still differs when it is read again says
    nothing about the data set and is left out, and so is a row that cannot be read.

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
