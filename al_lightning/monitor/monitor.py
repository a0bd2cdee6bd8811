"""The base class of all monitors."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from al_lightning.data.datamodule import ActiveDataModule
from al_lightning.run.journal import Record
from al_lightning.run.records import CycleResult, Query
from al_lightning.settings import Settings


class Watched(Protocol):
    """Lists the parts of :class:`~al_lightning.ActiveLearningLoop` that a monitor may read."""

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

    All that it shows should derive from ``loop.results``. Then a resumed run shows the same as one
    that was never interrupted.
    """

    def on_start(self, loop: Watched) -> None:
        """Hear that a process begins or resumes; ``loop.results`` holds the finished cycles."""

    def on_cycle(self, loop: Watched, result: CycleResult) -> None:
        """Hear that a cycle was fitted, tested and, unless it is the last, has asked."""

    def on_wait(self, loop: Watched, query: Query) -> None:
        """Hear that the labels of ``query`` come later, and that the run stops until then."""

    def on_labels(self, loop: Watched, result: CycleResult) -> None:
        """Hear that the labels of ``result.query`` arrived."""

    def on_end(self, loop: Watched) -> None:
        """Hear that no cycle follows."""
