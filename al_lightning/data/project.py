"""A project's own LightningDataModule: what its loaders serve, and with which options."""

from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass
from typing import Any, cast

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning_utilities.core.apply_func import apply_to_collection
from torch.utils._pytree import tree_leaves
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
)
from torch.utils.data.dataloader import default_collate

from al_lightning.data.loaders import KNOWN, OURS
from al_lightning.data.samplers import BatchShards
from al_lightning.data.sets import DataSets
from al_lightning.seeds import seeded

HOOKS = (
    "prepare_data",
    "on_before_batch_transfer",
    "transfer_batch_to_device",
    "on_after_batch_transfer",
    "on_exception",
)
"""Hooks that are the project's own, as they are."""
IN_ORDER = (SequentialSampler, RandomSampler, DistributedSampler)
"""Samplers that only order the rows, which the split does in their place."""


@dataclass(frozen=True)
class Recipe:
    """Says how rows become batches, as a loader of the project does it."""

    batch_size: int
    collate_fn: Callable[[Any], Any] | None
    """None for torch's default."""
    options: Mapping[str, Any]
    """Further arguments of a ``DataLoader``."""


@dataclass(frozen=True)
class Project:
    """Holds what the hooks of a project's data module made, read once."""

    name: str
    rows: Dataset[Any]
    """All rows to train on, labeled and not."""
    shuffles: bool
    train: Recipe
    read: Recipe | None
    """For the pool; None where no loader but that for training has a batch size."""
    val: Any
    """What ``val_dataloader`` returned; [] without it."""
    test: Any

    @classmethod
    def of(cls, datamodule: L.LightningDataModule, seed: int) -> "Project":
        """Set up the stages that have loaders, each under the seed, and make the loaders once.

        Raises:
            TypeError: when the rows to train on are a stream.
            ValueError: when there is no loader for training that a split can follow.
        """
        with seeded(seed, "setup"):
            datamodule.setup("fit")
            loader = training_loader(datamodule)
            val = loaders_of(datamodule, "val")
        made = {}
        for name in ("test", "predict"):
            with seeded(seed, "setup"):
                if has_loader(datamodule, name):
                    datamodule.setup(name)
                made[name] = loaders_of(datamodule, name)
        readers = map(first_recipe, (made["predict"], val, made["test"]))
        return cls(
            name=type(datamodule).__name__,
            rows=loader.dataset,
            shuffles=does_shuffle(loader),
            train=recipe_of(loader),
            read=next((one for one in readers if one is not None), None),
            val=val,
            test=made["test"],
        )

    def sets(self, pool_set: Dataset[Any] | None) -> DataSets:
        """Return the data sets; ``pool_set`` has the rows under evaluation transforms."""
        return DataSets(self.rows, pool_set or self.rows, served_by(self.val), served_by(self.test))

    def whole_test(self) -> Any:
        """Return the test loaders such that Lightning does not deal their rows to processes."""
        return apply_to_collection(self.test, DataLoader, _whole)


def _whole(loader: DataLoader[Any]) -> DataLoader[Any]:
    if loader.batch_size is None or type(loader.sampler) is not SequentialSampler:
        return loader
    recipe = recipe_of(loader)
    sampler = BatchShards(cast(Sized, loader.dataset), recipe.batch_size)
    options = {"collate_fn": recipe.collate_fn, **recipe.options}
    return DataLoader(loader.dataset, recipe.batch_size, sampler=sampler, **options)


def check_datamodule(datamodule: Any) -> None:
    """Raise TypeError for anything but a LightningDataModule that is not active yet."""
    if not isinstance(datamodule, L.LightningDataModule):
        raise TypeError(
            "datamodule must be a lightning.LightningDataModule, got "
            f"{type(datamodule).__module__}.{type(datamodule).__name__}; for data sets use "
            "ActiveDataModule(train_set, ...)"
        )


def has_loader(datamodule: L.LightningDataModule, name: str) -> bool:
    """Tell whether the project has written the hook, such as ``test_dataloader`` for "test"."""
    return is_overridden(f"{name}_dataloader", datamodule, parent=L.LightningDataModule)


def are_there(loaders: Any) -> bool:
    """Tell whether a hook made loaders; their length may not be known."""
    return loaders is not None and not (isinstance(loaders, list | tuple | dict) and not loaders)


def loaders_of(datamodule: L.LightningDataModule, name: str) -> Any:
    """Return what a hook makes, such as ``test_dataloader`` for ``"test"``; [] without the hook.

    A hook of ``test`` or ``predict`` may raise a MisconfigurationException to say that there is
    none, as that of Lightning's base class does.
    """
    if not has_loader(datamodule, name):
        return []
    try:
        return getattr(datamodule, f"{name}_dataloader")()
    except Exception as error:
        # Other packages have an exception of their own under Lightning's name.
        is_none = type(error).__name__ == MisconfigurationException.__name__
        if is_none and name in ("test", "predict"):
            return []
        raise


