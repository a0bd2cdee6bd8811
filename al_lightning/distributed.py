"""Several processes of one run: check that they agree, and let the first one act for all."""

import hashlib
import pickle
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

T = TypeVar("T")


def is_first_rank() -> bool:
    """Tell whether this process is the one that writes."""
    return bool(rank_zero_only.rank == 0)  # type: ignore[attr-defined]


def prepare_once_a_node(
    prepare: Callable[[], None], trainer: L.Trainer | None, *, per_node: bool
) -> None:
    """Call ``prepare`` in one process a node, as Lightning does; the others wait for it.

    Processes that a Trainer starts itself come later and find all prepared. Others, of torchrun or
    of SLURM, all begin at once, and are brought together here.

    Args:
        prepare: Downloads, for example.
        trainer: Knows the processes; None when there is one alone.
        per_node: False for one process of all nodes.
    """
    if trainer is None:
        prepare()
        return
    environment = getattr(trainer.strategy, "cluster_environment", None)
    begin_at_once = (
        environment is not None
        and environment.creates_processes_externally
        and not isinstance(environment, LightningEnvironment)
        and trainer.world_size > 1
    )
    if begin_at_once:
        trainer.strategy.setup_environment()
    if trainer.local_rank == 0 and (per_node or trainer.node_rank == 0):
        prepare()
    if begin_at_once:
        trainer.strategy.barrier("prepare_data")


def processes_have_met() -> bool:
    """Tell whether a Trainer has brought processes together by now."""
    return bool(torch.distributed.is_available() and torch.distributed.is_initialized())


def check_same(trainer: L.Trainer, what: str, value: Any) -> None:
    """Compare ``value`` between all processes that have met; each of them must call this.

    Args:
        trainer: Knows the processes.
        what: Names the value.
        value: Plain values; their ``repr`` must differ when they do.

    Raises:
        RuntimeError: on every rank, when the values differ.
    """
    if trainer.world_size == 1 or not processes_have_met():
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
    """Call ``make`` on the first rank, and return or raise the same in all processes.

    Before the processes have met, each calls ``make`` by itself.
    """
    if not processes_have_met():
        return make()
    made: list[Any] = [None, None]
    failure = None
    if is_first_rank():
        try:
            made[0] = make()
        except Exception as error:  # without it the others would wait until they time out
            failure, made[1] = error, _for_others(error)
    torch.distributed.broadcast_object_list(made)
    if made[1] is not None:
        raise failure or made[1]
    return made[0]  # type: ignore[no-any-return]


def _for_others(error: Exception) -> Exception:
    """Return the error, or one that says the same where it cannot be sent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # a user's error may hold anything
        return RuntimeError(f"the first process failed: {type(error).__name__}: {error}")
    return error


def gathered_on_first_rank(
    columns: Mapping[str, Tensor], device: torch.device
) -> dict[str, Tensor]:
    """Join each column's rows of all ranks, in the order of ranks, on the first rank.

    All processes must have met, and each must call this.

    Args:
        columns: Tensors (rows of this rank, ...) by name; empty on a rank without rows.
        device: The device on which processes exchange tensors.

    Returns:
        The joined columns on the first rank; nothing on the others, which keep no copy.
    """
    forms = {name: (column.dtype, column.shape) for name, column in columns.items()}
    of_ranks: list[dict[str, Any]] = [{}] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(of_ranks, forms)
    if not is_first_rank():
        for column in columns.values():
            torch.distributed.send(_as_bytes(column.to(device)), dst=0)
        return {}
    parts: dict[str, list[Tensor]] = {name: [column.to(device)] for name, column in columns.items()}
    for rank, forms in enumerate(of_ranks[1:], start=1):
        for name, (dtype, shape) in forms.items():
            received = torch.empty(shape, dtype=dtype, device=device)
            torch.distributed.recv(_as_bytes(received), src=rank)
            parts.setdefault(name, []).append(received)
    return {name: torch.cat(pieces) for name, pieces in parts.items()}


def _as_bytes(column: Tensor) -> Tensor:
    """View a column as bytes, since not every backend sends every type."""
    return column.contiguous().flatten().view(torch.uint8)
