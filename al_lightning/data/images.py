"""A folder of images without labels: as a data set, and as a data module.

Shape suffixes: H W height and width, N images.
"""

import copy
import difflib
import os
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, overload

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2
from tqdm import tqdm  # type: ignore[import-untyped]

from al_lightning.data.datamodule import ActiveDataModule
from al_lightning.data.views import UnreadableRowError
from al_lightning.run.tables import check_classes, read_labels

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
# Content decides, not the suffix; but nothing else that Pillow knows is opened, such as EPS, for
# which it starts another program.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
LABELS = "labels.csv"
FIRST_ROWS = 20

Transform = Callable[[Image.Image], Any]


class UnreadableImageError(ValueError):
    """A file that cannot be decoded; the message is the reason."""


# ---- pictures ------------------------------------------------------------------------------------


def read_picture(path: Path, at_least: int | None = None) -> Image.Image:
    """The picture in a file, as a person is to see it: upright, RGB, 8 bits a channel.

    The EXIF orientation is applied; of an animation the first frame is taken; what is transparent
    becomes white. Grey values of more than 8 bits are stretched from the least of the picture to
    the greatest, because 12 of 16 bits are as common as all of them.

    Args:
        path: Of an image.
        at_least: A JPEG may be decoded at an eighth, a quarter or half of its size, which is faster
            by far, as long as both sides keep this many pixels.

    Raises:
        UnreadableImageError: for whatever reason.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            if at_least is not None:
                image.draft(None, (at_least, at_least))
            ImageOps.exif_transpose(image, in_place=True)
            return _to_rgb(image)
    except UnidentifiedImageError as error:
        raise UnreadableImageError(f"it is none of {', '.join(FORMATS)}") from error
    except Exception as error:  # a decoder that is fed damaged data may raise anything
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise UnreadableImageError(reason or type(error).__name__) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode[0] in "IF":  # I;16, I and F, which Pillow would clip at 255
        image = Image.fromarray(_stretched(np.asarray(image, dtype=np.float64)))
    elif image.has_transparency_data:
        over_white = Image.new("RGBA", image.size, "white")
        over_white.alpha_composite(image.convert("RGBA"))
        image = over_white
    return image.convert("RGB")


def _stretched(values_HW: np.ndarray) -> np.ndarray:
    """Values as uint8, the least at 0 and the greatest at 255; NaN is as the least."""
    finite = values_HW[np.isfinite(values_HW)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    share_HW = (values_HW.clip(low, high) - low) / max(high - low, 1e-12)
    stretched: np.ndarray = np.nan_to_num(255 * share_HW, nan=0.0).round().astype(np.uint8)
    return stretched


def to_tensor(picture: Image.Image) -> Tensor:
    """Pixels (3, H, W) of an RGB picture, float32 in [0, 1].

    >>> to_tensor(Image.new("RGB", (2, 1), "red")).tolist()
    [[[1.0, 1.0]], [[0.0, 0.0]], [[0.0, 0.0]]]
    """
    pixels: Tensor = v2.functional.pil_to_tensor(picture)
    return pixels.float().div_(255)


# ---- the data set --------------------------------------------------------------------------------


class SortedNames(Sequence[str]):
    """Distinct file names in ascending order, in the bytes that they are and 8 more each.

    A list takes about 60 more each, and every loader worker makes a copy of it.

    >>> names = SortedNames(["b", "a", "cd"])
    >>> list(names), names.find("cd"), names.find("c")
    (['a', 'b', 'cd'], 2, None)
    """

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [os.fsencode(name) for name in sorted(names)]
        self._text = b"".join(encoded)
        self._ends_N = np.cumsum([len(name) for name in encoded], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends_N)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        begin = self._ends_N[place - 1] if place else 0
        return os.fsdecode(self._text[begin : self._ends_N[place]])

    def find(self, name: str) -> int | None:
        """Where ``name`` is, or None."""
        place = bisect_left(self, name)
        return place if place < len(self) and self[place] == name else None


class ImagePool(Dataset[Any]):
    """Every image below a folder, without a label: an item is its picture, transformed.

    Images are told by their suffix, in any case: png, jpg, jpeg, webp, bmp, gif, tif, tiff. They
    are in the order of their paths. Hidden files and folders are left out, links to folders are not
    followed, and links to files outside the folder are left out with a warning. Of an image its
    path alone is kept, in its length and 8 bytes; it is read anew each time.

    Args:
        folder: Searched with all folders in it.
        image_size: Side of the square that each picture is resized to, since the rows of a batch
            must be of one size. Nothing is cut off: what the label is about may be at the edge.
            With None pictures keep their size, and the transform must see to it.
        transform: Makes the item of the picture (PIL, RGB, upright); :func:`to_tensor` when not
            given. Loader workers that are spawned need one that can be pickled.

    Attributes:
        paths: Of each image, relative to the folder, with ``/``.

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
        if image_size is not None and image_size < 1:
            raise ValueError(f"image_size must be at least 1, got {image_size}")
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
        picture = self._read(index, at_least=2 * side)
        return self.transform(picture.resize((side, side), Image.Resampling.BILINEAR))

    def picture(self, index: int) -> Image.Image:
        """The image in its own size, upright, RGB; UnreadableRowError if not readable."""
        return self._read(index)

    def with_transform(self, transform: Transform) -> "ImagePool":
        """The same images under another transform; the folder is not searched again."""
        other = copy.copy(self)
        other.transform = transform
        return other

    def unreadable(self) -> dict[int, str]:
        """Decodes every image and tells which cannot be, ascending, with the reason.

        In as many threads as Python's default; a progress bar appears on a terminal after two
        seconds.
        """
        rows = range(len(self))
        reasons: dict[int, str] = {}
        bar = tqdm(desc="Reading images", total=len(rows), delay=2, leave=False, disable=None)
        with bar, ThreadPoolExecutor() as threads:
            # In parts, or a million rows would be a million futures.
            for begin in rows[::256]:
                part = rows[begin : begin + 256]
                for index, reason in zip(
                    part, threads.map(self._why_unreadable, part), strict=True
                ):
                    if reason is not None:
                        reasons[index] = reason
                    bar.update()
        return reasons

    def _why_unreadable(self, index: int) -> str | None:
        try:
            read_picture(self.folder / self.paths[index])
        except UnreadableImageError as error:
            return str(error)
        return None

    def _read(self, index: int, at_least: int | None = None) -> Image.Image:
        path = self.folder / self.paths[index]
        try:
            return read_picture(path, at_least)
        except UnreadableImageError as error:
            raise UnreadableRowError(
                f"an image must be readable, found {path}: {error}; restore the file and go on "
                "from there"
            ) from error


