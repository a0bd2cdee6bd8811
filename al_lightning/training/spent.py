"""The cost of a run's labels so far, in money, rows and time."""

from al_lightning.data.datamodule import ActiveDataModule
from al_lightning.run.journal import Record
from al_lightning.run.records import labeling_seconds
from al_lightning.run.run import Run


def spent_on_labels(data: ActiveDataModule, run: Run) -> Record:
    """Return the cost of all labels, the rows without one that people looked at, and their time.

    Rows that a person has skipped or called invalid cost as much as a label.

    Raises:
        ValueError: for a cost below zero, or one that is no finite number.
    """
    unreadable = run.start["split"]["invalid"] if run.journal.records else []
    without_label = data.pool.skipped | data.pool.invalid.difference(unreadable)
    rows, costs = [*data.labeled_indices.tolist(), *without_label], data.costs
    return {
        "cost": None if costs is None else sum(costs[row] for row in rows),
        "num_skipped": len(without_label),
        "labeling_seconds": labeling_seconds(run.journal.of("answers")),
    }
