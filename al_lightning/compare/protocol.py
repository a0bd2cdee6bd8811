"""The protocol that all runs of a comparison share: their journals, and ``protocol.json``.

A journal holds the loop's arguments, the module's plain hyperparameters and checksums of the data.
It does not hold the classes, callbacks and functions that made them; ``protocol.json`` does.
"""

import json
import re
import sys
from collections.abc import Mapping
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

from al_lightning.compare.recipe import Recipe
from al_lightning.compare.runs import Journals, Run
from al_lightning.run.folder import write_whole
from al_lightning.run.journal import Record
from al_lightning.run.records import listed
from al_lightning.settings import Settings
from al_lightning.training.provenance import Provenance

PROTOCOL = "protocol.json"
PLAIN = (bool, int, float, type(None))
PUBLIC = ("", ".acquisition", ".strategies", ".statistics", ".mnist", ".compare", ".monitor")
"""Packages whose names stay, whichever file holds what they name."""


def described(value: Any) -> Any:
    """Describe a value in plain values: functions and classes by name, objects by attributes.

    A description is described by itself, except that old names of the package become new ones.

    Args:
        value: A class, a function, a ``partial``, or an argument of one.

    >>> described(partial(sorted, reverse=True, key=str))
    {'function': 'builtins.sorted', 'arguments': [], 'reverse': True, 'key': 'builtins.str'}
    >>> described("al_lightning.models.LitSimpleCNN")
    'al_lightning.LitSimpleCNN'
    """
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, str):
        return _public_name(value)
    if isinstance(value, partial):
        arguments = {"arguments": value.args, **value.keywords}
        return {"function": described(value.func), **described(arguments)}
    if isinstance(value, Mapping):
        return {str(name): described(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [described(part) for part in value]
    if hasattr(value, "__qualname__"):
        return _public_name(f"{_module_name(value.__module__)}.{value.__qualname__}")
    if isinstance(value, Path):  # where the data is does not matter; their sums are compared
        return "a path"
    plain = (*PLAIN, str)
    attributes = {n: v for n, v in getattr(value, "__dict__", {}).items() if isinstance(v, plain)}
    return described({"class": type(value), **attributes})


def _module_name(module: str) -> str:
    """Return the name that a program's own file has when another program imports it."""
    main = sys.modules["__main__"]
    if module != "__main__":
        return module
    return main.__spec__.name if main.__spec__ else Path(getattr(main, "__file__", module)).stem


def _public_name(name: str) -> str:
    """Return the name under which the package exports what one of its files defines."""
    package, _, last = name.rpartition(".")
    if re.fullmatch(r"al_lightning(\.\w+)*", package):
        for public in PUBLIC:
            if last in import_module(f"al_lightning{public}").__all__:
                return f"al_lightning{public}.{last}"
    return name


def check_same_protocol(recipe: Recipe, begun: Journals, out: Path) -> None:
    """Check that every run in ``out`` began as it would begin now, also runs not asked for.

    Raises:
        ValueError: names each run that began otherwise, and the differences.
    """
    beginnings = cache(recipe.beginnings)
    wrong = []
    for run, (start, *_) in begun.items():
        if different := _began_otherwise(recipe, run, start, beginnings(run.seed)):
            wrong.append(f"{run}: {'; '.join(different[:4])}")
    path = out / PROTOCOL
    if begun and path.exists() and not wrong:
        began = described(json.loads(path.read_text(encoding="utf-8")))
        wrong = Provenance(began).differences(Provenance(described(recipe.protocol)))
    if wrong:
        raise ValueError(
            f"all runs in {out} must follow one protocol, found "
            f"{listed(wrong, 4, '; ')}; give what they began with, or compare in another folder"
        )


def _began_otherwise(
    recipe: Recipe, run: Run, start: Record, beginnings: Mapping[str, Provenance]
) -> list[str]:
    by_command_line = start["settings"] is not None
    if by_command_line != recipe.by_command_line:
        who = "a" if by_command_line else "no"
        return [f"{who} command line began it, which makes other weights of the same seed"]
    began = Provenance(start["config"])
    if by_command_line:
        began = Provenance.of_command_line(start["settings"])
    if run.strategy in beginnings:
        return began.differences(beginnings[run.strategy])
    # Not asked for: what is a strategy's own may be anything.
    groups = next(iter(beginnings.values())).groups
    own = {name: began.groups["active"].get(name) for name in Settings.names("of_strategy")}
    return began.differences(Provenance({**groups, "active": {**groups["active"], **own}}))


def check_shared(journals: Journals) -> None:
    """Raise ValueError when runs at one seed began with other labels, weights or data.

    Names two of them.
    """
    begun: dict[int, tuple[Run, Provenance]] = {}
    for run, (start, *_) in journals.items():
        config = start["config"]
        parts = {"data": config["data"], "hyperparameters": config["model"]}
        ours = Provenance({"labels": start["split"], "weights": start["weights"], **parts})
        other, theirs = begun.setdefault(run.seed, (run, ours))
        if different := theirs.differences(ours):
            what = re.split("[.:]", different[0])[0]
            raise ValueError(
                f"runs at one seed must begin alike, found other initial {what} in {run} than "
                f"in {other}; make model and data by functions that draw from the seed alone"
            )


def write_protocol(recipe: Recipe, out: Path) -> None:
    """Write the shared parts of all runs, for :func:`check_same_protocol`."""
    text = json.dumps(described(recipe.protocol), indent=1) + "\n"
    write_whole(out / PROTOCOL, text.encode())
