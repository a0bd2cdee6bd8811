"""The base class of all monitors."""

from typing import Any

from al_lightning.run.records import CycleResult, Query

Loop = Any
"""An :class:`~al_lightning.ActiveLearningLoop`, which is built on top of the monitors."""


class Monitor:
    """Watches a loop, on the first rank alone; may read everything, and changes nothing.

    All that it shows should derive from ``loop.results``. Then a resumed run shows the same as one
    that was never interrupted.
    """

    def on_start(self, loop: Loop) -> None:
        """Hear that a process begins or resumes; ``loop.results`` holds the finished cycles."""

    def on_cycle(self, loop: Loop, result: CycleResult) -> None:
        """Hear that a cycle was fitted, tested and, unless it is the last, has asked."""

    def on_wait(self, loop: Loop, query: Query) -> None:
        """Hear that the labels of ``query`` come later, and that the run stops until then."""

    def on_labels(self, loop: Loop, result: CycleResult) -> None:
        """Hear that the labels of ``result.query`` arrived."""

    def on_end(self, loop: Loop) -> None:
        """Hear that no cycle follows."""
