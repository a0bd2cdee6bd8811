"""The images of a folder as a data set without labels."""

import copy
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn
from PIL import Image
from torch.utils.data import Dataset
from tqdm import tqdm  # type: ignore[import-untyped]

from al_lightning.data.pictures import UnreadableImageError, read_picture, to_tensor
from al_lightning.data.views import UnreadableRowError
from al_lightning.settings import check_at_least

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")

Transform = Callable[[Image.Image], Any]


class ImagePool(Dataset[Any]):
    """Serves every image below a folder, without a label: an item is its picture, transformed.

    A file is an image when its name ends in png, jpg, jpeg, webp, bmp, gif, tif or tiff, in small
    or capital letters. The images are in the order of their paths. Hidden files and folders are
    left out, and links to folders are not followed. Links that lead out of the folder are left out
    with a warning. Only the paths are kept in memory, which takes about 60 bytes an image besides
    the characters; an image is read anew each time.

    Args:
        folder: Searched with all folders in it.
        image_size: Side of the square that each picture is resized to, since the rows of a batch
            must be of one size. Nothing is cut off: what the label is about may be at the edge.
            With None pictures keep their size, and the transform must make them alike.
        transform: Makes the item from the picture (PIL, RGB, upright); :func:`to_tensor` when not
            given. When loader workers are spawned, it must be possible to pickle it.

    Attributes:
        paths: The path of each image, relative to the folder, with ``/``; sorted.

    Raises:
        ValueError: when there is no such folder, or no image in it.
        UnreadableRowError: when an item is read whose file is not readable.
    """

    holds_labels = False

    def __init__(
        self,
        folder: str | Path,
        *,
        image_size: int | None = 64,
        transform: Transform = to_tensor,
    ) -> None:
        check_at_least(1, image_size=image_size)
        self.folder = Path(folder)
        self.image_size = image_size
        self.transform = transform
        self.paths = _find_images(self.folder)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
        if self.image_size is None:
            return self.transform(self.picture(index))
        side = self.image_size
        picture = self.picture(index, at_least=2 * side)
        return self.transform(picture.resize((side, side), Image.Resampling.BILINEAR))

    def picture(self, index: int, at_least: int | None = None) -> Image.Image:
        """Return an image, upright and RGB, in its own size.

        Args:
            index: The number of the image.
            at_least: When given, the picture may be smaller, see :func:`read_picture`.

        Raises:
            UnreadableRowError: when the file cannot be read.
        """
        path = self.folder / self.paths[index]
        try:
            return read_picture(path, at_least)
        except UnreadableImageError as error:
            raise UnreadableRowError(
                f"an image must be readable, found {path}: {error}; restore the file and go on "
                "from there"
            ) from error

    def file(self, index: int) -> Path:
        """Return the path of an image."""
        return self.folder / self.paths[index]

    def with_transform(self, transform: Transform) -> "ImagePool":
        """Return the same images under another transform; do not search the folder again."""
        other = copy.copy(self)
        other.transform = transform
        return other

    def unreadable(self) -> dict[int, str]:
        """Decode every image and return the reason for each that cannot be read, by index.

        The work is done in as many threads as Python's default. On a terminal, a progress bar
        appears after two seconds.
        """
        rows = range(len(self))
        with ThreadPoolExecutor() as threads:
            # In parts, or a million rows would be a million futures.
            parts = (threads.map(self._why_unreadable, rows[i : i + 256]) for i in rows[::256])
            reasons = chain.from_iterable(parts)
            how = {"desc": "Reading images", "delay": 2, "leave": False, "disable": None}
            bar = tqdm(reasons, total=len(rows), **how)
            return {index: reason for index, reason in enumerate(bar) if reason is not None}

    def _why_unreadable(self, index: int) -> str | None:
        try:
            read_picture(self.folder / self.paths[index])
        except UnreadableImageError as error:
            return str(error)
        return None


def _find_images(folder: Path) -> list[str]:
    """Return the sorted paths of the images; warn of links that lead out of the folder."""
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise ValueError(f"folder must be a folder of images, found {found} at {folder}")
    root = Path(os.path.realpath(folder))
    images: list[str] = []
    outside: list[str] = []
    for name, entry in _files_below(folder):
        if entry.is_symlink() and not Path(os.path.realpath(entry)).is_relative_to(root):
            outside.append(name)
        elif entry.is_file() and name.lower().endswith(SUFFIXES):
            images.append(name)
    left_out = (
        f"{len(outside)} links lead out of {folder} and are left out: {sorted(outside)[:5]}; copy "
        "the files into it"
    )
    if not images:
        raise ValueError(
            f"folder must hold images ({', '.join(SUFFIXES)}), found none in {folder} or below"
            + (f"; {left_out}" if outside else "")
        )
    if outside:
        rank_zero_warn(left_out)
    return sorted(images)


def _files_below(folder: Path, parent: str = "") -> Iterator[tuple[str, "os.DirEntry[str]"]]:
    """Yield each file and link that is not hidden, with its path; do not follow links."""
    with os.scandir(folder / parent) as entries:
        for entry in entries:
            name = parent + entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _files_below(folder, f"{name}/")
            else:
                yield name, entry
