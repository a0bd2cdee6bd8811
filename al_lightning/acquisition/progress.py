"""Tells how far a long choice has come, to whoever listens; a selector itself prints nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[int, int], None]
"""``listener(done, total)``, after each step."""

_listener: ContextVar[Listener | None] = ContextVar("_listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Inside the block, in this thread, ``listener`` hears of every step that is :func:`counted`.

    >>> with listening(lambda done, total: print(done, "of", total)):
    ...     squares = [step**2 for step in counted(2)]
    1 of 2
    2 of 2
    """
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def counted(num: int) -> Iterator[int]:
    """``range(num)``; the listener hears of each step once it is done."""
    listener = _listener.get()
    for step in range(num):
        yield step
        if listener is not None:
            listener(step + 1, num)
