"""TensorBoard: learning curves whose x axis is the number of labels, and the two pictures."""

from typing import TYPE_CHECKING

from al_lightning.monitor.monitor import Loop, Monitor
from al_lightning.monitor.pictures import progress_figure, query_figure
from al_lightning.monitor.tables import known_labels
from al_lightning.run.records import CycleResult

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

SUFFIX = ".active"
"""Ends the names of our files, so that others in the folder are left alone."""


class TensorBoard(Monitor):
    """Writes ``active/...`` into the run folder; each cycle's own curves are beside it.

    A resumed run removes the files of its predecessors and writes them anew, so every point is
    there once. A TensorBoard that has read the old files is told to purge them.
    """

    def __init__(self) -> None:
        self._writer: SummaryWriter | None = None

    def on_start(self, loop: Loop) -> None:
        if loop.run_dir is None:
            return
        # Files are read in the order of the times in their names, and clocks can jump back.
        for earlier in loop.run_dir.glob(f"events.out.tfevents.*{SUFFIX}"):
            earlier.unlink()
        from torch.utils.tensorboard import SummaryWriter  # a second that not every run needs

        self._writer = SummaryWriter(loop.run_dir, purge_step=0, filename_suffix=SUFFIX)
        for result in loop.results:
            self.on_cycle(loop, result)
            if result.query is not None and any(known_labels(loop, result.query.indices)):
                self.on_labels(loop, result)
        if loop.finished:
            self.on_end(loop)

    def on_cycle(self, loop: Loop, result: CycleResult) -> None:
        if self._writer is None:
            return
        for name, value in result.metrics.items():
            self._writer.add_scalar(f"active/{name}", value, result.num_labeled)
        self._writer.flush()

    def on_labels(self, loop: Loop, result: CycleResult) -> None:
        figure = query_figure(loop, result)
        if self._writer is not None and figure is not None:
            self._writer.add_figure("active/queries", figure, result.num_labeled)
            self._writer.flush()

    def on_end(self, loop: Loop) -> None:
        if self._writer is None:
            return
        figure, last = progress_figure(loop.results), loop.results[-1].num_labeled
        self._writer.add_figure("active/progress", figure, last)
        self._writer.close()
