"""Rows and classes that came after a run had begun, as its journal holds them.

The record of options that change, :data:`~al_lightning.run.journal.SETTINGS`, may also say under
``grown`` that the data has more rows by now, and under ``classes`` that it has a further class.
"""

from collections.abc import Sequence

from al_lightning.run.journal import Record


def num_rows_of(records: Sequence[Record]) -> int:
    """Return the number of rows that a run knows by now."""
    num: int = records[0]["split"]["num_rows"]
    for record in records:
        num = (record.get("grown") or {"num_rows": num})["num_rows"]
    return num


def classes_of(records: Sequence[Record]) -> list[str] | None:
    """Return the names of the classes that a run knows by now; None when it has no names."""
    classes: list[str] | None = records[0]["config"]["data"]["classes"]
    for record in records:
        classes = record.get("classes") or classes
    return classes


def last_fit(records: Sequence[Record]) -> Record | None:
    """Return the last fit that knew all classes; None when there is none."""
    found = None
    for record in records:
        if record["event"] == "fit":
            found = record
        elif record.get("classes"):
            found = None
    return found
