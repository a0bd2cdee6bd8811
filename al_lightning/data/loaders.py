"""Rows into batches: sizes that training can use, collation, and the options of a loader."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch.utils.data import DataLoader

from al_lightning.data.items import collate
from al_lightning.settings import hint

Collate = Callable[[Any], Any]
OURS = ("dataset", "batch_size", "shuffle", "sampler", "batch_sampler", "generator")
ARGUMENTS = ("num_workers", "collate_fn")
TRAINING = ("drop_last",)
"""Options for training alone: of the pool and of the test set every row is read."""
KNOWN = tuple(inspect.signature(DataLoader).parameters)


def training_batch_size(num_rows: int, batch_size: int, *, drop_last: bool = False) -> int:
    """Return the batch size for an epoch; normally ``batch_size``.

    BatchNorm cannot train on a batch of one row. Where the last batch would be one, the rows are
    spread over as many batches of nearly one size, or over batches of one row more. With
    ``drop_last``, fewer rows than a batch are one batch.

    >>> [training_batch_size(n, 64) for n in (64, 65, 66, 129, 1)]
    [64, 33, 64, 43, 64]
    >>> training_batch_size(20, 64, drop_last=True)
    20
    """
    if drop_last:
        return max(1, min(num_rows, batch_size))
    if num_rows % batch_size != 1 or num_rows == 1 or batch_size == 1:
        return batch_size
    even = -(-num_rows // -(-num_rows // batch_size))
    sizes = (*range(even, 1, -1), batch_size + 1)
    return next((size for size in sizes if num_rows % size != 1), batch_size)


def check_options(options: Mapping[str, Any]) -> None:
    """Raise ValueError for an option that the data module sets itself, or that is none."""
    for name in options:
        if name in ARGUMENTS:
            raise ValueError(f"loader must not hold {name!r}; it is an argument of its own")
        if name in OURS:
            raise ValueError(
                f"loader must not hold {name!r}, which the split decides; batch_size, "
                "eval_batch_size and seed are arguments of their own"
            )
        if name not in KNOWN:
            raise ValueError(
                f"loader must hold arguments of a DataLoader, got {name!r}; {hint(name, KNOWN)}"
            )


def reading(training: Collate | None) -> Collate:
    """Return what makes batches to read where nothing was said; see :func:`collate_to_read`."""
    return partial(collate_to_read, has_training=training is not None)


def collate_to_read(items: Any, *, has_training: bool) -> Any:
    """Make a batch to read as torch does.

    Args:
        items: Rows.
        has_training: True when a ``collate_fn`` was given, which is for training alone.

    Raises:
        ValueError: when torch cannot and only training's function is there.
    """
    try:
        return collate(items)
    except (TypeError, RuntimeError, ValueError, KeyError) as error:
        if not has_training:
            raise
        raise ValueError(
            "batches of the pool, of validation and of the test are made by eval_collate_fn, since "
            f"collate_fn is for training alone, and torch's default cannot ({error}); give "
            "eval_collate_fn, which may be the same function"
        ) from error
