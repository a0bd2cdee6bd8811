"""The split of a data set into labeled and unlabeled rows, held as one boolean mask.

Shape suffix: N rows of the data set.
"""

from collections.abc import Collection, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor


class Pool:
    """Knows which of ``num_rows`` rows are labeled.

    Rows in ``held_out`` are for validation: they are on neither side, and stay there. Rows marked
    invalid are on neither side either. Skipped rows are unlabeled, and are not asked for.

    Args:
        num_rows: Rows in the data set.
        initial_indices: Data-set indices labeled from the start.
        held_out: Data-set indices kept out of the pool for good.

    Raises:
        ValueError: as :meth:`label`.
    """

    def __init__(
        self, num_rows: int, initial_indices: Sequence[int], held_out: Sequence[int] = ()
    ) -> None:
        with torch.inference_mode(False):  # or the mask could not be changed afterwards
            self.labeled_N = torch.zeros(num_rows, dtype=torch.bool)
        self.held_out = frozenset(held_out)
        self.invalid: set[int] = set()
        self.skipped: set[int] = set()
        self.num_labeled = 0
        self.label(initial_indices)

    @property
    def num_unlabeled(self) -> int:
        """Number of rows in the pool, with the skipped ones."""
        return len(self.labeled_N) - self.num_labeled - len(self.held_out) - len(self.invalid)

    @property
    def num_askable(self) -> int:
        """Number of rows that may still be asked for."""
        return self.num_unlabeled - len(self.skipped)

    @property
    def labeled_indices(self) -> Tensor:
        """Data-set indices of the labeled rows, ascending, int64."""
        return self.labeled_N.nonzero()[:, 0]

    @property
    def unlabeled_indices(self) -> Tensor:
        """Data-set indices of the pool, ascending, int64."""
        return torch.from_numpy(np.flatnonzero(self._unlabeled_N()))

    @property
    def askable_indices(self) -> Tensor:
        """Data-set indices of the pool less the skipped rows, ascending, int64."""
        askable_N = self._unlabeled_N()
        askable_N[list(self.skipped)] = False
        return torch.from_numpy(np.flatnonzero(askable_N))

    def check(self, indices: Sequence[int]) -> None:
        """Raise ValueError unless each of ``indices`` is in the pool and named once."""
        if not indices:
            return
        self._check_rows(indices)
        if len(set(indices)) < len(indices):
            counts = np.unique(np.asarray(indices), return_counts=True)
            repeated = counts[0][counts[1] > 1].tolist()
            raise ValueError(f"indices must not repeat, found {repeated[:5]} more than once")
        rows = torch.as_tensor(indices, dtype=torch.int64)
        taken = rows[self.labeled_N[rows]].tolist()
        if taken:
            raise ValueError(
                f"indices must be unlabeled, found {len(taken)} labeled already: {taken[:5]}"
            )
        _refuse("indices must not be held out for validation", self.held_out.intersection(indices))
        _refuse("indices must not be marked invalid", self.invalid.intersection(indices))

    def _check_rows(self, indices: Sequence[int]) -> None:
        num_rows = len(self.labeled_N)
        if indices and not (min(indices) >= 0 and max(indices) < num_rows):
            outside = [i for i in indices if not 0 <= i < num_rows]
            raise ValueError(
                f"indices must be data-set indices in 0..{num_rows - 1}, found {len(outside)} "
                f"outside: {outside[:5]}; pool positions are not data-set indices"
            )

    def label(self, indices: Sequence[int]) -> None:
        """Move ``indices`` out of the pool; on ValueError nothing has changed."""
        self.check(indices)
        self.labeled_N[torch.as_tensor(indices, dtype=torch.int64)] = True
        self.num_labeled += len(indices)
        self.skipped.difference_update(indices)

    def skip(self, indices: Sequence[int]) -> None:
        """Keep ``indices`` in the pool, but never ask for them."""
        self.check(indices)
        self.skipped.update(indices)

    def mark_invalid(self, indices: Sequence[int]) -> None:
        """Take rows off both sides for good, labeled or not; on ValueError nothing has changed."""
        self._check_rows(indices)
        _refuse("rows held out for validation must be valid", self.held_out.intersection(indices))
        rows = torch.as_tensor(list(indices), dtype=torch.int64)
        self.num_labeled -= int(self.labeled_N[rows].sum())
        self.labeled_N[rows] = False
        self.skipped.difference_update(indices)
        self.invalid.update(indices)

    def _unlabeled_N(self) -> np.ndarray:
        unlabeled_N: np.ndarray = ~self.labeled_N.numpy()
        unlabeled_N[[*self.held_out, *self.invalid]] = False
        return unlabeled_N


def _refuse(rule: str, rows: Collection[int]) -> None:
    if rows:
        raise ValueError(f"{rule}, found {sorted(rows)[:5]}")


def as_indices(indices: Sequence[int] | Tensor) -> list[int]:
    """Return plain integers for a list, an array or a tensor of data-set indices.

    Raises:
        TypeError: when they are not whole numbers; a boolean mask is not a list of indices.
    """
    array = np.asarray(indices.cpu() if isinstance(indices, Tensor) else indices)
    if array.size == 0:
        return []
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise TypeError(
            f"indices must be a flat list of whole numbers, got {array.dtype} of shape "
            f"{array.shape}; for a mask pass mask.nonzero()[:, 0]"
        )
    return cast(list[int], array.tolist())
