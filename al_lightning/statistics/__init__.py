"""Learning curves in numbers: areas, labels needed, means over seeds, tests between strategies."""

from al_lightning.statistics.calibration import calibration_error, temperature
from al_lightning.statistics.curves import (
    Curve,
    accuracy_at,
    aubc,
    label_efficiency,
    labels_to,
    labels_to_interpolated,
    mean_curve,
    quartiles,
)
from al_lightning.statistics.forecast import Forecast, LabelsNeeded, Outlook, forecast
from al_lightning.statistics.intervals import Interval, PairedTest, mean_interval, paired_t_test
from al_lightning.statistics.penalty import checkpoints, penalty_matrix

__all__ = [
    "Curve",
    "Forecast",
    "Interval",
    "LabelsNeeded",
    "Outlook",
    "PairedTest",
    "accuracy_at",
    "aubc",
    "calibration_error",
    "checkpoints",
    "forecast",
    "label_efficiency",
    "labels_to",
    "labels_to_interpolated",
    "mean_curve",
    "mean_interval",
    "paired_t_test",
    "penalty_matrix",
    "quartiles",
    "temperature",
]
