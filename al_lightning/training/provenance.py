"""The origin of a run, in plain values: one answer to "is it the same experiment?"."""

import json
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import lightning as L

from al_lightning.data.datamodule import ActiveDataModule
from al_lightning.data.row_checks import check_rows
from al_lightning.run.records import listed
from al_lightning.settings import Settings

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
"""Attributes of a Trainer that are compared; its callbacks cannot be."""

PLACE = ("data_dir", "folder", "labels", "test_folder", "root", "num_workers", "pin_memory")
"""Names of arguments that say where data is and how it is read."""

FREE = {
    "active": ("run_dir", *Settings.names("free")),
    "data": (*PLACE, "eval_batch_size"),
    "datamodule": PLACE,
    "trainer": (
        "accelerator",
        "devices",
        "num_nodes",
        "strategy",
        "plugins",
        "profiler",
        "enable_progress_bar",
        "enable_model_summary",
        "log_every_n_steps",
    ),
}
"""Keys that may change when a run goes on, by group: place and way of computing, who labels."""


DEFAULTS: dict[str, dict[str, Any]] = {
    "active": {
        "task": Settings.task,
        "ckpt_path": Settings.ckpt_path,
        "acquisition_growth": Settings.acquisition_growth,
        "labels_in_doubt": Settings.labels_in_doubt,
    },
    "data": {"name": "MNIST", "steps_per_epoch": None, "unlabeled_batch_size": None},
    "model": {"unlabeled": "fixmatch", "threshold": 0.95},
}
"""Options that earlier versions did not write, also of this package's own module and data."""

LATER_KNOWN = ("data.classes", "data.names", "datamodule")
"""Keys that may be None at the beginning: earlier versions did not find them."""


@dataclass(frozen=True)
class Provenance:
    """Holds all parts of an experiment, by group, in values that JSON takes.

    ``groups`` come from a run (:meth:`of_run`), from a command line, or from the journal of either.
    Two are the same experiment when :meth:`differences` is empty.
    """

    groups: Mapping[str, Any]

    @classmethod
    def of_run(
        cls,
        active: Mapping[str, Any],
        model: L.LightningModule,
        data: ActiveDataModule,
        trainer: L.Trainer,
    ) -> "Provenance":
        """Describe a run before it begins.

        Args:
            active: The loop's options.
            model: Gives its plain hyperparameters, when it saved them.
            data: Gives its length, batch and epoch size, and the fingerprints of its data sets.
            trainer: A Trainer like those of the run.

        Raises:
            ValueError: as :func:`~al_lightning.data.row_checks.check_rows`, which also warns.
        """
        groups: dict[str, Any] = {
            "active": dict(active),
            "model": {name: v for name, v in model.hparams.items() if _is_plain(name, v)},
            "data": {
                "rows": data.row_labels.num_began or len(data.pool.labeled_N),
                "batch_size": data.batch_size,
                "epoch_size": data.epoch_size,
                "steps_per_epoch": data.steps_per_epoch,
                "unlabeled_batch_size": data.unlabeled_batch_size,
                "drop_last": data.options(training=True).get("drop_last"),
                "classes": data.classes,
                "names": _checksum_of_names(data),
                **check_rows(data.row_labels),
            },
            "trainer": {name: getattr(trainer, name) for name in TRAINER},
        }
        if data.hparams:
            groups["datamodule"] = {n: v for n, v in data.hparams.items() if _is_plain(n, v)}
        return cls(json.loads(json.dumps(groups)))

    @classmethod
    def of_command_line(cls, settings: Mapping[str, Any]) -> "Provenance":
        """Take the groups of a command line's configuration; leave out keys outside of groups."""
        return cls({name: group for name, group in settings.items() if isinstance(group, Mapping)})

    def differences(self, now: "Provenance") -> list[str]:
        """Return ``key: began with X, now Y`` for each key that must not change and did.

        Rows without a fingerprint on one side are passed over. So are classes that were added
        behind the others; the data module knows whether they may.

        >>> began, now = ({"data": {"rows": rows, "folder": "."}} for rows in (3, 4))
        >>> Provenance(began).differences(Provenance(now))
        ['data.rows: began with 3, now 4']
        """
        classes = [_classes(one.groups.get("data") or {}) for one in (self, now)]
        return list(_differences(_fixed(self.groups), _fixed(_before(now.groups, *classes))))

    def check_same(self, now: "Provenance") -> None:
        """Raise ValueError when a run is not resumed as it began; list up to eight keys.

        Budgets and the way to choose later queries may change, see :class:`Settings`.
        """
        later = Settings.names("later")
        different = [one for one in self.differences(now) if _key_of(one) not in later]
        if different:
            raise ValueError(
                f"a run must be resumed as it began, found {listed(different, 8, '; ')}; give what "
                "it began with, or start anew in another folder"
            )


def _key_of(difference: str) -> str:
    """Return ``num_cycles`` of ``active.num_cycles: began with ...``; of other groups, the key."""
    group, _, name = difference.partition(":")[0].partition(".")
    return name.partition(".")[0] if group == "active" else difference


def _fixed(groups: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what may change; an option that came after a run began has its default there."""
    return {
        group: _without({**DEFAULTS.get(group, {}), **values}, FREE.get(group, ()))
        if isinstance(values, Mapping)
        else values
        for group, values in groups.items()
    }


def _without(values: Mapping[str, Any], free: tuple[str, ...]) -> dict[str, Any]:
    """Leave out these names, also among the arguments of a class that is named by its path."""
    left = {name: value for name, value in values.items() if name not in free}
    if isinstance(left.get("init_args"), Mapping):
        left["init_args"] = _without(left["init_args"], free)
    return left


def _classes(data: Mapping[str, Any]) -> Any:
    return data.get("init_args", data).get("classes")


def _before(groups: Mapping[str, Any], began: Any, now: Any) -> Mapping[str, Any]:
    """Return the groups as they were before further classes came, in all that follows from them."""
    if not (isinstance(began, list) and isinstance(now, list) and now[: len(began)] == began):
        return groups

    def earlier(name: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {inner: earlier(inner, one) for inner, one in value.items()}
        is_number = "class" in name and value == len(now)
        return len(began) if is_number else began if value == now else value

    return {group: earlier("", values) for group, values in groups.items()}


def _differences(began: Any, now: Any, key: str = "") -> Iterator[str]:
    if not (isinstance(began, Mapping) and isinstance(now, Mapping)):
        was_unknown = began is None and key in LATER_KNOWN
        if json.dumps(began) != json.dumps(now) and not was_unknown:  # NaN equals itself there
            yield f"{key}: began with {began!r}, now {now!r}"
        return
    for name in sorted({*began, *now}, key=str):
        if not key.endswith("fingerprint") or (name in began and name in now):
            inner = f"{key}.{name}" if key else str(name)
            yield from _differences(began.get(name), now.get(name), inner)


def _checksum_of_names(data: ActiveDataModule) -> str | None:
    """Return a checksum of all names: with another name, labels would go to wrong rows."""
    paths = data.all_names
    if paths is None:
        return None
    crc = 0
    for path in paths[: data.row_labels.num_began]:
        crc = zlib.crc32(os.fsencode(path) + b"\0", crc)
    return f"{crc:08x}"


def _is_plain(name: str, value: Any) -> bool:
    """Tell whether a hyperparameter is the user's own and can be written as JSON."""
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return not name.startswith("_")  # LightningCLI adds some of its own
