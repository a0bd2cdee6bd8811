"""Where runs are carried out: side by side in processes of this machine, or on a Ray cluster."""

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm  # type: ignore[import-untyped]

from al_lightning.compare.runs import OneRun, Run

LOG = "output.txt"
"""In a run's folder: what it printed."""

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


def default_jobs(num_runs: int, num_gpus: int) -> int:
    """Runs at a time: one for each GPU, or else for each core."""
    return max(1, min(num_runs, num_gpus or num_cores()))


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
    try:
        pickle.dumps(one_run)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            "each run is made in another process, so model, data, trainer and strategies must be "
            f"classes and functions of a module, or partials of them, found {error}"
        ) from error
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    devices = context.Queue()
    for job in range(jobs):
        devices.put(gpus[job % len(gpus)] if gpus else None)
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        jobs, context, _begin_process, (max(1, num_cores() // jobs), devices)
    )
    begun: list[Future[str | None]] = []

    def submit(run: Run) -> "Future[str | None]":
        begun.append(pool.submit(work, one_run, run))
        return begun[-1]

    try:
        yield submit
    finally:
        if not all(future.done() and future.exception() is None for future in begun):
            # A run folder can be left at any moment. On SIGTERM a run would end, but its process
            # would go on with the next one.
            for process in set(multiprocessing.active_children()) - others:
                process.kill()
        pool.shutdown(cancel_futures=True)


def _begin_process(num_threads: int, devices: "Queue[str | None]") -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends this one
    tqdm.set_lock(threading.RLock())  # its own is a semaphore, which a killed process leaves behind
    torch.set_num_threads(num_threads)
    device = devices.get()
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device  # before CUDA is first used
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
        begun.append(task.remote(one_run, run))
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
