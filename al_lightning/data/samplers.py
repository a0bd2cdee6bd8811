"""The order of rows: shuffled by epoch for training, in whole batches for reading."""

from collections.abc import Iterator, Sized

import torch
from torch.utils.data import DistributedSampler

from al_lightning.seeds import derive_seed, generator


class EpochShuffle(DistributedSampler[int]):
    """Serves all rows, or draws of them, in an order that only the seed and the epoch decide.

    A fit that goes on after its third epoch sees the same rows as one without an interruption.
    Lightning calls ``set_epoch``, and does not replace a ``DistributedSampler``. As in Lightning's
    own sampler, all processes get shares of one length: rows from the start of the order come twice
    where that is needed.

    Args:
        dataset: The rows to shuffle.
        seed: Decides the order, with ``purpose`` and the epoch.
        purpose: Keeps orders of one seed apart.
        num_draws: Rows of an epoch, drawn with replacement; each row once when not given.
        shuffle: False serves the rows as they are.
        epoch: The epoch to begin with.
        num_replicas: Number of processes that share the rows.
        rank: The number of this process among them.
    """

    def __init__(
        self,
        dataset: Sized,
        seed: int,
        *purpose: str | int,
        num_draws: int | None = None,
        shuffle: bool = True,
        epoch: int = 0,
        num_replicas: int = 1,
        rank: int = 0,
    ) -> None:
        self.num_rows = len(dataset)
        drawn = range(self.num_rows if num_draws is None else num_draws)  # only its length counts
        super().__init__(drawn, num_replicas, rank, shuffle, seed)  # type: ignore[arg-type]
        self.num_draws = num_draws
        self.purpose = purpose
        self.worker_seeds = torch.Generator()
        """The loader draws its workers' seeds from it."""
        self.set_epoch(epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and the workers' seeds of the next pass."""
        super().set_epoch(epoch)
        draw = derive_seed(self.seed, *self.purpose, "workers", self.rank, epoch)
        self.worker_seeds.manual_seed(draw)

    def __iter__(self) -> Iterator[int]:
        draw = generator(self.seed, *self.purpose, self.epoch)
        if self.num_draws is not None:
            order = torch.randint(self.num_rows, (self.num_draws,), generator=draw)
        elif self.shuffle:
            order = torch.randperm(self.num_rows, generator=draw)
        else:
            order = torch.arange(self.num_rows)
        places = torch.arange(self.rank, self.total_size, self.num_replicas) % len(order)
        yield from order[places].tolist()


class BatchShards(DistributedSampler[int]):
    """Deals whole batches to the processes: the r-th of W gets batches r, r + W, r + 2 W, ...

    The batches are whole because the last bits of a row's prediction depend on its batch. Each row
    comes once; Lightning's own samplers repeat rows to make the shares equal. A share may be empty.
    Lightning does not replace a ``DistributedSampler``.

    Args:
        dataset: The rows to deal, in order.
        batch_size: Rows a batch.
        num_replicas: W, the number of processes.
        rank: r, the number of this process among them.
    """

    def __init__(
        self, dataset: Sized, batch_size: int, *, num_replicas: int = 1, rank: int = 0
    ) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle=False)  # type: ignore[arg-type]
        self.num_rows = len(dataset)
        self.batch_size = batch_size

    def _batches(self) -> Iterator[range]:
        stride = self.num_replicas * self.batch_size
        for start in range(self.rank * self.batch_size, self.num_rows, stride):
            yield range(start, min(start + self.batch_size, self.num_rows))

    def __iter__(self) -> Iterator[int]:
        for batch in self._batches():
            yield from batch

    def __len__(self) -> int:
        return sum(map(len, self._batches()))
