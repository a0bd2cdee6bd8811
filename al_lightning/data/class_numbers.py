"""Labels that are words, as the positions of their classes."""

from collections.abc import Mapping, Sequence, Sized
from typing import Any, cast

from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import Dataset

from al_lightning.data.items import holds_label, read_label, replace_label
from al_lightning.data.sets import DataSets, read_or_none
from al_lightning.run.records import listed
from al_lightning.seeds import seeded


class ClassNumbers(Dataset[Any]):
    """Serves the rows of ``dataset`` with the position of its class for each label that is a word.

    Args:
        dataset: Map-style.
        classes: Names of the classes.
        label_key: The place of the label in an item.

    Attributes:
        dataset: The data set; what it tells about its rows is told here too.
        classes: Names of the classes.
        targets: The positions of all rows, where the data set tells its labels.
    """

    def __init__(
        self, dataset: Dataset[Any], classes: Sequence[str], label_key: int | str | None
    ) -> None:
        self.dataset = dataset
        self.classes = list(classes)
        self._label_key = label_key
        self._position: Mapping[Any, int] = {name: i for i, name in enumerate(classes)}
        told = getattr(dataset, "targets", None)
        self.targets = None if told is None else [self._position.get(one, one) for one in told]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "dataset":  # asked before there is one, when unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(cast(Sized, self.dataset))

    def __getitem__(self, index: int) -> Any:
        """Return a row; raise ValueError when its label is a word that names no class."""
        return self._numbered(cast(Any, self.dataset)[index])

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        read = getattr(self.dataset, "__getitems__", None)
        rows = read(indices) if read else [cast(Any, self.dataset)[index] for index in indices]
        return [self._numbered(row) for row in rows]

    def _numbered(self, item: Any) -> Any:
        label = read_label(item, self._label_key) if holds_label(item, self._label_key) else None
        if not isinstance(label, str):
            return item
        if label not in self._position:
            raise ValueError(
                f"a label must name one of the classes {listed(self.classes)}, got {label!r}; "
                "add it to classes"
            )
        return replace_label(item, self._position[label], self._label_key)


def numbered(
    sets: DataSets, classes: Sequence[Any] | None, label_key: int | str | None, seed: int
) -> DataSets:
    """Serve the position of its class for each label that is a word, and say so.

    Args:
        sets: Data sets; returned as they are where the first label is no word.
        classes: Names of the classes; when None, words stay words.
        label_key: The place of the label in an item.
        seed: Of a transform that draws.
    """
    if classes is None:
        return sets
    with seeded(seed, "look"):
        first = read_or_none(cast(Any, sets.train).__getitem__, 0)
    if not (holds_label(first, label_key) and isinstance(read_label(first, label_key), str)):
        return sets
    names = [str(name) for name in classes]
    told = listed([f"{name} = {position}" for position, name in enumerate(names)], 10)
    rank_zero_info(f"labels are words; training gets the positions of their classes: {told}")
    return sets.mapped(lambda rows: ClassNumbers(rows, names, label_key))
