"""Ctrl-C and SIGTERM end a program cleanly, with the usual status and a word on how to go on."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from al_lightning.ranks import is_first_rank


class Terminated(SystemExit):
    """SIGTERM arrived."""


@contextmanager
def stopping(how_to_go_on: str) -> Iterator[None]:
    """Exits with 128 + the signal's number once the block was interrupted by one.

    Lightning calls the handler that it finds, after its own, so SIGTERM ends a fit, a test or a
    prediction at once, and whatever runs between them. A journal and files that are whole or absent
    make that safe.

    Args:
        how_to_go_on: A sentence for the user, printed by the first rank.
    """
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _terminate) if in_main else None
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as error:
        # Lightning turns a KeyboardInterrupt into exit status 1.
        if isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt):
            _leave(signal.SIGINT, how_to_go_on)
        if isinstance(error, Terminated):
            _leave(signal.SIGTERM, how_to_go_on)
        raise
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated(128 + number)


def _leave(number: signal.Signals, how_to_go_on: str) -> NoReturn:
    if is_first_rank():
        print(f"stopped by {number.name}; {how_to_go_on}", file=sys.stderr, flush=True)
    raise SystemExit(128 + number)
