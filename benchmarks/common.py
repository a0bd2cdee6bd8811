"""What the benchmarks share: interleaved timing, ratios, memory, saved results, ``train.py``.

A time on this machine says little about another one, and little about the same one an hour later.
So both sides of a comparison run in turn in one process, and what is claimed is the ratio of each
pair: median, and the range over all pairs.
"""

import argparse
import csv
import gc
import json
import math
import os
import platform
import runpy
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import lightning as L
import torch

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "results"

Record = dict[str, Any]


def header() -> str:
    """One line that says what ran on what; a load above 0 before the start means company."""
    return (
        f"torch {torch.__version__} | lightning {L.__version__} | Python "
        f"{platform.python_version()} | {cpu_model()} | {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}"
    )


def cpu_model() -> str:
    """The processor's name, as far as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


# ---- timing --------------------------------------------------------------------------------------


def interleaved(
    sides: Mapping[str, Callable[[], object]], repeats: int, *, warm_up: bool = True
) -> dict[str, list[float]]:
    """Seconds of each side, run in turn: A B A B ...

    Args:
        sides: Name to what is timed.
        repeats: Rounds.
        warm_up: Whether one more round goes before them, uncounted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeats + warm_up):
        for name, run in sides.items():
            gc.collect()  # one side's garbage must not be the other's time
            begin = time.perf_counter()
            run()
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """Median and range of some numbers.

    >>> spread([3.0, 1.0, 2.0])
    '2.00 (1.00..3.00)'
    """
    return (
        f"{statistics.median(values):{form}} ({min(values):{form}}..{max(values):{form}})"
        if values
        else "-"
    )


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """The ratio of each pair of neighbours in time."""
    return [a / b for a, b in zip(above, below, strict=True)]


def verdict(value: float, *, at_most: float = math.inf, at_least: float = -math.inf) -> str:
    """What was promised and whether it holds."""
    promise = f"at most {at_most:g}" if at_most < math.inf else f"at least {at_least:g}"
    return f"target {promise}: {'met' if at_least <= value <= at_most else 'MISSED'}"


def ratio_line(
    name: str,
    above: Sequence[float],
    below: Sequence[float],
    *,
    at_most: float = math.inf,
    at_least: float = -math.inf,
) -> str:
    """Name, median ratio with its range, and what was promised, in one line."""
    values = ratios(above, below)
    line = f"{name:<34} {spread(values)}"
    if at_most < math.inf or at_least > -math.inf:
        line += "  " + verdict(statistics.median(values), at_most=at_most, at_least=at_least)
    return line


class Stopwatch:
    """Where time goes, by stage; a stage inside another is not counted in the outer one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inner: list[float] = []  # for each open stage: seconds of the stages within it

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Counts the time of the block for ``name``."""
        self._inner.append(0.0)
        begin = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - begin
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds - self._inner.pop()
            if self._inner:
                self._inner[-1] += seconds

    def watch(self, owner: Any, function: str, stage: str) -> Any:
        """A patch, to be entered: ``owner.function`` counts for ``stage`` while it lasts."""
        original = getattr(owner, function)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.stage(stage):
                return original(*args, **kwargs)

        timed.__wrapped__ = original  # type: ignore[attr-defined]  # Lightning reads signatures
        return mock.patch.object(owner, function, timed)

    def take(self) -> dict[str, float]:
        """The seconds so far; counting begins anew."""
        taken, self.seconds = self.seconds, {}
        return taken


# ---- memory --------------------------------------------------------------------------------------


class PeakMemory:
    """Resident memory inside a ``with`` block: ``peak`` and ``kept`` above its beginning, in MB.

    The kernel keeps the peak itself (VmHWM) and forgets it on request, so nothing is missed
    between two looks; Linux only.
    """

    def __enter__(self) -> "PeakMemory":
        gc.collect()
        self.peak = self.kept = 0.0
        Path("/proc/self/clear_refs").write_text("5")  # the peak becomes what is resident now
        self._begin = _status_mb("VmRSS")
        return self

    def __exit__(self, *error: object) -> None:
        self.peak = _status_mb("VmHWM") - self._begin
        gc.collect()
        self.kept = _status_mb("VmRSS") - self._begin


def _status_mb(field: str) -> float:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[field].split()[0]) * 1024 / 1e6


# ---- whole runs ----------------------------------------------------------------------------------


def run_train(*args: str) -> tuple[list[Record], float]:
    """Runs ``train.py`` in this process, as ``python train.py ARGS`` would.

    Args:
        args: Its command line, without a run folder: it gets a temporary one.

    Returns:
        The rows of the run folder's ``metrics.csv``, and the wall time in seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        argv = ["train.py", *args, "--active.run_dir", str(Path(folder) / "run")]
        begin = time.perf_counter()
        with mock.patch.object(sys, "argv", argv), _working_in(ROOT):
            runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
        seconds = time.perf_counter() - begin
        with open(Path(folder) / "run" / "metrics.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    return [{name: float(cell) for name, cell in row.items() if cell} for row in rows], seconds


@contextmanager
def _working_in(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


class SavedRuns:
    """Finished runs in a JSON file, so that hours of work survive a kill.

    Args:
        path: The file; read when it exists.
        settings: What all runs in the file share. Runs under other settings are not mixed in.

    Raises:
        SystemExit: when the file holds runs under other settings.
    """

    def __init__(self, path: Path, **settings: Any) -> None:
        self.path = path
        self.runs: dict[str, Any] = {}
        self._settings = settings
        if path.exists():
            saved = json.loads(path.read_text())
            if saved["settings"] != settings:
                raise SystemExit(
                    f"{path} holds runs under {saved['settings']}, these are under {settings}; "
                    "name another file with --output"
                )
            self.runs = saved["runs"]

    def save(self, name: str, run: Any) -> None:
        """Adds a run and writes the file, whole or not at all."""
        self.runs[name] = {"on": header(), **run}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        content = {"settings": self._settings, "runs": self.runs}
        partial.write_text(json.dumps(content, indent=1) + "\n")
        os.replace(partial, self.path)


def numbers(text: str) -> list[int]:
    """``"42,43"`` as a list, for argparse.

    >>> numbers("42,43")
    [42, 43]
    """
    return [int(number) for number in text.split(",")]


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser that shows a module's docstring as it is written."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
