"""The start of a run: the rows that are labeled first, and those held out for validation.

Shape suffixes: N rows of the data set, D embedding dimensions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from al_lightning.acquisition import max_herding, typiclust
from al_lightning.run.records import plain
from al_lightning.seeds import generator
from al_lightning.settings import check_at_least

SAMPLINGS = ("random", "balanced", "typiclust", "max_herding")
ON_EMBEDDINGS = ("typiclust", "max_herding")


@dataclass(frozen=True)
class Initial:
    """Says how a run begins; each field is an argument of ``ActiveDataModule``.

    Exactly one of ``size``, ``indices`` and ``labels`` is given.

    Raises:
        ValueError: when the fields do not go together.
    """

    size: int | None = None
    indices: list[int] | None = None
    labels: Mapping[int, Any] | None = None
    sampling: str = "random"
    embeddings: Tensor | None = field(default=None, repr=False)
    val_size: int = 0
    classes: Sequence[str] | None = None

    def __post_init__(self) -> None:
        beginnings = {
            "initial_labeled_size": self.size,
            "initial_indices": self.indices,
            "initial_labels": self.labels,
        }
        given = [name for name, value in beginnings.items() if value is not None]
        if len(given) != 1:
            raise ValueError(
                f"give one of {', '.join(beginnings)}, got {' and '.join(given) or 'none'}"
            )
        self._check_sampling()
        check_at_least(1, initial_labeled_size=self.size)
        check_at_least(0, val_size=self.val_size)
        classes, labels = self.classes, (self.labels or {}).values()
        strange = [y for y in labels if isinstance(y, int) and not 0 <= y < len(classes or ())]
        if classes is not None and strange:
            raise ValueError(
                f"initial_labels must be positions in classes {classes}, got {strange[:5]}"
            )

    def _check_sampling(self) -> None:
        if self.sampling not in SAMPLINGS:
            known = ", ".join(SAMPLINGS)
            raise ValueError(f"initial_sampling must be one of {known}, got {self.sampling!r}")
        if (self.sampling in ON_EMBEDDINGS) != (self.embeddings is not None):
            raise ValueError(
                'initial_sampling="typiclust" or "max_herding" and initial_embeddings go together, '
                f"got {self.sampling!r} {'without' if self.embeddings is None else 'with'} "
                "embeddings; cache_features has them"
            )

    @property
    def known(self) -> list[int] | None:
        """The first rows where they are given, else None."""
        return self.indices if self.labels is None else list(self.labels)

    def check_fits(self, num_rows: int) -> None:
        """Raise ValueError unless a data set of ``num_rows`` rows is large enough."""
        num = self.size or len(self.known or ())
        if num == 0:
            raise ValueError("at least one row must be labeled at the start, got none")
        if num + self.val_size > num_rows:
            raise ValueError(
                "initial_labeled_size and val_size must fit the data set, got "
                f"{num + self.val_size} rows of {num_rows} in all"
            )

    def split(
        self, num_rows: int, seed: int, labels_of: Callable[[Sequence[int]], Sequence[Any]] | None
    ) -> tuple[list[int], list[int]]:
        """Return the first rows, and the rows to hold out.

        Args:
            num_rows: Rows of the data set.
            seed: Draws both.
            labels_of: Gives the data set's own labels; None where its items are inputs alone.

        Raises:
            ValueError: when labels or embeddings do not fit; see also :meth:`check_fits`.
        """
        num = self.size or 0
        if labels_of is None and (self.val_size or self.sampling == "balanced"):
            raise ValueError(
                'val_size and initial_sampling="balanced" need a data set that holds labels, and '
                "this one's items are inputs alone; give val_set, or label rows of each class "
                "first; if they hold labels, say where with label_key="
            )
        # The legacy generator on purpose: its shuffle is what `np.random.seed(42)` gives in the
        # tutorial, so the same seed means the same first thousand rows.
        shuffled = np.random.RandomState(seed).permutation(num_rows)
        if self.known is not None:
            first = self.known
        elif self.sampling == "balanced" and labels_of is not None:
            first = balanced(shuffled.tolist(), [*map(plain, labels_of(shuffled.tolist()))], num)
        elif self.embeddings is not None:
            first = self._on_embeddings(self.embeddings, num_rows, num, seed)
        else:
            first = shuffled[:num].tolist()
        if not self.val_size:
            return first, []
        return first, shuffled[~np.isin(shuffled, first)][: self.val_size].tolist()

    def _on_embeddings(
        self, embeddings_ND: Tensor, num_rows: int, num: int, seed: int
    ) -> list[int]:
        if len(embeddings_ND) != num_rows:
            raise ValueError(
                "initial_embeddings must be one a row of train_set, got "
                f"{len(embeddings_ND)} for {num_rows} rows"
            )
        nothing_labeled = embeddings_ND[:0]
        if self.sampling == "max_herding":
            return max_herding(embeddings_ND, nothing_labeled, num).tolist()
        return typiclust(embeddings_ND, nothing_labeled, num, generator(seed, "initial")).tolist()


def balanced(rows: Sequence[int], labels: Sequence[Any], num: int) -> list[int]:
    """Return ``num`` rows, equally many of each class, the first of each in the given order.

    >>> balanced([7, 2, 5, 1], ["a", "b", "b", "a"], 3)
    [7, 1, 2]
    """
    rows_by_class: dict[Any, list[int]] = {}
    for row, label in zip(rows, labels, strict=True):
        key = tuple(label) if isinstance(label, list) else label  # one-hot
        rows_by_class.setdefault(key, []).append(row)
    quota, remainder = divmod(num, len(rows_by_class))
    chosen: list[int] = []
    for rank, label in enumerate(sorted(rows_by_class)):
        share = quota + (rank < remainder)
        if len(rows_by_class[label]) < share:
            raise ValueError(
                f'initial_sampling="balanced" needs {share} rows of class {label!r}, found '
                f"{len(rows_by_class[label])}; lower initial_labeled_size"
            )
        chosen += rows_by_class[label][:share]
    return chosen
