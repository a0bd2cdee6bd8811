"""What a run began with, in plain values; a run is resumed with the same or not at all."""

import json
import os
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, cast

import lightning as L

from al_lightning.data.datamodule import ActiveDataModule
from al_lightning.data.fingerprint import fingerprint

TRAINER = (
    "max_epochs",
    "max_steps",
    "min_epochs",
    "min_steps",
    "precision",
    "accumulate_grad_batches",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "limit_train_batches",
    "reload_dataloaders_every_n_epochs",
)
"""What is compared of a Trainer; its callbacks cannot be."""


def described(
    active: Mapping[str, Any], model: L.LightningModule, data: ActiveDataModule, trainer: L.Trainer
) -> dict[str, Any]:
    """The configuration of a run, by group.

    Args:
        active: The loop's own.
        model: Its plain hyperparameters are taken, where it saved them.
        data: Its length, batch and epoch size and the fingerprints of its data sets' rows.
        trainer: One such as the run uses.
    """
    others = {"val": data.sets.val, "test": data.sets.test}
    groups = {
        "active": dict(active),
        "model": {name: v for name, v in model.hparams.items() if _is_plain(name, v)},
        "data": {
            "rows": len(data.pool.labeled_N),
            "batch_size": data.batch_size,
            "epoch_size": data.epoch_size,
            "classes": data.classes,
            "names": _checksum_of_names(data),
            "fingerprint": fingerprint(data.sets.pool),
            **{
                f"{name}_fingerprint": fingerprint(dataset)
                for name, dataset in others.items()
                if dataset is not None
            },
        },
        "trainer": {name: getattr(trainer, name) for name in TRAINER},
    }
    return cast(dict[str, Any], json.loads(json.dumps(groups)))


def _checksum_of_names(data: ActiveDataModule) -> str | None:
    """Of all of them: a name that changed or is new moves other rows, and labels to wrong ones."""
    paths = getattr(data.sets.pool, "paths", None)
    if paths is None:
        return None
    crc = 0
    for path in paths:
        crc = zlib.crc32(os.fsencode(path) + b"\0", crc)
    return f"{crc:08x}"


def check_same_beginning(began: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Compares what a run began with to what it is resumed with.

    Raises:
        ValueError: lists each key that differs, with both values.
    """
    different = list(differences(began, now))
    if different:
        more = f" and {len(different) - 8} more" if len(different) > 8 else ""
        raise ValueError(
            f"a run must be resumed as it began, found {'; '.join(different[:8])}{more}; give what "
            "it began with, or start anew in another folder"
        )


def differences(began: Any, now: Any, key: str = "") -> Iterator[str]:
    """``key: began with X, now Y`` for each key whose value differs, in nested mappings.

    Rows without a fingerprint on one side are passed over.

    >>> list(differences({"data": {"rows": 3, "seed": 1}}, {"data": {"rows": 4, "seed": 1}}))
    ['data.rows: began with 3, now 4']
    """
    if not (isinstance(began, Mapping) and isinstance(now, Mapping)):
        if json.dumps(began) != json.dumps(now):  # which has NaN equal itself
            yield f"{key}: began with {began!r}, now {now!r}"
        return
    for name in sorted({*began, *now}, key=str):
        if not key.endswith("fingerprint") or (name in began and name in now):
            inner = f"{key}.{name}" if key else str(name)
            yield from differences(began.get(name), now.get(name), inner)


def _is_plain(name: str, value: Any) -> bool:
    """Whether a hyperparameter is the user's own, and can be written as JSON."""
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return not name.startswith("_")  # LightningCLI adds some of its own
