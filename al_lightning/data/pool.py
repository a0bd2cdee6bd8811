"""The split of a data set into labeled and unlabeled rows: one boolean mask, nothing else.

Shape suffix: N rows of the data set.
"""

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor


class Pool:
    """Which of ``num_rows`` rows are labeled.

    Rows in ``held_out`` (validation) belong to neither side and never change. Nor do rows marked
    invalid belong to a side. Skipped rows are unlabeled and not to be asked for.

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
        self.labeled_N = torch.zeros(num_rows, dtype=torch.bool)
        self.held_out = frozenset(held_out)
        self.invalid: set[int] = set()
        self.skipped: set[int] = set()
        self.num_labeled = 0
        self.label(initial_indices)

    @property
    def num_unlabeled(self) -> int:
        """Rows of the pool, skipped ones too."""
        return len(self.labeled_N) - self.num_labeled - len(self.held_out) - len(self.invalid)

    @property
    def num_askable(self) -> int:
        """Rows that may still be asked for."""
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
        return torch.from_numpy(np.flatnonzero(self._askable_N()))

    def check(self, indices: Sequence[int]) -> None:
        """Raises ValueError unless each of ``indices`` is in the pool and named once."""
        self._check_rows(indices)
        if len(set(indices)) < len(indices):
            counts = np.unique(np.asarray(indices), return_counts=True)
            repeated = counts[0][counts[1] > 1].tolist()
            raise ValueError(f"indices must not repeat, found {repeated[:5]} more than once")
        taken = [i for i in indices if self.labeled_N[i]]
        if taken:
            raise ValueError(
                f"indices must be unlabeled, found {len(taken)} labeled already: {taken[:5]}"
            )
        kept = self.held_out.intersection(indices)
        if kept:
            raise ValueError(
                f"indices must not be held out for validation, found {sorted(kept)[:5]}"
            )
        broken = self.invalid.intersection(indices)
        if broken:
            raise ValueError(f"indices must not be marked invalid, found {sorted(broken)[:5]}")

    def _check_rows(self, indices: Sequence[int]) -> None:
        num_rows = len(self.labeled_N)
        outside = [i for i in indices if not 0 <= i < num_rows]
        if outside:
            raise ValueError(
                f"indices must be data-set indices in 0..{num_rows - 1}, found {len(outside)} "
                f"outside: {outside[:5]}; pool positions are not data-set indices"
            )

    def label(self, indices: Sequence[int]) -> None:
        """Moves ``indices`` out of the pool in O(len(indices)); on ValueError nothing changed."""
        self.check(indices)
        self.labeled_N[torch.as_tensor(indices, dtype=torch.int64)] = True
        self.num_labeled += len(indices)
        self.skipped.difference_update(indices)

    def skip(self, indices: Sequence[int]) -> None:
        """Rows of the pool that stay in it and are not to be asked for again."""
        self.check(indices)
        self.skipped.update(indices)

    def mark_invalid(self, indices: Sequence[int]) -> None:
        """Takes rows, labeled or not, out of both sides for good; on ValueError nothing changed."""
        self._check_rows(indices)
        kept = self.held_out.intersection(indices)
        if kept:
            raise ValueError(
                f"rows held out for validation must be valid, found {sorted(kept)[:5]}"
            )
        rows = torch.as_tensor(list(indices), dtype=torch.int64)
        self.num_labeled -= int(self.labeled_N[rows].sum())
        self.labeled_N[rows] = False
        self.skipped.difference_update(indices)
        self.invalid.update(indices)

    def askable_rows(self) -> "MaskedRows":
        """The rows that may be asked for as it stands now, in an eighth of a byte a row."""
        return MaskedRows(self._askable_N())

    def _unlabeled_N(self) -> np.ndarray:
        unlabeled_N: np.ndarray = ~self.labeled_N.numpy()
        unlabeled_N[[*self.held_out, *self.invalid]] = False
        return unlabeled_N

    def _askable_N(self) -> np.ndarray:
        askable_N = self._unlabeled_N()
        askable_N[list(self.skipped)] = False
        return askable_N


class MaskedRows:
    """The i-th set bit of a mask, for any i, without a list of indices.

    At ten million rows an int64 index list costs 80 MB and every loader worker gets a copy; packed
    bits cost 1.25 MB, and a position is found by a search over block counts and a look into one
    block.
    """

    BLOCK_BYTES = 512

    def __init__(self, mask_N: np.ndarray) -> None:
        rows = 8 * self.BLOCK_BYTES
        whole = len(mask_N) // rows * rows
        counts = np.count_nonzero(mask_N[:whole].reshape(-1, rows), axis=1)
        counts = np.append(counts, np.count_nonzero(mask_N[whole:]))
        self._bits = np.packbits(mask_N)
        self._ends = np.cumsum(counts)  # positions before the end of each block

    def __len__(self) -> int:
        return int(self._ends[-1])

    def all(self) -> Tensor:
        """Every data-set index, ascending, int64."""
        return torch.from_numpy(np.flatnonzero(np.unpackbits(self._bits)))

    def at(self, positions: Sequence[int]) -> list[int]:
        """Data-set indices of the rows at ``positions``, in that order."""
        wanted = np.asarray(positions, dtype=np.int64)
        blocks = np.searchsorted(self._ends, wanted, side="right")
        rows = np.empty_like(wanted)
        for block in np.unique(blocks):
            here = blocks == block
            first_byte = int(block) * self.BLOCK_BYTES
            bits = np.unpackbits(self._bits[first_byte : first_byte + self.BLOCK_BYTES])
            before = self._ends[block - 1] if block else 0
            rows[here] = 8 * first_byte + np.flatnonzero(bits)[wanted[here] - before]
        return cast(list[int], rows.tolist())
