"""Compare strategies over seeds: runs side by side, statistics, tables and pictures.

``study`` has all the steps. Each run is an ordinary run folder, so nothing is done twice.
"""

from al_lightning.compare.cli import CompareCLI
from al_lightning.compare.comparison import Comparison
from al_lightning.compare.study import RunsFailedError, compare

__all__ = ["CompareCLI", "Comparison", "RunsFailedError", "compare"]
