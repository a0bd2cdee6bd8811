"""Ctrl-C, SIGTERM and a full disk end a program cleanly, and it says how to go on."""

import errno
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dis import opmap
from types import FrameType
from typing import NoReturn


class Terminated(SystemExit):
    """Ends the program because SIGTERM arrived."""


@contextmanager
def stopping(
    how_to_go_on: Callable[[], str], *, tells: Callable[[], bool] = lambda: True
) -> Iterator[None]:
    """Exit with 128 + the signal's number when a signal stops the block; with 1 on a full disk.

    Lightning calls the handler that it finds after its own. So SIGTERM ends a fit, a test or a
    prediction at once, and also the code between them. This is safe, because the journal and all
    files are either complete or absent.

    Args:
        how_to_go_on: Returns a sentence for the user, which is printed.
        tells: Returns False in a process that prints nothing, as ranks other than the first.
    """
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _terminate) if in_main else None
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as error:
        # Lightning turns a KeyboardInterrupt into exit status 1.
        if isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt):
            _leave(128 + signal.SIGINT, f"stopped by SIGINT; {how_to_go_on()}", error, tells())
        if isinstance(error, Terminated):
            _leave(128 + signal.SIGTERM, f"stopped by SIGTERM; {how_to_go_on()}", error, tells())
        raise
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _leave(1, f"{error}; make room; {how_to_go_on()}", error, tells())
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before)


def is_refusal(error: BaseException) -> bool:
    """Tell whether this package refused something, in a sentence for the user.

    Such an error comes from a ``raise`` statement of ours, or from the system when we asked for a
    file. Any other error, such as a slip in a user's module, needs its traceback.
    """
    own_package = __name__.partition(".")[0]
    trace = error.__traceback__
    is_refusal = False
    while trace is not None:
        frame = trace.tb_frame
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if package == own_package:
            is_raise = frame.f_code.co_code[trace.tb_lasti] == opmap["RAISE_VARARGS"]
            is_refusal = is_raise or isinstance(error, OSError)
        elif package not in sys.stdlib_module_names:
            is_refusal = False
        trace = trace.tb_next
    return is_refusal


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated(128 + number)


def _leave(status: int, why: str, error: BaseException, tells: bool) -> NoReturn:
    if tells:
        print(why, file=sys.stderr, flush=True)
    raise SystemExit(status) from error
