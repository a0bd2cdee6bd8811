"""Checks of the data sets before a run: do they hold the rows that they should?

The rows that are read for the fingerprints are compared. So a contradiction is found in most cases
and not in all; where one data set is a part of another by ``Subset``, all rows are compared.
"""

from collections.abc import Mapping, Sequence, Sized
from typing import Any, cast

from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import Dataset, Subset

from al_lightning.data.fingerprint import Row, SomeRows, fingerprint
from al_lightning.data.items import check_form, is_none
from al_lightning.data.labels import Labels
from al_lightning.data.sets import names_of

COPIES = 0.25
"""Twice the share of copies from which they are worth a word: some are in any data."""
FEW = 10
"""Fewer labels may well be equal."""


def check_rows(labels: Labels) -> dict[str, dict[str, str]]:
    """Read some rows of each data set and return their fingerprints, by a name for each.

    Args:
        labels: Knows the data sets and their labels.

    Raises:
        ValueError: when the label of a row has no clear place, or is none and the row is labeled;
            when ``pool_set`` holds other rows than ``train_set``.

    Warns:
        UserWarning: when rows to measure on are rows to learn from too, or of one class; when rows
            of the pool repeat, or all have one label; when the pool is read under random
            transforms; when rows differ from reading to reading.
    """
    sets = labels.sets
    which = labels.key, labels.num_began
    pool = SomeRows(sets.pool, *which)
    train = pool if sets.train is sets.pool else SomeRows(sets.train, *which)
    others = {
        name: SomeRows(rows, labels.key)
        for name, rows in (("val_set", sets.val), ("test_set", sets.test))
        if rows is not None
    }
    for index in train.first:
        check_form(cast(Any, sets.train)[index], labels.key, is_labeled=labels.are_held)
    if train is not pool:
        _check_paired(train, pool)
    labels.check_own([i for i in labels.pool.labeled_indices.tolist() if i not in labels.given])
    _warn_of_overlap(pool, others)
    _warn_of_randomness(train, pool)
    more = pool.more()
    _warn_of_repeats(more, len(cast(Sized, pool.dataset)))
    _warn_of_one_label("train_set", more if train is pool else train.first)
    for name, rows in others.items():
        _warn_of_one_label(name, rows.more())
    sums = {f"{name.removesuffix('set')}fingerprint": fingerprint(o) for name, o in others.items()}
    return {"fingerprint": fingerprint(pool), **sums}


def _check_paired(train: SomeRows, pool: SomeRows) -> None:
    """Raise ValueError when row i of one data set cannot be row i of the other."""
    (base, rows), (pool_base, pool_rows) = _origin(train.dataset), _origin(pool.dataset)
    found = ""
    if type(base) is type(pool_base) and len(base) == len(pool_base):
        differing = sum(a != b for a, b in zip(rows, pool_rows, strict=True))
        if differing:
            found = f"{differing} rows at other places of their {type(base).__name__}"
    both = sorted(train.first.keys() & pool.first.keys())
    names = [names_of(rows.dataset, both) for rows in (train, pool)]
    if all(names) and names[0] != names[1]:
        found = f"other names, such as {next(n for n in zip(*names, strict=True) if n[0] != n[1])}"
    for index in both:
        one, other = train.first[index].label, pool.first[index].label
        if type(one) is type(other) and one is not None and one != other:
            found = found or f"row {index} labeled {one!r} in train_set and {other!r} in pool_set"
    if found:
        raise ValueError(
            "pool_set must hold the same rows as train_set under other transforms, found "
            f"{found}; make both from the same rows in the same order"
        )


def _warn_of_overlap(pool: SomeRows, others: dict[str, SomeRows]) -> None:
    base, rows = _origin(pool.dataset)
    found = []
    for name, other in others.items():
        other_base, other_rows = _origin(other.dataset)
        if base is other_base:
            num = len(set(rows).intersection(other_rows))
        else:
            known = {row.inputs for row in pool.steady.values()}
            num = sum(row.inputs in known for row in other.steady.values())
        if num:
            at_least = "" if base is other_base else "at least "
            found.append(f"{at_least}{num} rows of {name}")
    if found:
        rank_zero_warn(
            "rows to measure on should not be rows to learn from, found "
            f"{' and '.join(found)} in train_set too; the metrics would say too much"
        )


def _warn_of_randomness(train: SomeRows, pool: SomeRows) -> None:
    if train.unsteady or pool.unsteady:
        name = "train_set" if train.unsteady else "pool_set"
        rank_zero_warn(
            f"rows of {name} differ each time they are read, found {len(train.unsteady)} of "
            f"{len(train.first)}: its random values come from a generator of its own, so a run "
            "that is resumed will be another run; draw from the generators of torch, numpy or "
            "Python, which each epoch seeds"
        )
    elif drawn := pool.drawn():
        rank_zero_warn(
            f"the pool should be read without random transforms, found {len(drawn)} of "
            f"{len(pool.first)} rows that differ under another seed; give the rows under "
            "evaluation transforms as pool_set"
        )


def _warn_of_repeats(rows: Mapping[int, Row], num_rows: int) -> None:
    """Warn when, by the copies among the rows that were read, a share of all rows are copies."""
    first: dict[int, int] = {}
    copies = [(index, first.setdefault(row.inputs, index)) for index, row in sorted(rows.items())]
    copies = [(index, original) for index, original in copies if index != original]
    pairs = len(rows) ** 2 / 2  # among which a pair of copies is found, of num_rows ** 2 / 2 in all
    if len(copies) > 1 and len(copies) * num_rows / pairs > COPIES:
        index, original = copies[0]
        rank_zero_warn(
            f"rows of the pool should not repeat, found {len(copies)} of {len(rows)} that are "
            f"copies of others, such as row {index} of row {original}; a copy costs a label and "
            "tells nothing new: leave copies out"
        )


def _warn_of_one_label(name: str, rows: Mapping[int, Row]) -> None:
    labels = [row.label for row in rows.values() if not is_none(row.label)]
    if len(labels) < FEW or any(label != labels[0] for label in labels):
        return
    cure = "shuffle the rows before they are split"
    if name == "train_set":
        cure = "look whether label_key names the label"
    rank_zero_warn(
        f"labels should differ, found {labels[0]!r:.40} in all {len(labels)} rows that were read "
        f"of {name}; {cure}"
    )


def _origin(dataset: Dataset[Any]) -> tuple[Sized, Sequence[int]]:
    """Return the data set that the rows come from, and their indices in it."""
    rows: Sequence[int] = range(len(cast(Sized, dataset)))
    while isinstance(dataset, Subset):
        rows = [int(dataset.indices[row]) for row in rows]
        dataset = dataset.dataset
    return cast(Sized, dataset), rows
