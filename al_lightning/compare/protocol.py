"""What all runs of a comparison share beyond what their journals say: ``protocol.json``.

A journal holds the loop's arguments, the module's plain hyperparameters and sums of the data, but
not which classes, callbacks and functions they came from.
"""

import json
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from al_lightning.run.folder import write_whole
from al_lightning.training.provenance import differences

PROTOCOL = "protocol.json"
PLAIN = (bool, int, float, str, type(None))


def described(value: Any, free: tuple[str, ...] = ()) -> Any:
    """A value in plain ones: functions and classes by name, objects by class and plain attributes.

    Args:
        value: A class, a function, a ``partial`` or whatever they are given.
        free: Names of arguments of a ``partial`` that may differ.

    >>> described(partial(sorted, reverse=True, key=str), free=("key",))
    {'function': 'builtins.sorted', 'arguments': [], 'reverse': True}
    """
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, partial):
        named = {name: described(v) for name, v in value.keywords.items() if name not in free}
        arguments = [described(argument) for argument in value.args]
        return {"function": described(value.func), "arguments": arguments, **named}
    if isinstance(value, Mapping):
        return {str(name): described(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [described(part) for part in value]
    if hasattr(value, "__qualname__"):
        return f"{_module_name(value.__module__)}.{value.__qualname__}"
    if isinstance(value, Path):  # where the data is does not matter; their sums are compared
        return "a path"
    attributes = {n: v for n, v in getattr(value, "__dict__", {}).items() if isinstance(v, PLAIN)}
    return {"class": described(type(value)), **attributes}


def _module_name(module: str) -> str:
    """The name that a program's own file has when another program imports it."""
    main = sys.modules["__main__"]
    if module != "__main__":
        return module
    return main.__spec__.name if main.__spec__ else Path(getattr(main, "__file__", module)).stem


def check_protocol(out: Path, now: dict[str, Any]) -> None:
    """Raises ValueError when the comparison in ``out`` was begun with something else; names it."""
    path = out / PROTOCOL
    if not path.exists():
        return
    different = list(differences(json.loads(path.read_text(encoding="utf-8")), now))
    if different:
        raise ValueError(
            f"all runs in {out} must follow one protocol, found {'; '.join(different[:4])}; give "
            "what the comparison began with, or compare in another folder"
        )


def write_protocol(out: Path, now: dict[str, Any]) -> None:
    """Keeps it for :func:`check_protocol`."""
    write_whole(out / PROTOCOL, (json.dumps(now, indent=1) + "\n").encode())
