"""The data sets of a run, and the parts that each may have besides length and indexing."""

from collections.abc import Callable, Mapping, Sequence, Sized
from typing import Any, NamedTuple, Protocol, cast

from torch.utils.data import Dataset, IterableDataset

from al_lightning.data.views import UnreadableRowError
from al_lightning.run.records import listed


class DataSets(NamedTuple):
    """Holds the data sets of an :class:`~al_lightning.ActiveDataModule`; each is map-style."""

    train: Dataset[Any]
    pool: Dataset[Any]
    """The same rows as ``train``, under evaluation transforms."""
    val: Dataset[Any] | None = None
    test: Dataset[Any] | None = None

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


class Extras(Protocol):
    """Lists the attributes that a data set may have besides length and indexing.

    A data set has those of them that it wants, and needs no base class. :func:`extras` reads them,
    and gives None for each that is not there.
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
        return getattr(self._dataset, name, None)


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
