"""The data sets of a run, and the parts that each may have besides length and indexing."""

import copy
import os
from collections.abc import Callable, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset
from torchvision.datasets import DatasetFolder
from torchvision.datasets.vision import StandardTransform

from al_lightning.data.views import UnreadableRowError
from al_lightning.run.records import listed


class DataSets(NamedTuple):
    """Holds the data sets of an :class:`~al_lightning.ActiveDataModule`; each is map-style."""

    train: Dataset[Any]
    pool: Dataset[Any]
    """The same rows as ``train``, under evaluation transforms."""
    val: Dataset[Any] | None = None
    test: Dataset[Any] | None = None
    shown: Dataset[Any] | None = None
    """The same rows as people see them, where ``pool`` holds something else, such as features."""

    @property
    def for_people(self) -> Dataset[Any]:
        """The rows as people see them."""
        return self.pool if self.shown is None else self.shown

    def mapped(self, change: Callable[[Dataset[Any]], Dataset[Any]]) -> "DataSets":
        """Return the data sets after a change; what is one data set twice stays one."""
        changed: dict[int, Dataset[Any]] = {}
        for dataset in filter(lambda one: one is not None, self):
            changed.setdefault(id(dataset), change(cast(Dataset[Any], dataset)))
        return DataSets(*(None if one is None else changed[id(one)] for one in self))  # type: ignore[arg-type]

    def check(self) -> None:
        """Raise TypeError for a stream, ValueError when ``train`` and ``pool`` differ in length."""
        for name, dataset in self._asdict().items():
            if dataset is not None:
                _check_map_style(f"{name}_set", dataset)
        num_rows, num_pool = len(cast(Sized, self.train)), len(cast(Sized, self.pool))
        if num_rows != num_pool:
            raise ValueError(
                "pool_set must hold the same rows as train_set under other transforms, got "
                f"{num_pool} rows against {num_rows}"
            )


def with_transform(dataset: Dataset[Any], transform: Any) -> Dataset[Any]:
    """Return the same rows with ``transform`` in the place of the data set's own ``transform``.

    It looks through ``Subset`` and ``ConcatDataset``. Nothing is copied but the data set's object.

    Raises:
        ValueError: when a data set has no attribute ``transform``.
    """
    if isinstance(dataset, Subset):
        return Subset(with_transform(dataset.dataset, transform), dataset.indices)
    if isinstance(dataset, ConcatDataset):
        return ConcatDataset([with_transform(one, transform) for one in dataset.datasets])
    if not hasattr(dataset, "transform"):
        raise ValueError(
            "pool_transform takes the place of an attribute `transform` of the data set, found "
            f"none in {type(dataset).__name__}; give the rows under evaluation transforms as "
            "pool_set"
        )
    other: Any = copy.copy(dataset)
    other.transform = transform
    if hasattr(other, "transforms"):  # of torchvision, made of transform and target_transform
        other.transforms = StandardTransform(transform, other.target_transform)
    return cast(Dataset[Any], other)


class Extras(Protocol):
    """Lists the attributes that a data set may have besides length and indexing.

    A data set has those of them that it wants, and needs no base class. :func:`extras` reads them,
    also those of the data sets inside ``Subset`` and ``ConcatDataset``, the paths of torchvision's
    folders and the classes of Hugging Face's columns. It gives None for each that is not there.
    """

    paths: Sequence[str] | None
    """A name for each row, for people."""
    targets: Sequence[Any] | None
    """The label of each row, as in torchvision: no item has to be read for them."""
    classes: Sequence[Any] | None
    """The name of each class; a label is then a position in them."""
    holds_labels: bool | None
    """False when items are inputs alone. Without it we look at the first item."""
    picture: Callable[[int], Any] | None
    """Makes a PIL image of a row, for a person to see."""
    describe: Callable[[int], Any] | None
    """Returns what people see of a row, see :mod:`~al_lightning.monitor.describe`."""
    file: Callable[[int], Any] | None
    """Returns the path of the file that a row is read from."""
    open_label: Callable[[str], Any] | None
    """Opens a label that was given as the path of a file, such as a mask."""
    unreadable: Callable[[], Mapping[int, str]] | None
    """Finds the rows that cannot be read: data-set index to reason."""


