"""Bookkeeping at ten million rows: to label 1,000 of them and make the next pool loader.

The promise: at most 0.2 s for both. Beside the mask of one byte a row, the loader keeps the pool's
indices, 8 bytes a row. The tutorial's list comprehension does the same job for a pool of 20,000
rows only, because it would take minutes here: the ratio is of its time at 20,000 rows to ours at
10,000,000.

python benchmarks/bookkeeping.py             # about half a minute
"""

import statistics
import tracemalloc
from collections.abc import Callable
from typing import Any

import torch
from common import PeakMemory, arguments, header, interleaved, ratio_line, spread, verdict
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tutorial import without

from al_lightning import ActiveDataModule

QUERY_SIZE = 1000


class NumberedRows(Dataset[tuple[Tensor, int]]):
    """As many rows as wanted, which cost nothing."""

    def __init__(self, num_rows: int) -> None:
        self.num_rows = num_rows

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.tensor([float(index)]), index % 10


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--tutorial-rows", type=int, default=20_000)
    args = parser.parse_args()
    print(header(), flush=True)
    data = ActiveDataModule(NumberedRows(args.rows), initial_labeled_size=1000)
    compare_times(data, args.repeats, args.tutorial_rows)
    compare_memory(data, args.repeats)


def compare_times(data: ActiveDataModule, repeats: int, tutorial_rows: int) -> None:
    """Both sides in turn; then a first batch, so that no work was only put off."""
    queries = iter(draw_queries(data, repeats + 1))
    unlabeled = list(range(tutorial_rows))
    new = torch.randperm(tutorial_rows)[:QUERY_SIZE].tolist()
    num_rows = data.num_unlabeled
    seconds = interleaved(
        {
            "tutorial": lambda: without(unlabeled, new),
            "library": lambda: step(data, next(queries)),
            "first batch": first_batch(data),
        },
        repeats,
    )
    print(f"{QUERY_SIZE:,} rows to label, median of {repeats} (range)")
    for name, size in (("tutorial", tutorial_rows), ("library", num_rows), ("first batch", 64)):
        print(f"{f'{name}, {size:,} rows':<34} {spread(seconds[name], '.4f')} s")
    median = statistics.median(seconds["library"])
    print(f"{'label and next loader':<34} {median:.4f} s  {verdict(median, at_most=0.2)}")
    theirs, ours = seconds["tutorial"], seconds["library"]
    print(ratio_line("tutorial / library, as measured", theirs, ours))
    per_row = [value * num_rows / tutorial_rows for value in theirs]
    print(ratio_line("tutorial / library, a row of pool", per_row, ours))


def compare_memory(data: ActiveDataModule, repeats: int) -> None:
    """What the same step needs while it runs and keeps afterwards, against the mask."""
    mask_mb = data.pool.labeled_N.nbytes / 1e6
    resident, traced = [], []
    for query in draw_queries(data, repeats):
        loaders = []
        with PeakMemory() as memory:
            loaders.append(step(data, query))
        resident.append((memory.peak, memory.kept))
    for query in draw_queries(data, repeats):
        tracemalloc.start()
        loaders = [step(data, query)]
        kept, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        traced.append((peak / 1e6, kept / 1e6))
    print(f"memory in MB; the mask is {mask_mb:.1f}")
    for name, pairs in (("resident memory", resident), ("traced by Python", traced)):
        peaks, kept_all = zip(*pairs, strict=True)
        print(f"{name:<34} peak {spread(peaks, '.1f')}, kept {spread(kept_all, '.1f')}")


def draw_queries(data: ActiveDataModule, num: int) -> list[Tensor]:
    """Rows of the pool at random, ``num`` times, none of them twice."""
    draw = torch.Generator().manual_seed(0)
    shuffled = torch.randperm(data.num_unlabeled, generator=draw)[: num * QUERY_SIZE]
    queries = data.unlabeled_indices[shuffled].reshape(num, QUERY_SIZE)
    return list(queries)


def step(data: ActiveDataModule, query: Tensor) -> DataLoader[Any]:
    """What is measured."""
    data.label(query)
    loader: DataLoader[Any] = data.predict_dataloader()
    return loader


def first_batch(data: ActiveDataModule) -> Callable[[], object]:
    """Reads one batch of a loader that is there already."""
    loader = data.predict_dataloader()
    return lambda: next(iter(loader))


if __name__ == "__main__":
    main()
