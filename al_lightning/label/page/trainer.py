"""The trainer behind the page: who trains the next cycle once a query is closed."""

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Protocol

from al_lightning.run.folder import write_whole
from al_lightning.run.lock import lock, unlock

PROGRAM = "program.json"
"""File in a run folder: the program of this machine that goes on with the run."""


class Trainer(Protocol):
    """Goes on with a run while none of its queries waits for people."""

    goes_on: bool
    """True when it begins the next cycle by itself, so that the page must stay."""

    def begin(self) -> None:
        """Train the next cycle; the query was closed."""

    def is_at_work(self) -> bool:
        """Tell whether somebody trains, or writes a query down, so that the folder is theirs."""

    def told(self) -> str:
        """Return a sentence about who goes on with the run."""


@dataclass
class Elsewhere:
    """Waits for another process, which somebody starts by hand."""

    run_dir: Path
    goes_on: bool = field(default=False, init=False)

    def begin(self) -> None:
        """Do nothing."""

    def is_at_work(self) -> bool:
        """Tell whether another process has the run."""
        try:
            lock(self.run_dir)
        except ValueError:
            return True
        unlock(self.run_dir)
        return False

    def told(self) -> str:
        """Say that another process trains, or how to go on."""
        if self.is_at_work():
            return "Another process trains, and its next query will appear here."
        folder = shlex.quote(str(self.run_dir))
        return (
            f"Go on with the run: --active.run_dir {folder} --active.resume true, or "
            "ActiveLearningLoop.resume."
        )


@dataclass
class Here:
    """Trains in the thread of this process that called ``ActiveLearningLoop.run``."""

    waits: threading.Event = field(default_factory=threading.Event)
    """Set while the loop waits for labels."""
    closed: threading.Event = field(default_factory=threading.Event)
    """Set when the query was closed."""
    goes_on: bool = field(default=True, init=False)

    def begin(self) -> None:
        """Let the loop go on."""
        self.waits.clear()
        self.closed.set()

    def is_at_work(self) -> bool:
        """Tell whether the loop has the run."""
        return not self.waits.is_set()

    def told(self) -> str:
        """Say that it goes on by itself."""
        return "The run goes on in the same program, and its next query will appear here."


class Program:
    """Trains in a process of its own, started anew for each cycle.

    Args:
        run_dir: The run's folder.
        command: Starts the program; the arguments that resume the run are added to it.
        folder: Where it is started; None for here.

    Raises:
        ValueError: when there is no such program.
    """

    goes_on = True

    def __init__(self, run_dir: Path, command: Sequence[str], folder: Path | None = None) -> None:
        if shutil.which(command[0]) is None:
            raise ValueError(
                f"the program that trains must be one that can be started, found no {command[0]!r}"
                "; write it as you would on the command line: -- python train.py"
            )
        self.run_dir = run_dir
        given = {"run_dir": run_dir.absolute(), "resume": "true", "oracle": "files"}
        flags = [[f"--active.{name}", str(value)] for name, value in given.items()]
        self.command = [*command, *chain.from_iterable(flags)]
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Start the program."""
        if self._process is None or self._process.poll() is not None:
            # It must not hold the page's port when it lives longer than the page.
            self._process = subprocess.Popen(self.command, cwd=self.folder, close_fds=True)

    def is_at_work(self) -> bool:
        """Tell whether the program, or another process, has the run."""
        runs = self._process is not None and self._process.poll() is None
        return runs or Elsewhere(self.run_dir).is_at_work()

    def told(self) -> str:
        """Say that it goes on by itself, or why it does not."""
        status = None if self._process is None else self._process.poll()
        if status:
            return (
                f"The program that trains ended with status {status}, and its error is on the "
                f"terminal of the page; mend it and go on: {shlex.join(self.command)}"
            )
        return "The run goes on in another program, and its next query will appear here."

    def end(self, *, at_once: bool) -> None:
        """Wait until the program has ended; at once, as Ctrl-C would, or when it is done."""
        if self._process is not None and self._process.poll() is None:
            if at_once:  # finished steps are kept
                self._process.terminate()
            self._process.wait()


# ---- the program of a run ------------------------------------------------------------------------


def note_program(run_dir: Path, arguments: Sequence[str] | None = None) -> None:
    """Write down how this program was started, so that the page can go on with its run.

    Args:
        run_dir: The run's folder.
        arguments: Those of Python that start the program; found when not given. Nothing is written
            where there are none, as in an interactive session.
    """
    found = arguments or _arguments()
    if found:
        noted = {
            "command": [sys.executable, *found],
            "folder": os.getcwd(),
            "host": socket.gethostname(),
        }
        write_whole(run_dir / PROGRAM, json.dumps(noted, indent=1).encode())


def _arguments() -> list[str]:
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is not None:
        return ["-m", spec.name]
    script = os.path.abspath(sys.argv[0])
    return [script] if os.path.isfile(script) else []


def program_of(run_dir: Path) -> Program | None:
    """Return the program that began a run or last went on with it on this machine.

    It is None when no program did, or one of another machine: a folder that came from elsewhere
    starts nothing here.
    """
    try:
        noted = json.loads((run_dir / PROGRAM).read_text())
        command, folder, host = noted["command"], Path(noted["folder"]), noted["host"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    is_here = host == socket.gethostname() and folder.is_dir() and shutil.which(command[0])
    return Program(run_dir, command, folder) if is_here else None
