"""Monitors show a run: tables, pictures, TensorBoard and a line for each cycle.

Each monitor derives all that it shows from ``loop.results``. So a resumed run shows the same as one
that was never interrupted.
"""

from al_lightning.monitor.console import Console
from al_lightning.monitor.defaults import default_monitors
from al_lightning.monitor.exchange import Exchange
from al_lightning.monitor.loggers import Loggers
from al_lightning.monitor.monitor import Monitor
from al_lightning.monitor.notebook import Notebook
from al_lightning.monitor.pictures import Pictures
from al_lightning.monitor.report import Report
from al_lightning.monitor.tables import Tables
from al_lightning.monitor.tensorboard import TensorBoard

__all__ = [
    "Console",
    "Exchange",
    "Loggers",
    "Monitor",
    "Notebook",
    "Pictures",
    "Report",
    "Tables",
    "TensorBoard",
    "default_monitors",
]
