"""Where runs are carried out: side by side in processes of this machine, or on a Ray cluster."""

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch
from tqdm import tqdm  # type: ignore[import-untyped]

from al_lightning.compare.runs import OneRun, Run

LOG = "output.txt"
"""In a run's folder: what it printed."""

BEGUN_BY_COMPARISON = "AL_LIGHTNING_COMPARISON"
"""Environment variable of the processes of a comparison."""

Submit = Callable[[Run], "Future[str | None]"]
"""Begins a run elsewhere; the result is what went wrong, None for nothing."""


def work(one_run: OneRun, run: Run) -> str | None:
    """Carries out a run; what it prints, and how it failed, goes into a file of its folder."""
    run.folder.mkdir(parents=True, exist_ok=True)
    with _output_to(run.folder / LOG):
        try:
            one_run(run.strategy, run.seed, run.folder)
        except SystemExit as error:  # the command line's; it has printed why
            why = error.__cause__
            return str(why) if isinstance(why, Exception) else f"exit status {error.code}"
        except Exception as error:
            traceback.print_exc()
            return f"{type(error).__name__}: {error}"
    return None


@contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Appends what the process prints, by whatever means, to a file."""
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


# ---- processes of this machine -------------------------------------------------------------------


def default_jobs(num_runs: int, device: str, num_gpus: int) -> int:
    """Runs at a time: one for each GPU, or else for each core, as far as the memory goes.

    A run is taken to need what this process has needed, which has tried one of each strategy.

    Args:
        num_runs: Of the comparison.
        device: Type of the device that they train on: ``"cpu"``, ``"cuda"``, ...
        num_gpus: CUDA devices.
    """
    most = {"cpu": num_cores(), "cuda": num_gpus}.get(device, 1)
    return max(1, min(num_runs, most, num_that_fit()))


def num_that_fit() -> int:
    """How many processes like this one there is memory for; many where the system does not say."""
    if not Path("/proc/meminfo").exists():
        return sys.maxsize
    available = _kilobytes("/proc/meminfo", "MemAvailable")
    return available // _kilobytes("/proc/self/status", "VmHWM")


def _kilobytes(path: str, field: str) -> int:
    (line,) = [line for line in Path(path).read_text().splitlines() if line.startswith(field)]
    return int(line.split()[1])


def num_cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1


@contextmanager
def in_processes(one_run: OneRun, jobs: int, gpus: Sequence[str] = ()) -> Iterator[Submit]:
    """``jobs`` processes that share the cores evenly, and the GPUs in turn.

    They end when the block does, also by an error, and when this process is killed.

    Raises:
        ValueError: when what makes a run cannot be sent to another process.
    """
    check_can_travel(one_run)
    places: SimpleQueue[_Place] = SimpleQueue()
    for job in range(jobs):
        places.put(_Place(max(1, num_cores() // jobs), gpus[job % len(gpus)] if gpus else None))
    others = set(multiprocessing.active_children())
    threads = ThreadPoolExecutor(jobs)
    begun: list[Future[str | None]] = []

    def carry_out(run: Run) -> str | None:
        place = places.get()
        try:
            return place.carry_out(one_run, run)
        finally:
            places.put(place)

    def submit(run: Run) -> "Future[str | None]":
        begun.append(threads.submit(carry_out, run))
        return begun[-1]

    try:
        yield submit
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        while not all(future.done() for future in begun):
            # A run folder can be left at any moment. On SIGTERM a run would end, but its process
            # would not.
            for process in set(multiprocessing.active_children()) - others:
                process.kill()
            time.sleep(0.05)
        threads.shutdown()
        for _ in range(jobs):
            places.get().close()


class _Place:
    """A process that carries out a run at a time, and is replaced when it dies.

    Args:
        num_threads: That a run computes with.
        gpu: As ``CUDA_VISIBLE_DEVICES`` names it.
    """

    def __init__(self, num_threads: int, gpu: str | None) -> None:
        self._num_threads = num_threads
        # Set before the process begins, since the program that it imports may look for a GPU.
        self._environment = {BEGUN_BY_COMPARISON: "1"}
        if gpu is not None:
            self._environment["CUDA_VISIBLE_DEVICES"] = gpu
        self._process: ProcessPoolExecutor | None = None

    def carry_out(self, one_run: OneRun, run: Run) -> str | None:
        """What :func:`work` says of the run, or that the process died."""
        if self._process is None:
            # A fork of a process with threads may hang.
            context = multiprocessing.get_context("spawn")
            arguments = (self._num_threads,)
            self._process = ProcessPoolExecutor(1, context, _begin_process, arguments)
        try:
            with _STARTING, environment_of_new_processes(self._environment):
                future = self._process.submit(work, one_run, run)
            return future.result()
        except BrokenProcessPool:
            self.close()
            return "its process ended abruptly: it crashed, or was killed, as when memory runs out"

    def close(self) -> None:
        if self._process is not None:
            self._process.shutdown(cancel_futures=True)
            self._process = None


_STARTING = threading.Lock()


@contextmanager
def environment_of_new_processes(variables: Mapping[str, str]) -> Iterator[None]:
    """Inside the block processes begin with these variables; then they are as they were."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def check_can_travel(one_run: OneRun) -> None:
    """Raises ValueError when another process could not be given what makes a run."""
    try:
        pickled = pickle.dumps(one_run)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            "each run is made in another process, so model, data, trainer and strategies must be "
            f"classes and functions of a module, or partials of them, found {error}"
        ) from error
    main = sys.modules["__main__"]
    if b"__main__" in pickled and not (hasattr(main, "__file__") or main.__spec__):
        raise ValueError(
            "each run is made in another process, which cannot import what a notebook or typed-in "
            "lines define; put model, data and functions into a file and import them"
        )


