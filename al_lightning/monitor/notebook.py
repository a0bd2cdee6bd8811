"""A run in a Jupyter notebook: one table, one curve and the last query, in the place of lines."""

import base64
import sys
import time
from collections.abc import Sequence
from html import escape
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from al_lightning.monitor.console import Console
from al_lightning.monitor.drawing import drawn
from al_lightning.monitor.monitor import Loop
from al_lightning.monitor.pictures import progress_figure, query_figure
from al_lightning.run.records import CycleResult, Results

SECONDS = 0.2
"""Between two changes of the progress bar."""


def in_notebook() -> bool:
    """Tell whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


class Notebook(Console):
    """Shows the cycles so far in one place of the cell's output, and changes it in place.

    It is a table of the metrics, the panels of ``progress.png``, and the first rows of the last
    query with their labels, where they are images. Instructions while the run waits for labels are
    printed.
    """

    def __init__(self) -> None:
        self._place = Place()
        self._query = b""

    def on_start(self, loop: Loop) -> None:
        self._show(loop)

    def on_cycle(self, loop: Loop, result: CycleResult) -> None:
        self._show(loop)

    def on_labels(self, loop: Loop, result: CycleResult) -> None:
        super().on_labels(loop, result)
        figure = query_figure(loop, result)
        self._query = b"" if figure is None else drawn(figure)
        self._show(loop)

    def on_end(self, loop: Loop) -> None:
        pass

    def _show(self, loop: Loop) -> None:
        results = loop.results
        if results:
            pictures = [drawn(progress_figure(results)), self._query]
            shown = [_image(picture) for picture in pictures if picture]
            self._place.show("".join([table_of(results), *shown]))


class Place:
    """Shows HTML in one place of a cell's output; in another cell, in a new place."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._cell: Any = None

    def show(self, content: str) -> None:
        """Replace what is shown."""
        ipython: Any = sys.modules["IPython"]  # a notebook has it
        cell, html = ipython.get_ipython().execution_count, ipython.display.HTML(content)
        if self._handle is None or cell != self._cell:
            self._handle, self._cell = ipython.display.display(html, display_id=True), cell
        else:
            self._handle.update(html)


def table_of(results: Sequence[CycleResult]) -> str:
    """Return an HTML table of the results, a row a cycle."""
    return Results(results)._repr_html_()


def _image(png: bytes) -> str:
    content = base64.b64encode(png).decode()
    return f'<img style="max-width: 100%" src="data:image/png;base64,{content}">'


class NotebookBar(Callback):
    """Shows one progress bar for all cycles of a run, and nothing once they are over."""

    def __init__(self) -> None:
        self._place = Place()
        self._last = 0.0

    def on_train_batch_end(self, trainer: L.Trainer, *of_batch: Any, **more: Any) -> None:
        epochs = f" of {trainer.max_epochs}" if (trainer.max_epochs or 0) > 0 else ""
        what = f"fit: epoch {trainer.current_epoch + 1}{epochs}"
        self._tell(what, of_batch[3] + 1, trainer.num_training_batches)

    def on_test_batch_end(self, trainer: L.Trainer, *of_batch: Any, **more: Any) -> None:
        self._tell("test", of_batch[3] + 1, sum(trainer.num_test_batches))

    def on_predict_batch_end(self, trainer: L.Trainer, *of_batch: Any, **more: Any) -> None:
        self._tell("read the pool", of_batch[3] + 1, sum(trainer.num_predict_batches))

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self._last:
            self._place.show("")
            self._last = 0.0

    def _tell(self, what: str, done: int, total: float) -> None:
        if time.monotonic() - self._last > SECONDS:
            self._last = time.monotonic()
            bar = f'<progress value="{done}" max="{total}"></progress>'
            self._place.show(f"{bar} {escape(what)}, batch {done} of {total}")