def training_loader(datamodule: L.LightningDataModule) -> DataLoader[Any]:
    """Return the loader of the rows to train on.

    Raises:
        TypeError: when it streams its rows.
        ValueError: when there is none, several, or one whose rows or batches are chosen by code of
            its own, which a split cannot follow.
    """
    loader = loaders_of(datamodule, "train")
    name = type(datamodule).__name__
    if type(loader) is not DataLoader and not (
        isinstance(loader, DataLoader) and type(loader).__iter__ is DataLoader.__iter__
    ):
        found = "none" if isinstance(loader, list) and not loader else type(loader).__name__
        raise ValueError(
            f"train_dataloader of {name} must return one DataLoader of all rows, labeled and not, "
            f"found {found}; return one, or use ActiveDataModule(train_set, ...)"
        )
    if isinstance(loader.dataset, IterableDataset):
        raise TypeError(
            f"train_dataloader of {name} must serve a map-style data set, with __len__ and "
            f"__getitem__, found {type(loader.dataset).__name__}, a stream; read it into a list "
            "first"
        )
    _check_order(loader, name)
    return loader


def _check_order(loader: DataLoader[Any], name: str) -> None:
    if type(loader.batch_sampler) is not BatchSampler:
        kind = "none" if loader.batch_sampler is None else type(loader.batch_sampler).__name__
        raise ValueError(
            f"batches of {name} must be batch_size rows each, since the split chooses the rows, "
            f"found the batch sampler {kind}; give train_dataloader a batch_size instead"
        )
    sampler = loader.sampler
    draws_again = isinstance(sampler, RandomSampler) and (
        sampler.replacement or sampler.num_samples != len(loader.dataset)  # type: ignore[arg-type]
    )
    if type(sampler) not in IN_ORDER or draws_again:
        cure = "epoch_size= draws so many rows an epoch" if draws_again else "leave it out"
        raise ValueError(
            f"train_dataloader of {name} must serve each row once, in order or shuffled, since the "
            f"split chooses the rows, found the sampler {type(sampler).__name__}; {cure}"
        )
    num_rows, size = len(loader.dataset), loader.batch_size  # type: ignore[arg-type]
    assert size is not None
    expected = num_rows // size if loader.drop_last else -(-num_rows // size)
    is_shared = isinstance(sampler, DistributedSampler)
    if not is_shared and len(loader) != expected:
        raise ValueError(
            f"train_dataloader of {name} must have as many batches as its rows make, {expected} of "
            f"{num_rows} rows, found {len(loader)}; let its data set have the rows that it serves"
        )


def does_shuffle(loader: DataLoader[Any]) -> bool:
    """Tell whether a loader shuffles its rows."""
    sampler = loader.sampler
    return isinstance(sampler, RandomSampler) or bool(getattr(sampler, "shuffle", False))


def recipe_of(loader: DataLoader[Any]) -> Recipe:
    """Return how a loader makes batches of rows; its ``batch_size`` must be a number."""
    assert loader.batch_size is not None
    names = [name for name in KNOWN if name not in (*OURS, "collate_fn") and hasattr(loader, name)]
    collate = None if loader.collate_fn is default_collate else loader.collate_fn
    return Recipe(loader.batch_size, collate, {name: getattr(loader, name) for name in names})


def first_recipe(loaders: Any) -> Recipe | None:
    """Return the recipe of the first of these loaders that has a batch size; None without one."""
    for loader in data_loaders(loaders):
        if loader.batch_size is not None:
            return recipe_of(loader)
    return None


def data_loaders(loaders: Any) -> list[DataLoader[Any]]:
    """Return the loaders of torch in what a hook returned: one, or a nest of several."""
    flat = getattr(loaders, "flattened", None)  # of Lightning's CombinedLoader
    leaves = tree_leaves(loaders) if flat is None else flat
    return [one for one in leaves if isinstance(one, DataLoader)]


def served_by(loaders: Any) -> Dataset[Any] | None:
    """Return the map-style rows that loaders serve, in one data set; None when there are none."""
    sets = [one.dataset for one in data_loaders(loaders)]
    sets = [one for one in sets if hasattr(type(one), "__getitem__") and hasattr(one, "__len__")]
    sets = [one for one in sets if len(cast(Sized, one)) and not isinstance(one, IterableDataset)]
    return ConcatDataset(sets) if len(sets) > 1 else next(iter(sets), None)