def check_not_begun_by_import() -> None:
    """Raises RuntimeError in a process of a comparison, which imports the program anew."""
    if BEGUN_BY_COMPARISON in os.environ:
        raise RuntimeError(
            "a comparison must not begin when its program is imported, as each of its processes "
            'does; begin it under `if __name__ == "__main__":`'
        )


def _begin_process(num_threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends this one
    tqdm.set_lock(threading.RLock())  # its own is a semaphore, which a killed process leaves behind
    torch.set_num_threads(num_threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def visible_gpus() -> list[str]:
    """What ``CUDA_VISIBLE_DEVICES`` would call each GPU that this process sees."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return named.split(",")[:count] if named else [str(number) for number in range(count)]


# ---- a cluster -----------------------------------------------------------------------------------


@contextmanager
def on_ray(one_run: OneRun, num_gpus: int) -> Iterator[Submit]:
    """The Ray cluster that ``RAY_ADDRESS`` names, or one begun on this machine.

    Each run is a task of one core, with one GPU where the Trainer uses one; Ray says which run is
    carried out where and when. All machines must see the run folders under the same path.

    Raises:
        ValueError: when Ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise ValueError(
            'executor="ray" needs Ray, which is not installed: pip install "al_lightning[ray]"'
        ) from error
    ours = not ray.is_initialized()
    if ours:
        address = os.environ.get("RAY_ADDRESS")
        # Workers of a cluster have a path of their own; those of this machine have ours.
        own_path = {"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}}
        ray.init(
            address or "local",  # Ray would take any that somebody has begun on this machine
            log_to_driver=False,
            logging_level=logging.WARNING,
            runtime_env=None if address else own_path,
        )
    task: Any = ray.remote(work).options(num_cpus=1, num_gpus=num_gpus, max_retries=0)
    begun = []

    def submit(run: Run) -> "Future[str | None]":
        begun.append(task.remote(one_run, replace(run, folder=run.folder.absolute())))
        future: Future[str | None] = begun[-1].future()
        return future

    try:
        yield submit
    except BaseException:
        for reference in begun:
            ray.cancel(reference, force=True)
        raise
    finally:
        if ours:
            ray.shutdown()
