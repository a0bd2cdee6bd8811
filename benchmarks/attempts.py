"""Runs of train.py's command line in forked processes that can be killed, and what they leave.

A fork has torch and Lightning at hand, so an attempt takes a second. The command line is the real
one, on a few drawn digits; pictures are written as ever, but drawn empty, since drawing them would
be three quarters of the time.
"""

import builtins
import csv
import io
import os
import select
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from unittest import mock

import torch
import yaml
from common import ROOT
from matplotlib.figure import Figure
from strangers import STRANGERS
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from al_lightning import ActiveCLI, ActiveMNISTDataModule, LitSimpleCNN
from al_lightning.mnist import datamodule as mnist_datamodule
from al_lightning.monitor import pictures, tensorboard

SMALL = [
    "--trainer.max_epochs=2",
    "--trainer.accelerator=cpu",
    "--data.initial_labeled_size=30",
    "--data.batch_size=16",
    "--active.acquisition_size=12",
    "--active.num_cycles=3",
]
LAST_CYCLE = "cycle_3"
STRANGER = "--stranger="
"""Names a module of ``strangers.py`` in an attempt's arguments."""
RECIPE, WITHOUT_MODEL = ROOT / "configs" / "mnist.yaml", "without_model.yaml"
KILLED = -signal.SIGKILL
LIMIT = 120.0
"""Seconds after which an attempt is taken to hang; whole runs take two or three."""


class Outcome(NamedTuple):
    """What a finished run leaves and what a resumed one must leave just so."""

    tables: dict[str, Any]
    curves: dict[str, list[tuple[int, float]]]
    weights: dict[str, torch.Tensor]


def prepare(folder: Path, temporary: Path) -> None:
    """Makes ``folder`` the place of all runs of this process and of those forked from it.

    Args:
        folder: Where nothing is yet.
        temporary: For temporary files. On another disk Lightning copies its checkpoints from there
            where it would rename them, and a copy can be cut short.
    """
    sys.path.append(str(ROOT / "tests"))
    from tiny_mnist import write_tiny_mnist

    torch.set_num_threads(1)  # threads do not survive a fork
    write_tiny_mnist(folder / "data")
    settings = yaml.safe_load(RECIPE.read_text())
    (folder / WITHOUT_MODEL).write_text(yaml.safe_dump({**settings, "model": {}}))
    os.chdir(folder)
    tempfile.tempdir = str(temporary)
    sys.argv = ["train.py"]
    mnist_datamodule.ensure_mnist = lambda data_dir: data_dir
    for module in (pictures, tensorboard):
        module.progress_figure = lambda results: Figure((1, 1))
        module.query_figure = lambda loop, result: result.query and Figure((1, 1))


# ---- attempts ------------------------------------------------------------------------------------


def attempt(
    run_dir: Path,
    args: Sequence[str] = (),
    *,
    kill_after: float = LIMIT,
    during: Iterable[AbstractContextManager[Any]] = (),
) -> int:
    """Begins the run in ``run_dir`` or goes on with it, in a process of its own.

    Args:
        run_dir: Its folder; what it prints is added to the file of that name that ends in .log.
        args: More of its command line.
        kill_after: Seconds until SIGKILL.
        during: Entered in the process before the command line.

    Returns:
        Its exit status; ``KILLED`` when it was killed.
    """
    shutil.rmtree(tempfile.gettempdir())  # what an attempt that was killed left there
    Path(tempfile.gettempdir()).mkdir()
    sys.stdout.flush()  # or the child would print it once more
    pid = os.fork()
    if pid == 0:
        _child(
            [*SMALL, "--active.resume=auto", *args, f"--active.run_dir={run_dir}"], run_dir, during
        )
    process = os.pidfd_open(pid)
    is_over, _, _ = select.select([process], [], [], kill_after)
    os.close(process)
    if not is_over:
        os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # keeps its number from being used anew
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # loader workers, which would notice seconds later
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _child(
    args: list[str], run_dir: Path, during: Iterable[AbstractContextManager[Any]]
) -> NoReturn:
    status = 1
    try:
        os.setpgid(0, 0)
        sys.stdout = sys.stderr = log_of(run_dir).open("a", buffering=1)
        os.dup2(sys.stdout.fileno(), 1)
        os.dup2(sys.stdout.fileno(), 2)
        with ExitStack() as patches:
            for patch in during:
                patches.enter_context(patch)
            name = next((one for one in args if one.startswith(STRANGER)), "")
            stranger = STRANGERS.get(name.removeprefix(STRANGER))
            ActiveCLI(
                stranger or LitSimpleCNN,
                ActiveMNISTDataModule,
                config_file=WITHOUT_MODEL if stranger else RECIPE,
                args=[one for one in args if one != name],
            )
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def log_of(run_dir: Path) -> Path:
    """The file that holds what all attempts at a run printed."""
    return run_dir.with_name(f"{run_dir.name}.log")


def last_words(run_dir: Path) -> str:
    """The last line that a run printed."""
    lines = log_of(run_dir).read_text().strip().splitlines()
    return lines[-1] if lines else "(nothing)"


# ---- what a run leaves ---------------------------------------------------------------------------


