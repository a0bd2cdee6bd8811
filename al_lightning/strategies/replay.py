"""The queries of another run, asked again: does the choice outlive the model that made it?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor

from al_lightning.run.folder import JOURNAL, check_begun
from al_lightning.run.journal import Record, read_records
from al_lightning.run.records import listed
from al_lightning.strategies.registry import ON_REQUEST
from al_lightning.strategies.strategy import PoolOutputs, Strategy


@dataclass(frozen=True)
class Recorded:
    """Holds what a run began with, and the rows that it labeled in each cycle."""

    start: Record
    queries: tuple[tuple[int, tuple[int, ...]], ...]
    """Pairs of the number of labels before and the rows that got one."""

    @classmethod
    def of(cls, run_dir: str | Path) -> "Recorded":
        """Read a run; raise ValueError when there is none, or nothing was labeled in it."""
        folder = Path(run_dir)
        records = read_records(folder / JOURNAL)
        check_begun(records, folder, " whose queries to ask")
        num, queries = len(records[0]["split"]["labeled_indices"]), []
        for record in records:
            if record["event"] == "labels":
                queries.append((num, tuple(record["indices"])))
                num += len(record["indices"])
        if not queries:
            raise ValueError(f"a run whose queries to ask must have some, found none in {folder}")
        return cls(records[0], tuple(queries))


@dataclass(frozen=True)
class Again:
    """Chooses the rows that another run has labeled, in the same order."""

    rows: tuple[int, ...]

    def __call__(self, pool: PoolOutputs, num: int, generator: Generator) -> Tensor:
        place = {index: position for position, index in enumerate(pool.indices.tolist())}
        gone = [row for row in self.rows if row not in place]
        if gone:
            raise ValueError(
                "the rows of a query that is asked again must be in the pool, found "
                f"{listed([f'row {row}' for row in gone])} labeled, held out or no "
                "candidates; begin with the rows that the other run began with"
            )
        return torch.tensor([place[row] for row in self.rows[:num]], dtype=torch.int64)


def replay(run_dir: str | Path) -> Strategy:
    """Make a strategy that asks again what another run has asked and got labels for.

    The run must begin with the same data and the same labeled rows; its model and its training may
    be others. ``compare --queries_from RUN_DIR`` sees to that.

    Args:
        run_dir: The folder of the other run.

    Raises:
        ValueError: when there is no run, or nothing was labeled in it.
    """
    stages = [
        (num if number else 0, _strategy(rows))
        for number, (num, rows) in enumerate(Recorded.of(run_dir).queries)
    ]
    first = stages[0][1]
    return Strategy(
        first.select, {}, stages=tuple(stages), make=replay, name="replay", may_give_fewer=True
    )


def _strategy(rows: Sequence[int]) -> Strategy:
    return Strategy(Again(tuple(rows)), {}, name="replay", may_give_fewer=True)


ON_REQUEST["replay"] = replay
