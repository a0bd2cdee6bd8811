"""What watches a run when nobody says otherwise."""

from collections.abc import Sequence
from pathlib import Path

from al_lightning.distributed import is_first_rank
from al_lightning.monitor.console import Console
from al_lightning.monitor.exchange import Exchange
from al_lightning.monitor.monitor import Monitor
from al_lightning.monitor.pictures import Pictures
from al_lightning.monitor.tables import Tables
from al_lightning.monitor.tensorboard import TensorBoard


def default_monitors() -> list[Monitor]:
    """Make what watches a run with a folder: tables, TensorBoard, pictures, files, the console."""
    return [Tables(), TensorBoard(), Pictures(), Exchange(), Console()]


def watching(monitors: Sequence[Monitor] | None, run_dir: Path | None) -> list[Monitor]:
    """Return what watches in this process: nothing but on the first rank.

    Args:
        monitors: As the user gave them; the default ones of a run with a folder when not given.
        run_dir: Of the run.
    """
    if not is_first_rank():
        return []
    if monitors is not None:
        return list(monitors)
    return default_monitors() if run_dir is not None else []