def _find_images(folder: Path) -> SortedNames:
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise ValueError(f"folder must be a folder of images, found {found} at {folder}")
    names: list[str] = []
    outside: list[str] = []
    root = Path(os.path.realpath(folder))
    waiting = [""]
    while waiting:
        parent = waiting.pop()
        with os.scandir(folder / parent) as entries:
            for entry in entries:
                name = parent + entry.name
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{name}/")
                elif entry.is_symlink() and not Path(os.path.realpath(entry)).is_relative_to(root):
                    outside.append(name)
                elif entry.is_file() and name.lower().endswith(SUFFIXES):
                    names.append(name)
    left_out = (
        f"{len(outside)} links lead out of {folder} and are left out: {sorted(outside)[:5]}; copy "
        "the files into it"
    )
    if not names:
        raise ValueError(
            f"folder must hold images ({', '.join(SUFFIXES)}), found none in {folder} or below"
            + (f"; {left_out}" if outside else "")
        )
    if outside:
        rank_zero_warn(left_out)
    return SortedNames(names)


class LabeledImages(Dataset[tuple[Any, int]]):
    """The images of a pool, each with its label.

    Args:
        images: The pool.
        targets: A label for each of them.
    """

    def __init__(self, images: ImagePool, targets: Sequence[int]) -> None:
        self.images = images
        self.targets = targets

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.images[index], self.targets[index]


# ---- the data module -----------------------------------------------------------------------------


