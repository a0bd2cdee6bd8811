"""The split and the labels of a data set; labels given by hand replace its own."""

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

from al_lightning.data.items import (
    check_form,
    holds_label,
    is_none,
    read_label,
    replace_label,
)
from al_lightning.data.pool import Pool, as_indices
from al_lightning.data.sets import DataSets, extras, read_or_none
from al_lightning.data.views import opened
from al_lightning.run.journal import Record
from al_lightning.run.records import plain
from al_lightning.seeds import isolated, seeded

NUM_SPACED, NUM_COMPARED = 16, 64
"""Rows whose label is held against ``targets``: evenly spaced ones, and at most in all."""

Targets: TypeAlias = np.ndarray[Any, Any]


@dataclass
class Labels:
    """Knows the label of each row that has one, and keeps the answers of people.

    Args:
        sets: The data sets, with their own labels.
        pool: The split; once a run has begun, only this class changes it.
        key: The place of the label in an item, see :func:`~al_lightning.data.items.read_label`.
        are_held: False when the items of the data set are inputs alone.
        given: Labels given by hand, by data-set index.
        num_began: Rows that a run began with, when the data has more by now; they are the first.
    """

    sets: DataSets
    pool: Pool
    key: int | str | None
    are_held: bool
    given: dict[int, Any] = field(default_factory=dict)
    num_began: int | None = None

    @cached_property
    def _targets(self) -> Targets | None:
        return trusted_targets(self.sets, self.key)

    def of(self, indices: Sequence[int]) -> list[Any]:
        """Return the labels of these rows: the given one, else the data set's own.

        Raises:
            ValueError: when the data set's items hold no label under the key.
        """
        others = [index for index in indices if index not in self.given]
        labels = own_labels(self.sets, others, self.key, self._targets)
        own = dict(zip(others, labels, strict=True))
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
                    f"index, got none for {len(rows)}; if they hold labels, say where with "
                    "label_key="
                )
            self.check_own(rows)
            return rows, None
        values = [plain(value) for value in labels]
        if len(values) != len(rows):
            raise ValueError(f"labels must be one an index, got {len(values)} for {len(rows)}")
        self.check_values(values)
        return rows, values

    def found(self, rows: Sequence[int]) -> dict[int, Any]:
        """Return the labels of those rows that have one where we look, by data-set index."""
        if self._targets is not None:
            return dict(zip(rows, self.of(rows), strict=True))
        labels = {row: self.given[row] for row in rows if row in self.given}
        for row in [row for row in rows if row not in labels]:
            with isolated():
                item = read_or_none(cast(Any, self.sets.train).__getitem__, row)
            if holds_label(item, self.key):
                labels[row] = read_label(item, self.key)
        return labels

    def check_own(self, rows: Sequence[int]) -> None:
        """Raise ValueError when the label of a row, found where we look, is none."""
        without = [row for row, label in self.found(rows).items() if is_none(label)]
        if without:
            raise ValueError(
                "a labeled row must have a label, found None, NaN or -100 for "
                f"{len(without)} rows: {without[:5]}; give their labels by hand, mark them "
                "invalid, or let the data set say holds_labels = False when people are to label"
            )

    def check_values(self, labels: Sequence[Any]) -> None:
        """Raise ValueError when the items of the data set cannot hold such labels.

        One item is tried here, so that no loader process fails later, in the middle of a fit.
        """
        without = [label for label in labels if is_none(label)]
        if without:
            raise ValueError(
                f"a label must say something, got {without[0]!r}; leave the row out, or answer "
                "SKIP or INVALID"
            )
        if labels and self.are_held and self.pool.num_labeled:
            first = int(self.pool.labeled_N.numpy().argmax())
            item = cast(Any, self.sets.pool)[first]
            for label in labels:
                replace_label(item, opened(self.sets.train, label), self.key)

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
        """Change the split as a record of a journal says, of labels or of further rows."""
        if "indices" not in record:
            self.pool.mark_invalid((record.get("grown") or {"invalid": ()})["invalid"])
            return
        self.take(record["indices"], record["labels"])
        if record["skipped"]:
            self.pool.skip(record["skipped"])
        if record["invalid"]:
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
        if not (self.num_began or num_rows) <= record["num_rows"] <= num_rows:
            raise ValueError(
                f"the saved split is of {record['num_rows']} rows, this data set has {num_rows}; "
                "load it beside the data it was made with"
            )
        pool = Pool(num_rows, as_indices(record["labeled_indices"]), record["held_out"])
        pool.mark_invalid(record["invalid"])
        pool.skip(record["skipped"])
        return replace(self, pool=pool, given=dict(record["given_labels"]))


def own_labels(
    sets: DataSets, indices: Sequence[int], key: int | str | None, targets: Targets | None
) -> list[Any]:
    """Return the data set's own labels of these rows, if possible without reading items.

    Args:
        sets: The labels are those that are trained on, of ``sets.train``.
        indices: Data-set indices.
        key: The place of the label in an item.
        targets: The labels of all rows, where :func:`trusted_targets` found them to be so.
    """
    if targets is not None:
        return cast(list[Any], targets[list(indices)].tolist())
    with isolated():  # a transform may draw
        return [read_label(cast(Any, sets.train)[index], key) for index in indices]


def trusted_targets(sets: DataSets, key: int | str | None) -> Targets | None:
    """Return ``targets`` of the data set where they are the labels in its items, else None.

    Items may differ by a ``target_transform``, by ``label_key`` or by an index of their own. So
    evenly spaced rows are read, and one of each value while they are at most 64.

    Returns:
        (N,), in the data set's order.
    """
    targets = extras(sets.train).targets
    if targets is None or getattr(sets.train, "target_transform", None) is not None:
        return None
    try:
        targets_N = np.asarray(targets.cpu() if isinstance(targets, Tensor) else targets)
    except ValueError:  # rows of different lengths
        return None
    num_rows = len(cast(Sized, sets.train))
    plain_kinds = str | int | float
    if targets_N.shape != (num_rows,) or not all(
        isinstance(value, plain_kinds) for value in targets_N.tolist()
    ):
        return None
    spaced = range(0, num_rows, -(-num_rows // NUM_SPACED))
    first: dict[Any, int] = {}
    for index, value in enumerate(targets_N.tolist()):
        first.setdefault(value, index)
    rows = sorted({*spaced, *list(first.values())[: NUM_COMPARED - NUM_SPACED]})
    with isolated():
        items = {row: read_or_none(cast(Any, sets.train).__getitem__, row) for row in rows}
    for row, item in items.items():
        if item is None:
            continue
        label = plain(read_label(item, key)) if holds_label(item, key) else None
        told = targets_N[row].item() if hasattr(targets_N[row], "item") else targets_N[row]
        if type(label) is not type(told) or label != told:
            return None
    return targets_N


def look_for_labels(sets: DataSets, key: int | str | None, seed: int) -> bool:
    """Return False when the items of a data set hold no labels.

    The data set may say so itself, for its first row may be broken.

    Raises:
        ValueError: when the place of the label is not clear.
    """
    said = extras(sets.train).holds_labels
    read = cast(Any, sets.train).__getitem__
    with seeded(seed, "look"):  # a transform may draw
        first = read(0) if said is None else read_or_none(read, 0)
    are_held = holds_label(first, key) if said is None else said
    check_form(first, key, is_labeled=are_held)
    return are_held
