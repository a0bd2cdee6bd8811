"""A folder of images without labels as a data module."""

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import StackDataset
from torchvision.transforms import v2

from al_lightning.data.datamodule import ActiveDataModule
from al_lightning.data.image_pool import ImagePool
from al_lightning.data.pictures import to_tensor
from al_lightning.run.tables import check_classes, read_labels

LABELS = "labels.csv"
FIRST_ROWS = 20


class ActiveImageDataModule(ActiveDataModule):
    """Trains on the labeled images of a folder, and asks for the labels of the others.

    Args:
        folder: The images, see :class:`ImagePool`.
        labels: A table ``path,label`` of the labels that are known at the start, with paths below
            ``folder`` and names of classes. Without it, the run asks for some labels first.
        classes: Names of the classes. When not given, those that occur in ``labels``, sorted.
        image_size: Side of the square that each picture is resized to, in pixels.
        test_folder: Other images, with a ``labels.csv`` in it that has a label for each.
        initial_labeled_size: Without ``labels``, the number of rows to ask for first, drawn by
            ``seed``. When not given, 20, or all rows if there are fewer.
        augment: Move training images at random by up to a tenth of their side, and repeat the
            edge. No label should depend on that. Images are never mirrored or turned, which may
            make another class of them.
        batch_size: Rows in a training batch.
        eval_batch_size: Rows in a batch of the test and of the prediction.
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
        check_classes(classes)
        pool = ImagePool(folder, image_size=image_size)
        tests = None if test_folder is None else ImagePool(test_folder, image_size=image_size)
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
            test_set=None if tests is None else _labeled(tests, classes),
            initial_labels=first_labels,
            initial_labeled_size=initial_labeled_size,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            seed=seed,
            classes=classes,
        )
        self._unread = tests

    def prepare_data(self) -> None:
        """Read all test images once, to find a broken one before the first fit and not after it.

        Raises:
            ValueError: when an image cannot be read.
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


def _labeled(images: ImagePool, classes: Sequence[str]) -> StackDataset[Any]:
    """Return the images of a test folder, each with its label from the table in the folder."""
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
    labels: Any = [targets[index] for index in range(len(images))]
    return StackDataset(images, labels)


def _by_index(
    images: ImagePool, known: Mapping[str, str], classes: Sequence[str], table: str | Path
) -> dict[int, int]:
    """Return labels as positions in ``classes``, by data-set index.

    Raises:
        ValueError: when a path or a class is not there; names the nearest.
    """
    rows = {path: index for index, path in enumerate(images.paths)}
    positions = {name: label for label, name in enumerate(classes)}
    _check_known(table, f"images of {images.folder}", rows, known)
    _check_known(table, "the classes", positions, dict.fromkeys(known.values()))
    return {rows[path]: positions[label] for path, label in known.items()}


def _check_known(
    table: str | Path, what: str, names: Collection[str], found: Iterable[str]
) -> None:
    """Raise ValueError unless each name that was found is known; give the nearest known ones."""
    strangers = [name for name in found if name not in names]
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
