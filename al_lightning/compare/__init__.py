"""Strategies x seeds under one protocol: runs side by side, statistics, tables and pictures.

``study`` is the whole path. Each run is an ordinary run folder, so what is there is not done again.
"""

from al_lightning.compare.cli import CompareCLI
from al_lightning.compare.comparison import Comparison
from al_lightning.compare.study import RunsFailedError, compare

__all__ = ["CompareCLI", "Comparison", "RunsFailedError", "compare"]