def outcome(run_dir: Path) -> Outcome:
    """Reads a finished run."""
    with open(run_dir / "metrics.csv", newline="") as file:
        rows = [
            {name: cell for name, cell in row.items() if not name.endswith("_seconds")}
            for row in csv.DictReader(file)
        ]
    queries = {path.name: path.read_text() for path in (run_dir / "queries").glob("*.csv")}
    weights = torch.load(run_dir / LAST_CYCLE / "weights.ckpt", weights_only=True)["state_dict"]
    return Outcome({"metrics.csv": rows, **queries}, curves(run_dir), weights)


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The points of each scalar that TensorBoard shows, by its name."""
    shown = EventAccumulator(str(folder), {"scalars": 0, "images": 1}).Reload()
    return {
        name: [(event.step, event.value) for event in shown.Scalars(name)]
        for name in shown.Tags()["scalars"]
    }


def differences(found: Outcome, expected: Outcome) -> list[str]:
    """Names of what is not equal."""
    tables = {*found.tables, *expected.tables}
    differing = [name for name in tables if found.tables.get(name) != expected.tables.get(name)]
    if found.curves != expected.curves:
        differing.append("TensorBoard's points")
    same_names = found.weights.keys() == expected.weights.keys()
    if not same_names or not all(
        torch.equal(value, expected.weights[name]) for name, value in found.weights.items()
    ):
        differing.append("the last weights")
    return sorted(differing)


def wrong(run_dir: Path, status: int, expected: Outcome) -> str:
    """What is not as it must be after an attempt that was to end a run; empty when all is."""
    if status != 0:
        return f"{run_dir}: ended with status {status}: {last_words(run_dir)[:200]}"
    differing = differences(outcome(run_dir), expected)
    return f"{run_dir}: other than uninterrupted: {', '.join(differing)}" if differing else ""


def ended(run_dir: Path, status: int, expected: Outcome) -> str:
    """What is wrong after an attempt that was to end a run; removes a run that is right."""
    problem = wrong(run_dir, status, expected)
    if not problem:
        remove(run_dir)
    return problem


def remove(run_dir: Path) -> None:
    """Removes a run and what it printed."""
    shutil.rmtree(run_dir)
    log_of(run_dir).unlink()


# ---- death inside a write ------------------------------------------------------------------------


class DiesInWrite:
    """Inside a ``with`` block, the process dies in its ``number``-th change of a file.

    A change is whatever a killed process can leave behind in another way: a write, of which half
    is done; a file made empty by opening it, which is done; a rename, removal, new folder, cut or
    sync, which is not done. Loader workers change no files, and threads count like the process.

    Args:
        number: From 1.
        folder: Files elsewhere do not count.
    """

    def __init__(self, number: int, folder: Path) -> None:
        self._left = number
        self._folder = f"{folder}{os.sep}"
        self._patches = ExitStack()

    def __enter__(self) -> None:
        for name in (
            *("replace", "rename", "unlink", "remove", "rmdir", "mkdir"),
            *("fsync", "ftruncate", "truncate"),
        ):
            self._patch(os, name, self._dying(getattr(os, name)))
        for name in ("write", "pwrite"):
            half_data = self._dying(
                getattr(os, name), lambda data, *at: (data[: len(data) // 2], *at)
            )
            self._patch(os, name, half_data)
        half_count = self._dying(os.sendfile, lambda source, at, count: (source, at, count // 2))
        self._patch(os, "sendfile", half_count)  # how shutil copies from disk to disk
        opened = self._opened(io.open)
        self._patch(io, "open", opened)
        self._patch(builtins, "open", opened)

    def __exit__(self, *error: object) -> None:
        self._patches.close()

    def is_last(self, file: Any, **at: Any) -> bool:
        """Counts one change of ``file``, a path or an open file."""
        if "dir_fd" not in at:  # as shutil.rmtree names files
            path = os.readlink(f"/proc/self/fd/{file}") if isinstance(file, int) else file
            if not os.path.abspath(os.fsdecode(path)).startswith(self._folder):
                return False
        self._left -= 1
        return self._left == 0

    def _patch(self, module: Any, name: str, function: Callable[..., Any]) -> None:
        self._patches.enter_context(mock.patch.object(module, name, function))

    def _dying(
        self, change: Callable[..., Any], half: Callable[..., Any] | None = None
    ) -> Callable[..., Any]:
        def dying(file: Any, *args: Any, **options: Any) -> Any:
            if self.is_last(file, **options):
                if half is not None:
                    change(file, *half(*args))
                die()
            return change(file, *args, **options)

        return dying

    def _opened(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        """``open`` for files whose writes count; buffers are above what counts."""

        def opened(file: Any, mode: str = "r", buffering: int = -1, *args: Any, **how: Any) -> Any:
            if isinstance(file, int) or not set(mode) & set("wax+"):
                return plain(file, mode, buffering, *args, **how)
            raw = _DyingFile(file, mode.replace("b", "").replace("t", ""), self)
            if "w" in mode and self.is_last(file):
                die()
            buffered = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, *args, **how)

        return opened


class _DyingFile(io.FileIO):
    def __init__(self, file: Any, mode: str, death: DiesInWrite) -> None:
        super().__init__(file, mode)
        self._death = death

    def write(self, data: Any) -> int:
        if self._death.is_last(self.name):
            super().write(data[: len(data) // 2])
            die()
        return super().write(data)


def die() -> NoReturn:
    """Ends the process at once, with nothing flushed or closed by Python."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")
