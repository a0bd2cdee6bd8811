"""Tells how far a long choice has come, to whoever listens; a selector itself prints nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[int, int], None]
"""``listener(done, total)``; a choice of several parts begins again at each."""

_listener: ContextVar[Listener | None] = ContextVar("_listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Inside the block, in this thread, ``listener`` hears of what is reported.

    >>> with listening(lambda done, total: print(done, "of", total)):
    ...     report(3, 10)
    3 of 10
    """
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def report(done: int, total: int) -> None:
    """Tells the listener, if there is one, that ``done`` of ``total`` steps are over."""
    if (listener := _listener.get()) is not None:
        listener(done, total)
