"""Carry out one run in this process: write its output to a file, return the reason of a failure."""

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from al_lightning.compare.runs import Run

LOG = "output.txt"
"""The file in a run's folder that holds its output."""

OneRun = Callable[[Run], None]
"""Begins a run or goes on with it, until it is over. It is pickled for another process."""

Outcomes = dict[Run, str | None]
"""The reason why each run failed; None for a run that did not."""


def work(one_run: OneRun, run: Run) -> str | None:
    """Carry out a run; return the reason of a failure, and write its output into its folder."""
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
    """Append all output of the process, also of other languages, to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    before = {number: os.dup(number) for number in (1, 2)}
    try:
        with open(path, "ab") as file:
            for number in before:
                os.dup2(file.fileno(), number)
            with (  # line by line, so that lines are there when the process is killed
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