class ActiveImageDataModule(ActiveDataModule):
    """Trains on the labeled images of a folder, and asks for the labels of the others.

    Args:
        folder: The images, see :class:`ImagePool`.
        labels: A table ``path,label`` of the labels that are known at the start, with paths below
            ``folder`` and names of classes. Without it the first rows are asked for first.
        classes: Names of the classes. When not given, those that occur in ``labels``, sorted.
        image_size: Side of the square that each picture is resized to, in pixels.
        test_folder: Other images, with a ``labels.csv`` in it that has a label for each.
        initial_labeled_size: Without ``labels``, rows to ask for first, drawn by ``seed``; 20, or
            all of fewer, when not given.
        augment: Moves training images at random by up to a tenth of their side, which no label
            depends on; the edge is repeated. Mirrored or turned, a picture may be of another class.
        batch_size: Rows a training batch.
        eval_batch_size: Rows a batch in test and prediction.
        num_workers: Loader processes that read images.
        seed: Draws the first rows and the order of training batches.

    Raises:
        ValueError: when classes, labels and images do not fit together; says what to change.
    """

    def __init__(
        self,
        folder: str | Path,
        labels: str | Path | None = None,
        classes: list[str] | None = None,
        image_size: int = 64,
        test_folder: str | Path | None = None,
        initial_labeled_size: int | None = None,
        augment: bool = True,
        batch_size: int = 16,
        eval_batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 42,
    ) -> None:
        if labels is not None and initial_labeled_size is not None:
            raise ValueError(
                "give either labels or initial_labeled_size, got both: the rows of "
                f"{labels} are those to begin with"
            )
        known = {} if labels is None else read_labels(Path(labels))
        classes = classes or sorted(set(known.values()))
        if len(classes) < 2:
            raise ValueError(
                f"at least two classes must be known, found {classes}; name them with classes, or "
                "give labels in which each occurs"
            )
        check_classes(classes)
        pool = ImagePool(folder, image_size=image_size)
        test_set = None
        if test_folder is not None:
            test_set = _labeled(ImagePool(test_folder, image_size=image_size), classes)
        first_labels = None if labels is None else _by_index(pool, known, classes, labels)
        if labels is None and initial_labeled_size is None:
            initial_labeled_size = min(FIRST_ROWS, len(pool))
        train = pool
        if augment:
            move = v2.RandomCrop(image_size, padding=image_size // 10, padding_mode="edge")
            train = pool.with_transform(v2.Compose([to_tensor, move]))
        super().__init__(
            train,
            pool_set=pool,
            test_set=test_set,
            initial_labels=first_labels,
            initial_labeled_size=initial_labeled_size,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            seed=seed,
            classes=classes,
        )
        self._unread = None if test_set is None else test_set.images

    def prepare_data(self) -> None:
        """Reads all test images, once an instance: before the first fit, not after it.

        Raises:
            ValueError: when one cannot be read.
        """
        if self._unread is None:
            return
        images, broken = self._unread, self._unread.unreadable()
        if broken:
            named = [f"{images.paths[index]}: {broken[index]}" for index in [*broken][:5]]
            raise ValueError(
                f"all images of test_folder must be readable, found {len(broken)} in "
                f"{images.folder} that are not: {'; '.join(named)}; restore them, or delete them "
                f"and their lines in {LABELS}"
            )
        self._unread = None


def _labeled(images: ImagePool, classes: Sequence[str]) -> LabeledImages:
    """The images of a test folder, each with its label from the table in it."""
    table = images.folder / LABELS
    if not table.exists():
        raise ValueError(f"test_folder must hold {LABELS}, a table path,label; found no {table}")
    targets = _by_index(images, read_labels(table), classes, table)
    missing = [path for index, path in enumerate(images.paths) if index not in targets]
    if missing:
        raise ValueError(
            f"{table} must have a label for each image, found {len(missing)} of {len(images)} "
            f"without: {missing[:5]}"
        )
    return LabeledImages(images, [targets[index] for index in range(len(images))])


def _by_index(
    images: ImagePool, known: Mapping[str, str], classes: Sequence[str], table: str | Path
) -> dict[int, int]:
    """Labels as positions in ``classes``, by data-set index.

    Raises:
        ValueError: when a path or a class is not there; names the nearest.
    """
    found = {path: images.paths.find(path) for path in known}
    _check_known(
        table, f"images of {images.folder}", images.paths, [p for p in known if found[p] is None]
    )
    strangers = [label for label in dict.fromkeys(known.values()) if label not in classes]
    _check_known(table, "the classes", classes, strangers)
    position = {name: label for label, name in enumerate(classes)}
    return {index: position[known[path]] for path, index in found.items() if index is not None}


def _check_known(
    table: str | Path, what: str, names: Sequence[str], strangers: Sequence[str]
) -> None:
    if not strangers:
        return
    nearest = [difflib.get_close_matches(name, names, n=1) for name in strangers[:3]]
    listed = [
        f"{name!r}" + (f" (did you mean {near[0]!r}?)" if near else "")
        for name, near in zip(strangers, nearest, strict=False)
    ]
    raise ValueError(
        f"{table} must name {what}, found {len(strangers)} others: {', '.join(listed)}"
    )
