"""A comparison in which the queries of a run are asked again, under another model or recipe."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.cli import LightningArgumentParser

from al_lightning.cli import ActiveCLI
from al_lightning.data.datamodule import ActiveDataModule
from al_lightning.data.row_checks import check_rows
from al_lightning.strategies.replay import Recorded
from al_lightning.training.provenance import Provenance

FLAG = "--queries_from"


@dataclass(frozen=True)
class Source:
    """Holds the run whose queries are asked again.

    All runs of the comparison begin with its labels and ask for as many rows in each cycle.
    """

    folder: Path
    recorded: Recorded

    @property
    def data_seed(self) -> int:
        """The seed that drew its first labels."""
        seed: int = self.recorded.start["split"]["seed"]
        return seed

    @property
    def flags(self) -> list[str]:
        """Flags by which a command line has its seed and its sizes."""
        sizes = [len(rows) for _, rows in self.recorded.queries]
        return [
            f"--active.seed={self.data_seed}",
            f"--active.acquisition_size={json.dumps(sizes)}",
            f"--active.num_cycles={len(sizes) + 1}",
        ]

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of the loop that asks its queries again."""
        args = {"run_dir": str(self.folder)}
        return {"strategy": "replay", "strategy_args": args, "candidate_size": None}

    def check_data(self, data: ActiveDataModule, trainer: L.Trainer) -> None:
        """Raise ValueError for other data, or other rows to begin with."""
        data.ensure_read(trainer)
        began = {"data": {"fingerprint": self.recorded.start["config"]["data"]["fingerprint"]}}
        now = {"data": {"fingerprint": check_rows(data.row_labels)["fingerprint"]}}
        if different := Provenance(began).differences(Provenance(now)):
            raise ValueError(
                f"queries can be asked again of the same data alone, found {different[0]}; give "
                f"the data of {self.folder}"
            )
        first = self.recorded.start["split"]["labeled_indices"]
        if data.labeled_indices.tolist() != first:
            raise ValueError(
                f"the runs must begin with the {len(first)} labels of {self.folder}, found "
                f"{data.num_labeled} labels, or other ones; split the data as that run does, such "
                f"as --data.initial_labeled_size={len(first)}"
            )


class SplitAsBefore(ActiveCLI):
    """Runs with a split of its own seed, while ``--active.seed`` draws all else."""

    def link_data_seed(self, parser: LightningArgumentParser) -> None:
        """Let the configuration name the seed of the split."""


def source_in(args: Sequence[str]) -> Source | None:
    """Return the run that a command line names; None when it names none.

    Raises:
        ValueError: when there is no run, or nothing was labeled in it.
    """
    for place, text in enumerate(args):
        flag, equals, value = text.partition("=")
        if flag == FLAG:
            folder = Path(value if equals else "".join(args[place + 1 : place + 2])).absolute()
            return Source(folder, Recorded.of(folder))
    return None
