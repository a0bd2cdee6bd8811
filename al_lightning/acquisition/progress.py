"""Progress of a long choice, told to a listener; a selector itself prints nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[int, int], None]
"""Called as ``listener(done, total)``; a choice of several parts counts anew in each part."""

_listener: ContextVar[Listener | None] = ContextVar("_listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Call ``listener`` for each report inside the block, in this thread.

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
    """Tell the listener, if there is one, that ``done`` of ``total`` steps are over."""
    if (listener := _listener.get()) is not None:
        listener(done, total)
