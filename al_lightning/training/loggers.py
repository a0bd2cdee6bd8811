"""The user's loggers see one long run: their steps go on from cycle to cycle."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import lightning as L
from lightning.pytorch.loggers import Logger


class UserLoggers:
    """Knows the loggers that the user's Trainers came with.

    Each cycle has a new Trainer. A logger that it was given in an earlier cycle too, or one made
    just like it, is used again: a second one would begin its file anew, or a second experiment.
    """

    def __init__(self) -> None:
        self._known: list[tuple[type, dict[str, Any], Logger]] = []

    @property
    def users(self) -> list[Logger]:
        """The user's loggers, those of the first cycle first."""
        return [logger for _, _, logger in self._known]

    def take(self, trainer: L.Trainer, ours: Logger) -> None:
        """Give a new Trainer the loggers of the earlier ones.

        Args:
            trainer: New.
            ours: Not of the user, and left alone.
        """
        trainer.loggers = [one if one is ours else self._first(one) for one in trainer.loggers]

    @contextmanager
    def continued(self, trainer: L.Trainer, step: int) -> Iterator[None]:
        """Add ``step`` to all steps that are logged to the user's loggers inside the block."""
        users = [one for _, _, one in self._known if one in trainer.loggers]
        for one in users:
            one.log_metrics = partial(_shifted, one.log_metrics, step)  # type: ignore[method-assign]
        try:
            yield
        finally:
            for one in users:
                del one.log_metrics

    def _first(self, logger: Logger) -> Logger:
        made = {name: _plain(value) for name, value in vars(logger).items()}
        for kind, known, first in self._known:
            if logger is first or (type(logger) is kind and made == known):
                return first
        self._known.append((type(logger), made, logger))
        return logger


def _plain(value: Any) -> Any:
    """Return what tells where a logger writes: plain values, and which other objects it has."""
    is_plain = value is None or isinstance(value, str | int | float | dict | os.PathLike)
    return repr(value) if is_plain else id(value)


def _shifted(log: Any, first: int, metrics: Any, step: int | None = None, **given: Any) -> None:
    log(metrics, step=None if step is None else first + step, **given)
