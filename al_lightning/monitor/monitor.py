"""The base class of whatever watches a loop."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from al_lightning.data.datamodule import ActiveDataModule
from al_lightning.run.journal import Record
from al_lightning.run.records import CycleResult, Query
from al_lightning.settings import Settings


class Watched(Protocol):
    """What a monitor may read of a loop; see :class:`~al_lightning.ActiveLearningLoop`."""

    settings: Settings
    data: ActiveDataModule

    @property
    def run_dir(self) -> Path | None: ...
    @property
    def finished(self) -> bool: ...
    @property
    def records(self) -> Sequence[Record]: ...
    @property
    def results(self) -> list[CycleResult]: ...


class Monitor:
    """Watches a loop, on the first rank alone; may read everything, and changes nothing.

    What it shows should derive from ``loop.results``, so that a resumed run shows what an
    uninterrupted one does.
    """

    def on_start(self, loop: Watched) -> None:
        """Come before the first cycle of this process; ``loop.results`` holds those resumed."""

    def on_cycle(self, loop: Watched, result: CycleResult) -> None:
        """Hear of a cycle that was fitted, tested and, but for the last, asked."""

    def on_wait(self, loop: Watched, query: Query) -> None:
        """Hear that labels of ``query`` are to come later, and the run stops until then."""

    def on_labels(self, loop: Watched, result: CycleResult) -> None:
        """Hear that the labels of ``result.query`` arrived."""

    def on_end(self, loop: Watched) -> None:
        """Hear that no cycle follows."""