def extras(dataset: Any) -> Extras:
    """Return the extras of a data set, each read when it is asked for.

    >>> extras([5, 6]).paths is None
    True
    """
    return cast(Extras, _OrNone(dataset))


class _OrNone:
    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __getattr__(self, name: str) -> Any:
        own = getattr(self._dataset, name, None)
        return _told_by(self._dataset, name) if own is None else own


def _told_by(dataset: Any, name: str) -> Any:
    """Return what a data set of a well-known kind tells in its own way; None if nothing."""
    if isinstance(dataset, Subset):
        return _of_parts([dataset.dataset], lambda: [(0, int(i)) for i in dataset.indices], name)
    if isinstance(dataset, ConcatDataset):
        parts = list(dataset.datasets)
        sizes = [len(cast(Sized, part)) for part in parts]
        places = ((part, row) for part, size in enumerate(sizes) for row in range(size))
        return _of_parts(parts, lambda: list(places), name)
    if isinstance(dataset, DatasetFolder) and name == "paths":
        return [Path(os.path.relpath(path, dataset.root)).as_posix() for path, _ in dataset.samples]
    if isinstance(dataset, DatasetFolder) and name == "file":
        return lambda index: dataset.samples[index][0]
    if name == "classes":  # of a ClassLabel in Hugging Face's features
        features = getattr(dataset, "features", None)
        columns = features.values() if isinstance(features, Mapping) else ()
        named = [column.names for column in columns if hasattr(column, "names")]
        return named[0] if len(named) == 1 else None
    return None


def _of_parts(parts: Sequence[Any], rows: Callable[[], list[tuple[int, int]]], name: str) -> Any:
    """Return what parts of a data set tell about the rows of the whole.

    Args:
        parts: Data sets.
        rows: Gives a part and a row in it, for each row of the whole in order.
        name: Of one of the extras.
    """
    told = [getattr(extras(part), name) for part in parts]
    if any(one is None for one in told):
        return None
    if name in ("paths", "targets"):
        return [told[part][row] for part, row in rows()]
    if name in ("picture", "describe", "file"):
        places = rows()
        return lambda index: told[places[index][0]](places[index][1])
    if name == "unreadable":
        broken = [look() for look in told]
        return lambda: {i: broken[p][r] for i, (p, r) in enumerate(rows()) if r in broken[p]}
    alike = [list(one) if name == "classes" else one for one in told]
    return told[0] if all(one == alike[0] for one in alike) else None


def read_or_none(read: Callable[[int], Any], index: int) -> Any:
    """Return ``read(index)``; None for a row that cannot be read, where no error may come."""
    try:
        return read(index)
    except UnreadableRowError:
        return None


def names_of(dataset: Any, indices: Sequence[int]) -> list[str] | None:
    """Return people's names of rows; None for a data set without ``paths``."""
    paths = extras(dataset).paths
    return None if paths is None else [str(paths[index]) for index in indices]


def find_unreadable(dataset: Any) -> tuple[list[int], str]:
    """Return the rows that the data set knows to be unreadable, and a sentence about them."""
    look = extras(dataset).unreadable
    broken = {} if look is None else dict(look())
    rows = list(broken)
    names = names_of(dataset, rows) or [f"row {row}" for row in rows]
    why = listed([f"{n}: {broken[i]}" for n, i in zip(names, rows, strict=True)], between="; ")
    return rows, f"{len(rows)} rows cannot be read and are left out: {why}"


def _check_map_style(name: str, dataset: Any) -> None:
    is_map_style = hasattr(type(dataset), "__len__") and hasattr(type(dataset), "__getitem__")
    if not is_map_style or isinstance(dataset, IterableDataset):
        raise TypeError(
            f"{name} must be map-style, with __len__ and __getitem__, got "
            f"{type(dataset).__name__}; read a stream into a list first"
        )
