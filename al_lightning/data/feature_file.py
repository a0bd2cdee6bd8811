"""A file of features: one vector for each row, made once, and known by what they were made of.

It is a ``.npy`` file that numpy opens, with two things behind the numbers: a checksum of each row
that was written, and a description in JSON. A row counts when its checksum is there and right. So a
file that was cut off while it was written can be completed, and a damaged one is found.

Shape suffixes: R rows of the file, B rows of a batch, D features.
"""

import io
import json
import os
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from al_lightning.run.records import listed

WRITTEN = 1 << 32
"""Tells a checksum from a row that was not written, which is 0."""
MAGIC = b"al_lightning features 1\n"
DTYPES = ("float32", "float16")


class FeatureFile:
    """Holds R vectors of D numbers in a file that is mapped into memory.

    Args:
        path: Of the file.
        about: What the features are made of, in plain values; ``num_rows`` is R, and ``dtype``
            ``"float32"`` or ``"float16"``.

    Attributes:
        kept: Further plain values that the file keeps; to be set before the first row is written.

    Raises:
        ValueError: when the file is there and is no such file, or of other features; names what
            differs.
    """

    def __init__(self, path: str | Path, about: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.about = json.loads(json.dumps(about))
        self.num_rows: int = self.about["num_rows"]
        self.dtype = np.dtype(self.about["dtype"])
        self.kept: dict[str, Any] = {}
        if self.path.exists():
            there = self._read_about()
            self._check_same(there)
            self.kept = there["kept"]

    def missing(self) -> Tensor:
        """Return the rows that are not written yet, ascending, int64.

        Raises:
            ValueError: when all rows were written and some are not what was written.
        """
        if not self.path.exists():
            return torch.arange(self.num_rows)
        features_RD, sums_R = self._mapped("r")
        size = features_RD.strides[0]
        content = memoryview(cast(Any, features_RD)).cast("B")
        right = [
            expected and _sum(content[row * size : (row + 1) * size]) == expected
            for row, expected in enumerate(sums_R.tolist())
        ]
        wrong_R = ~np.asarray(right, dtype=bool)
        if wrong_R.any() and sums_R.all():
            rows = np.flatnonzero(wrong_R)
            raise ValueError(
                f"the features in {self.path} must be as they were written, found {len(rows)} of "
                f"{self.num_rows} rows damaged, first at {rows[:5].tolist()}; delete the file, and "
                "they are made anew"
            )
        return torch.from_numpy(np.flatnonzero(wrong_R))

    def write(self, rows: Sequence[int], features_BD: Tensor) -> None:
        """Write the features of some rows; make the file at the first call.

        Several processes may write rows of their own at once.

        Raises:
            ValueError: when the numbers are too large for the dtype, or D is another one.
            OSError: when the disk is full; the rows do not count then.
        """
        with np.errstate(over="ignore"):  # told below
            table = np.ascontiguousarray(features_BD.float().cpu().numpy().astype(self.dtype))
        if not np.isfinite(table).all():
            raise ValueError(
                f"features must fit {self.dtype}, found {features_BD.abs().max().item():.3g}; "
                'scale them down, or keep dtype="float32"'
            )
        if not self.path.exists():
            self._create(table.shape[1])
        start, num_features = self._layout()
        if table.shape[1] != num_features:
            raise ValueError(
                f"features must be of one size, found {table.shape[1]} beside {num_features}; name "
                "a layer behind the pooling"
            )
        size = table.shape[1] * self.dtype.itemsize
        sums_B = np.array([_sum(values) for values in table], dtype=np.uint64)
        # Not through the map, where a full disk would end the process.
        with self.path.open("r+b") as file:
            for part in _neighbours(rows):
                file.seek(start + rows[part.start] * size)
                file.write(table[part].tobytes())
            file.flush()
            for part in _neighbours(rows):
                file.seek(start + self.num_rows * size + rows[part.start] * sums_B.itemsize)
                file.write(sums_B[part].tobytes())

    def read(self) -> Tensor:
        """Return the features (R, D), mapped: what is not used takes no memory."""
        features_RD, _ = self._mapped("c")
        return torch.from_numpy(features_RD)

    def delete(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)

    def _mapped(self, mode: Any) -> tuple[np.memmap[Any, Any], np.memmap[Any, Any]]:
        start, num_features = self._layout()
        shape = self.num_rows, num_features
        features_RD = np.memmap(self.path, self.dtype, mode, start, shape)
        sums = start + features_RD.nbytes
        return features_RD, np.memmap(self.path, np.uint64, mode, sums, (self.num_rows,))

    def _layout(self) -> tuple[int, int]:
        """Return where the numbers begin, and D."""
        with self.path.open("rb") as file:
            np.lib.format.read_magic(file)
            shape, _, _ = np.lib.format.read_array_header_1_0(file)
            return file.tell(), shape[1]

    def _create(self, num_features: int) -> None:
        """Make a file of rows that are not written, at once; another process may be first."""
        shape = self.num_rows, num_features
        header = io.BytesIO()
        numbers = {"descr": self.dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, numbers)
        about = json.dumps({**self.about, "kept": self.kept}).encode()
        tail = about + len(about).to_bytes(8, "little") + _crc(about) + MAGIC
        size = header.tell() + self.num_rows * (num_features * self.dtype.itemsize + 8)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                if hasattr(os, "posix_fallocate"):  # a disk that is too small says so now
                    os.posix_fallocate(file.fileno(), 0, size + len(tail))
                file.write(header.getvalue())
                file.seek(size)
                file.write(tail)
            with suppress(FileExistsError):
                os.link(name, self.path)
        except OSError as error:
            raise OSError(
                error.errno,
                f"the features need {size / 1e6:,.0f} MB in {self.path.parent} ({error}); give "
                'another path, or dtype="float16"',
            ) from error
        finally:
            os.unlink(name)

    def _read_about(self) -> dict[str, Any]:
        """Return the description in the file; ValueError when it is not whole."""
        size = self.path.stat().st_size
        with self.path.open("rb") as file:
            file.seek(max(0, size - len(MAGIC) - 12))
            length, crc, magic = int.from_bytes(file.read(8), "little"), file.read(4), file.read()
            begin = size - len(MAGIC) - 12 - length
            file.seek(max(0, begin))
            content = file.read(length) if magic == MAGIC and begin >= 0 else b""
        if not content or _crc(content) != crc:
            raise ValueError(
                f"{self.path} must be a whole file of features, found another one or a part of "
                "one; give another path, or delete the file"
            )
        about: dict[str, Any] = json.loads(content)
        return about

    def _check_same(self, there: Mapping[str, Any]) -> None:
        differing = [
            f"{key} {_short(there.get(key))} there, {_short(value)} here"
            for key, value in self.about.items()
            if there.get(key) != value
        ]
        if differing:
            raise ValueError(
                f"the features in {self.path} must be of the same rows and weights, found "
                f"{listed(differing, between='; ')}; give another path, or delete the file"
            )


def _crc(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(4, "little")


def _sum(values: Any) -> int:
    return zlib.crc32(values) | WRITTEN


def _neighbours(rows: Sequence[int]) -> list[slice]:
    """Cut the positions into parts whose rows follow one another."""
    cuts = (np.flatnonzero(np.diff(rows) != 1) + 1).tolist()
    return [slice(a, b) for a, b in zip([0, *cuts], [*cuts, len(rows)], strict=True)]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
