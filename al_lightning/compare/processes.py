"""Runs side by side on this machine, each in a fresh process."""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import NamedTuple

import torch
from tqdm import tqdm  # type: ignore[import-untyped]

from al_lightning.compare.machine import num_cores
from al_lightning.compare.runs import Run
from al_lightning.compare.worker import OneRun, Outcomes, work

NAME = "a run of a comparison"
"""Name of each process. It has it already when it imports the program."""

DIED = "its process ended abruptly: it crashed, or was killed, as when memory runs out"
GPUS = "CUDA_VISIBLE_DEVICES"


class _Begun(NamedTuple):
    """Holds a run, its process, and the pipe through which its outcome comes."""

    run: Run
    process: BaseProcess
    outcome: Connection


def in_processes(
    one_run: OneRun,
    runs: Sequence[Run],
    look: Callable[[], None],
    *,
    jobs: int,
    gpus: Sequence[str] = (),
) -> Outcomes:
    """Carry out runs in processes that share the cores evenly, and the GPUs in turn.

    They end when this function does, also by an error, and when this process is killed.

    Args:
        one_run: Carries out one.
        runs: Begun in this order.
        look: Called about twice a second; an error that it raises ends all.
        jobs: Processes at a time.
        gpus: As ``CUDA_VISIBLE_DEVICES`` names them; none leaves the variable as it is.
    """
    waiting, outcomes = deque(runs), Outcomes()
    begun: dict[int, _Begun] = {}
    num_threads = max(1, num_cores() // jobs)
    try:
        while waiting or begun:
            for job in sorted(set(range(jobs)) - begun.keys())[: len(waiting)]:
                gpu = gpus[job % len(gpus)] if gpus else None
                begun[job] = _begin(one_run, waiting.popleft(), num_threads, gpu)
            wait([one.process.sentinel for one in begun.values()], timeout=0.5)
            _collect(begun, outcomes)
            look()
    finally:
        for one in begun.values():
            # A run folder can be left at any moment. On SIGTERM a run would end, but its process
            # would not.
            one.process.kill()
            one.process.join()
    return outcomes


def _begin(one_run: OneRun, run: Run, num_threads: int, gpu: str | None) -> _Begun:
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    reader, writer = context.Pipe(duplex=False)
    arguments = (writer, one_run, run, num_threads)
    process = context.Process(target=_carry_out, args=arguments, name=NAME)
    with new_processes_see(gpu):
        process.start()
    writer.close()
    return _Begun(run, process, reader)


def _collect(begun: dict[int, _Begun], outcomes: Outcomes) -> None:
    """Take in the outcomes that came, and take out of ``begun`` the processes that are over."""
    for job, (run, process, outcome) in list(begun.items()):
        over = not process.is_alive()  # asked first: what ends by itself has sent before
        with suppress(EOFError, OSError):  # it died before it could send
            if outcome.poll():
                outcomes[run] = outcome.recv()
        if over:
            outcomes.setdefault(run, DIED)
            outcome.close()
            del begun[job]


def _carry_out(outcome: Connection, one_run: OneRun, run: Run, num_threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends this one
    tqdm.set_lock(threading.RLock())  # its own is a semaphore, which a killed process leaves behind
    torch.set_num_threads(num_threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    outcome.send(work(one_run, run))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


@contextmanager
def new_processes_see(gpu: str | None) -> Iterator[None]:
    """Begin processes inside the block with this GPU alone; with None, with those of this one.

    A process cannot choose for itself. The program that it imports first may ask torch for a GPU,
    and what CUDA saw then holds for good.
    """
    before = os.environ.get(GPUS)
    if gpu is not None:
        os.environ[GPUS] = gpu
    try:
        yield
    finally:
        os.environ.pop(GPUS, None)
        if before is not None:
            os.environ[GPUS] = before


def check_can_travel(one_run: OneRun) -> None:
    """Raise ValueError when another process could not be given what makes a run."""
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
    """Raise RuntimeError in a process of a comparison, which imports the program anew."""
    if multiprocessing.current_process().name == NAME:
        raise RuntimeError(
            "a comparison must not begin when its program is imported, as each of its processes "
            'does; begin it under `if __name__ == "__main__":`'
        )
