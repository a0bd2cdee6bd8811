"""The labeling page: a server for one run, and what people see of it."""

from importlib import import_module
from typing import Any


def serving() -> Any:
    """Import the server, :mod:`al_lightning.label.page.serving`.

    Raises:
        ValueError: when its packages are missing.
    """
    try:
        import_module("uvicorn")
        return import_module(f"{__name__}.serving")
    except ModuleNotFoundError as error:
        raise ValueError(
            f"the page needs starlette and uvicorn, and {error.name} is missing; install them with "
            "pip install starlette uvicorn"
        ) from error
