"""The split and the labels of a data set; labels given by hand replace its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor

from al_lightning.data.items import holds_label, read_label, replace_label
from al_lightning.data.pool import Pool, as_indices
from al_lightning.data.sets import DataSets, extras
from al_lightning.run.journal import Record
from al_lightning.run.records import plain
from al_lightning.seeds import seeded


@dataclass
class Labels:
    """Knows the label of each row that has one, and keeps the answers of people.

    Args:
        sets: The data sets, with their own labels.
        pool: The split; once a run has begun, only this class changes it.
        key: The place of the label in an item, see :func:`~al_lightning.data.items.read_label`.
        are_held: False when the items of the data set are inputs alone.
        given: Labels given by hand, by data-set index.
    """

    sets: DataSets
    pool: Pool
    key: int | str | None
    are_held: bool
    given: dict[int, Any] = field(default_factory=dict)

    def of(self, indices: Sequence[int]) -> list[Any]:
        """Return the labels of these rows: the given one, else the data set's own.

        Raises:
            ValueError: when the data set's items hold no label under the key.
        """
        others = [index for index in indices if index not in self.given]
        own = dict(zip(others, own_labels(self.sets, others, self.key), strict=True))
        return [self.given[i] if i in self.given else own[i] for i in indices]

    def check(
        self, indices: Sequence[int] | Tensor, labels: Sequence[Any] | Tensor | None = None
    ) -> tuple[list[int], list[Any] | None]:
        """Return plain indices and labels that :meth:`take` accepts; change nothing.

        Raises:
            ValueError: as :meth:`al_lightning.ActiveDataModule.label`.
        """
        rows = as_indices(indices)
        self.pool.check(rows)
        if labels is None:
            if rows and not self.are_held:
                raise ValueError(
                    "this data set's items are inputs alone, so a label must be given for each "
                    f"index, got none for {len(rows)}"
                )
            return rows, None
        values = [plain(value) for value in labels]
        if len(values) != len(rows):
            raise ValueError(f"labels must be one an index, got {len(values)} for {len(rows)}")
        self.check_values(values)
        return rows, values

    def check_values(self, labels: Sequence[Any]) -> None:
        """Raise ValueError when the items of the data set cannot hold such labels.

        One item is tried here, so that no loader process fails later, in the middle of a fit.
        """
        if labels and self.are_held and self.pool.num_labeled:
            first = int(self.pool.labeled_N.numpy().argmax())
            item = cast(Any, self.sets.pool)[first]
            for label in labels:
                replace_label(item, label, self.key)

    def take(self, rows: Sequence[int], values: Sequence[Any] | None) -> None:
        """Move rows to the training set, with labels that :meth:`check` returned.

        No row is read, so it can be done again when one cannot be read any more.
        """
        self.pool.label(rows)
        if values is not None:
            self.given.update(zip(rows, values, strict=True))

    def mark_invalid(self, rows: Sequence[int]) -> None:
        """Take rows out of the data for good; raise ValueError as the pool does."""
        self.pool.mark_invalid(rows)
        for row in rows:
            self.given.pop(row, None)

    def correct(self, labels: Mapping[int, Any]) -> None:
        """Replace the labels of labeled rows.

        Raises:
            ValueError: when a row is not labeled; nothing has changed then.
        """
        strangers = [index for index in labels if not self.pool.labeled_N[index]]
        if strangers:
            raise ValueError(f"only a label that is there can be corrected, found {strangers[:5]}")
        self.given.update(labels)

    def replay(self, record: Record) -> None:
        """Change the split as a ``labels`` record of a journal says."""
        self.take(record["indices"], record["labels"])
        self.pool.skip(record["skipped"])
        self.mark_invalid(record["invalid"])
        self.correct(dict(record["corrected"]))

    def is_split_as(self, other: "Labels") -> bool:
        """Tell whether the same rows are labeled and invalid, and the same labels were given."""
        pools = self.pool, other.pool
        masks = torch.equal(*(pool.labeled_N for pool in pools))
        return masks and pools[0].invalid == pools[1].invalid and self.given == other.given

    def record(self) -> Record:
        """Return the split and the given labels in values that JSON takes."""
        return {
            "num_rows": len(self.pool.labeled_N),
            "labeled_indices": self.pool.labeled_indices.tolist(),
            "held_out": sorted(self.pool.held_out),
            "invalid": sorted(self.pool.invalid),
            "skipped": sorted(self.pool.skipped),
            "given_labels": list(self.given.items()),
        }

    def with_split(self, record: Record) -> "Labels":
        """Return labels of the same data sets, split as :meth:`record` says.

        Raises:
            ValueError: when the split is of a data set of another length.
        """
        num_rows = len(self.pool.labeled_N)
        if record["num_rows"] != num_rows:
            raise ValueError(
                f"the saved split is of {record['num_rows']} rows, this data set has {num_rows}; "
                "load it beside the data it was made with"
            )
        pool = Pool(num_rows, as_indices(record["labeled_indices"]), record["held_out"])
        pool.mark_invalid(record["invalid"])
        pool.skip(record["skipped"])
        return replace(self, pool=pool, given=dict(record["given_labels"]))


def own_labels(sets: DataSets, indices: Sequence[int], key: int | str | None) -> list[Any]:
    """Return the data set's own labels of these rows, if possible without reading items."""
    targets = extras(sets.train).targets
    if targets is not None:
        return [read_label((None, targets[index])) for index in indices]
    return [read_label(cast(Any, sets.pool)[index], key) for index in indices]


def look_for_labels(sets: DataSets, seed: int) -> bool:
    """Return False when the items of a data set are inputs alone.

    The data set may say so itself, for its first row may be broken.
    """
    said = extras(sets.train).holds_labels
    if said is not None:
        return said
    with seeded(seed, "look"):  # a transform may draw
        return holds_label(cast(Any, sets.train)[0])
