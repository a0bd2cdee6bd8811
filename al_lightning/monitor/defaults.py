"""The monitors of a run for which the user gave none."""

from collections.abc import Sequence
from pathlib import Path

from al_lightning.distributed import is_first_rank
from al_lightning.monitor.console import Console
from al_lightning.monitor.exchange import Exchange
from al_lightning.monitor.loggers import Loggers
from al_lightning.monitor.monitor import Monitor
from al_lightning.monitor.notebook import Notebook, in_notebook
from al_lightning.monitor.pictures import Pictures
from al_lightning.monitor.report import Report
from al_lightning.monitor.tables import Tables
from al_lightning.monitor.tensorboard import TensorBoard


def default_monitors() -> list[Monitor]:
    """Make the monitors of a run with a folder: tables, pictures, TensorBoard, report, console.

    TensorBoard and the user's loggers show the pictures that are there. In a notebook its own
    monitor stands for the console.
    """
    console = Notebook() if in_notebook() else Console()
    return [Tables(), Pictures(), TensorBoard(), Loggers(), Exchange(), Report(), console]


def watching(monitors: Sequence[Monitor] | None, run_dir: Path | None) -> list[Monitor]:
    """Return the monitors of this process; only the first rank has any.

    Args:
        monitors: The monitors that the user gave; when None, a run with a folder has the default
            ones; one without logs to the user's loggers, and shows itself in a notebook.
        run_dir: The run's folder.
    """
    if not is_first_rank():
        return []
    if monitors is not None:
        return list(monitors)
    if run_dir is not None:
        return default_monitors()
    return [Loggers(), Notebook()] if in_notebook() else [Loggers()]
