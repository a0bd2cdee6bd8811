"""Carry out one run in the process at hand: output into a file, the reason of a failure back."""

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from al_lightning.compare.runs import Run

LOG = "output.txt"
"""In a run's folder: what it printed."""

OneRun = Callable[[Run], None]
"""Begins a run or goes on with it, until it is over. It is pickled for another process."""

Outcomes = dict[Run, str | None]
"""By run, the reason why it failed; None where it did not."""


def work(one_run: OneRun, run: Run) -> str | None:
    """Carry out a run and return why it failed; write what it prints into its folder."""
    run.folder.mkdir(parents=True, exist_ok=True)
    with _output_to(run.folder / LOG):
        try:
            one_run(run)
        except SystemExit as error:  # the command line's; it has printed why
            why = error.__cause__
            return str(why) if isinstance(why, Exception) else f"exit status {error.code}"
        except Exception as error:
            traceback.print_exc()
            return f"{type(error).__name__}: {error}"
    return None


@contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Append what the process prints, by whatever means, to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    before = {number: os.dup(number) for number in (1, 2)}
    try:
        with open(path, "ab") as file:
            for number in before:
                os.dup2(file.fileno(), number)
            with (  # by lines, which are there when the process is killed
                open(1, "w", 1, closefd=False) as out,
                open(2, "w", 1, closefd=False) as err,
                contextlib.redirect_stdout(out),
                contextlib.redirect_stderr(err),
            ):
                yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, kept in before.items():
            os.dup2(kept, number)
            os.close(kept)
