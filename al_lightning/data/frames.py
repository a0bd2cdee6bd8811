"""A pandas table as a data set."""

from collections.abc import Sequence
from typing import Any

from torch.utils.data import Dataset


def is_frame(value: Any) -> bool:
    """Tell whether a value is a pandas DataFrame; pandas need not be installed."""
    return type(value).__module__.partition(".")[0] == "pandas" and hasattr(value, "iloc")


class FrameRows(Dataset[Any]):
    """Serves each row of a DataFrame as a dict of its columns, in plain values of Python.

    Args:
        frame: The table. Rows count from 0, whatever its index is.
        label_key: The column of the label; ``"label"`` when not given.

    Attributes:
        columns: The values of each column, by its name.
        targets: The label of each row; None without such a column.
        classes: The words among the labels, sorted, or the categories of a categorical column;
            None where labels are numbers.
    """

    def __init__(self, frame: Any, label_key: int | str | None = None) -> None:
        self._num_rows = len(frame)
        self.columns = {str(name): frame[name].to_numpy() for name in frame.columns}
        key = str(label_key or "label")
        told = self.columns.get(key)
        self.targets: Sequence[Any] | None = None if told is None else told.tolist()
        self.classes: list[str] | None = None
        if self.targets is not None:
            kind = frame[key].dtype
            words = [one for one in self.targets if isinstance(one, str)]
            self.classes = sorted(set(words)) or None
            if words and hasattr(kind, "categories"):
                self.classes = [str(name) for name in kind.categories]

    def __len__(self) -> int:
        return self._num_rows

    def __getitem__(self, index: int) -> dict[str, Any]:
        values = {name: column[index] for name, column in self.columns.items()}
        return {n: v.item() if hasattr(v, "item") else v for n, v in values.items()}
