"""Randomness is derived, not carried: a repeated cycle is the same cycle."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Return a seed in ``[0, 2**32)`` for one purpose, the same on every machine and Python.

    >>> derive_seed(42, "fit", 1) == derive_seed(42, "fit", 1)
    True
    >>> derive_seed(42, "fit", 1) == derive_seed(42, "fit", 2)
    False
    """
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return int.from_bytes(digest[:4], "big")  # 32 bits: the most that numpy's seed takes


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Return a CPU generator seeded for one purpose."""
    return torch.Generator().manual_seed(derive_seed(seed, *purpose))


def seed_all(seed: int) -> None:
    """Seed the global generators of Python, numpy and torch, on every device."""
    random.seed(seed)
    np.random.seed(seed)
    if _has_accelerator():
        torch.manual_seed(seed)
    else:  # or torch keeps each call, with its stack, for devices that never come
        torch.default_generator.manual_seed(seed)


# Torch looks for a driver anew at each call.
@cache
def _has_cuda() -> bool:
    return torch.cuda.is_available()


@cache
def _has_accelerator() -> bool:
    return torch.accelerator.is_available()


@contextmanager
def isolated() -> Iterator[None]:
    """Put the global generators back after the block as they were, also when it raises."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if _has_cuda() else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)


@contextmanager
def seeded(seed: int, *purpose: str | int) -> Iterator[None]:
    """Seed Python, numpy and torch inside the block and put their states back after it.

    Dropout, augmentation and a user's own code draw from the global generators. Inside the block
    they are reproducible, and the caller's generators are as before when it ends.
    """
    with isolated():
        seed_all(derive_seed(seed, *purpose))
        yield


class _Reseed(Callback):
    """Seeds once more when processes have met, because DDP seeds them by ``seed_everything``."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        seed_all(self._seed)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # It is not needed any more, and would cost some time in each batch.
        trainer.callbacks = [one for one in trainer.callbacks if one is not self]  # type: ignore[attr-defined]


@contextmanager
def seeded_step(trainer: L.Trainer, seed: int, *purpose: str | int) -> Iterator[None]:
    """Seed one fit, test or prediction of ``trainer``, on every rank."""
    again = _Reseed(derive_seed(seed, *purpose))
    trainer.callbacks.insert(0, again)  # type: ignore[attr-defined]
    try:
        with seeded(seed, *purpose):
            yield
    finally:
        if again in trainer.callbacks:  # type: ignore[attr-defined]
            trainer.callbacks.remove(again)  # type: ignore[attr-defined]
