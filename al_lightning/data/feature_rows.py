"""Features in the place of the rows that they were made of, and the data module that serves them.

Shape suffixes: N rows, V views of a row, B rows of a batch, D features.
"""

import inspect
from collections.abc import Mapping, Sequence, Sized
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset

from al_lightning.data.datamodule import ActiveDataModule
from al_lightning.data.sets import DataSets, extras
from al_lightning.seeds import seeded
from al_lightning.settings import hint

INITIAL = ("initial_labeled_size", "initial_indices", "initial_labels")
OF_SOURCE = ("train_set", "pool_set", "pool_transform", "val_set", "test_set", "initial_embeddings")
"""Arguments of a data module that the features and their source decide."""
ARGUMENTS = [n for n in inspect.signature(ActiveDataModule).parameters if n not in OF_SOURCE]
CHOOSE_ON_FEATURES = ("typiclust", "max_herding")


class FeatureRows(Dataset[Any]):
    """Serves one vector a row, float32, with its label where there are labels.

    Of several views of a row it serves one that torch's global generator draws.

    Args:
        features_NVD: (N, V, D) in any floating dtype.
        labels: One a row; None where people will give them.
        rows: The data set that the features were made of; what it knows of its rows stays known.
    """

    def __init__(
        self, features_NVD: Tensor, labels: Sequence[Any] | None, rows: Dataset[Any]
    ) -> None:
        self.features_NVD = features_NVD
        self.labels = labels
        self.holds_labels = labels is not None
        plain = labels and all(type(label) is type(labels[0]) for label in labels)
        is_number = plain and labels is not None and isinstance(labels[0], int | float)
        self.targets = torch.tensor(labels) if is_number else None
        known = extras(rows)
        self.paths, self.classes, self.unreadable = known.paths, known.classes, known.unreadable

    def __len__(self) -> int:
        return len(self.features_NVD)

    def __getitem__(self, index: int) -> Any:
        features_D = self.views([index])[0]
        return features_D if self.labels is None else (features_D, self.labels[index])

    def __getitems__(self, indices: Sequence[int]) -> Any:
        """Return a collated batch where labels are numbers or none, else a list of items."""
        features_BD = self.views(indices)
        if self.targets is not None:
            return features_BD, self.targets[torch.as_tensor(indices)]
        if self.labels is None:
            return features_BD
        return [(features_BD[b], self.labels[index]) for b, index in enumerate(indices)]

    def views(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Return (B, D), one view of each row, float32."""
        rows_B = torch.as_tensor(indices, dtype=torch.int64)
        N, V, D = self.features_NVD.shape
        flat_RD = self.features_NVD.view(N * V, D)
        if V > 1:
            rows_B = rows_B * V + torch.randint(V, (len(rows_B),))
        # Twice as fast as indexing on a map.
        return flat_RD.index_select(0, rows_B).float()


class DrawnViews(Dataset[Any]):
    """Serves each row several times under random transforms, each view under a seed of its own.

    So a view is the same in whatever batch and process it is made.

    Args:
        rows: Map-style, under training transforms.
        num_views: V; row r of this data set is view r % V of row r // V.
        seed: Decides the views.
    """

    def __init__(self, rows: Dataset[Any], num_views: int, seed: int) -> None:
        self.rows = rows
        self.num_views = num_views
        self.seed = seed

    def __len__(self) -> int:
        return len(cast(Sized, self.rows)) * self.num_views

    def __getitem__(self, index: int) -> Any:
        row, view = divmod(index, self.num_views)
        with seeded(self.seed, "view", row, view):
            return self.rows[row]


def check_split(split: Mapping[str, Any], *, has_split: bool) -> None:
    """Refuse arguments that a data module of features cannot take, before features are made.

    Args:
        split: Arguments of :class:`ActiveDataModule`.
        has_split: True when the rows have a split already, which goes on without another one.

    Raises:
        TypeError: for an unknown argument.
        ValueError: when nothing says which rows are labeled first.
    """
    for name in split.keys() - set(ARGUMENTS):
        raise TypeError(
            f"unexpected argument {name!r}; {hint(name, ARGUMENTS)}arguments are {ARGUMENTS}"
        )
    is_other = not has_split or bool(split.keys() & {"val_size", "initial_sampling"})
    if is_other and not _names_first_rows(split):
        raise ValueError(
            f"a split must say which rows are labeled first, got {sorted(split)} alone; give "
            "initial_labeled_size too"
        )


def _names_first_rows(split: Mapping[str, Any]) -> bool:
    return any(split.get(name) is not None for name in INITIAL)


class FeatureDataModule(ActiveDataModule):
    """Serves features of the rows of another data module; people still see the rows themselves.

    Args:
        source: The data module of the rows, read.
        sets: Features in the place of its data sets.
        split: As :func:`check_split` takes it. Without one that says which rows are labeled first,
            the split is that of ``source``.
    """

    def __init__(self, source: ActiveDataModule, sets: DataSets, split: Mapping[str, Any]) -> None:
        taken_over = {
            "batch_size": source.batch_size,
            "epoch_size": source.epoch_size,
            "steps_per_epoch": source.steps_per_epoch,
            "unlabeled_batch_size": source.unlabeled_batch_size,
            "eval_batch_size": source.eval_batch_size,
            "seed": source.seed,
            "classes": source.classes,
        }
        follows = not _names_first_rows(split)
        beginning: dict[str, Any] = {"initial_indices": [0]} if follows else {}
        if split.get("initial_sampling") in CHOOSE_ON_FEATURES:
            assert isinstance(sets.pool, FeatureRows)
            beginning["initial_embeddings"] = sets.pool.features_NVD[:, 0]
        super().__init__(
            sets.train,
            pool_set=sets.pool,
            val_set=None if split.get("val_size") else sets.val,
            test_set=sets.test,
            **{**taken_over, **beginning, **split},
        )
        labels = self.row_labels
        labels.sets = labels.sets._replace(shown=sets.shown)
        if follows:
            self._row_labels = labels.with_split(source.row_labels.record())
            self.first_indices = source.first_indices
