"""What several processes of one run must agree on."""

import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only

T = TypeVar("T")


def is_first_rank() -> bool:
    """Whether this process is the one that writes."""
    return bool(rank_zero_only.rank == 0)  # type: ignore[attr-defined]


def processes_have_met() -> bool:
    """Whether a Trainer has brought processes together by now."""
    return bool(torch.distributed.is_available() and torch.distributed.is_initialized())


def have_met(trainer: L.Trainer) -> bool:
    """Whether there are several processes that can talk to each other by now."""
    return trainer.world_size > 1 and processes_have_met()


def check_same(trainer: L.Trainer, what: str, value: Any) -> None:
    """Compares ``value`` between all processes that have met; each of them must call this.

    Args:
        trainer: Knows the processes.
        what: Names the value.
        value: Plain values, whose ``repr`` says all.

    Raises:
        RuntimeError: on every rank, when they differ.
    """
    if not have_met(trainer):
        return
    digest = hashlib.sha256(repr(value).encode()).digest()[:8]
    own = torch.tensor(list(digest), device=trainer.strategy.root_device)
    each = trainer.strategy.all_gather(own).reshape(trainer.world_size, -1)
    different = [rank for rank, other in enumerate(each) if not torch.equal(other, each[0])]
    if different:
        raise RuntimeError(
            f"all processes must have the same {what}, ranks {different} differ from rank 0; give "
            "each the same data, seed and labels"
        )


def from_first_rank(make: Callable[[], T]) -> T:
    """What ``make`` gives or raises on the first rank, for all of them.

    Before the processes have met, each calls it by itself.
    """
    if not processes_have_met():
        return make()
    made: list[Any] = [None, None]
    if is_first_rank():
        try:
            made[0] = make()
        except Exception as error:  # or the others would wait for it until they give up
            made[1] = error
    torch.distributed.broadcast_object_list(made)
    if made[1] is not None:
        raise made[1]
    return made[0]  # type: ignore[no-any-return]
