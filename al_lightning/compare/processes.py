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
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import torch
from tqdm import tqdm  # type: ignore[import-untyped]

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

    The processes end when this function does, also by an error, and when this process is killed.

    Args:
        one_run: Carries out one run.
        runs: All runs, in the order in which they begin.
        look: Called about twice a second; an error that it raises ends all runs.
        jobs: Processes at a time.
        gpus: As ``CUDA_VISIBLE_DEVICES`` names them; none leaves the variable as it is.
    """
    waiting, outcomes = deque(runs), Outcomes()
    begun: dict[int, _Begun] = {}
    num_threads, method = max(1, num_cores() // jobs), _start_method(gpus)
    try:
        while waiting or begun:
            for job in sorted(set(range(jobs)) - begun.keys())[: len(waiting)]:
                gpu = gpus[job % len(gpus)] if gpus else None
                begun[job] = _prepared(one_run, waiting.popleft(), num_threads, method)
                with new_processes_see(gpu):
                    begun[job].process.start()
            wait([one.process.sentinel for one in begun.values()], timeout=0.5)
            _collect(begun, outcomes)
            look()
    finally:
        # A run folder can be left at any moment. SIGTERM would end a run, but not its process.
        for one in begun.values():
            if one.process.pid is not None:
                one.process.kill()
                one.process.join()
    return outcomes


def _start_method(gpus: Sequence[str]) -> str:
    """Return how processes begin. This process is not forked: it has threads, and a fork may hang.

    A server that has imported the packages once forks each process at once. But it does not see our
    environment, which names the GPU, so with GPUs each process is new.
    """
    if gpus or "forkserver" not in multiprocessing.get_all_start_methods():
        return "spawn"
    multiprocessing.get_context("forkserver").set_forkserver_preload(["al_lightning.loop"])
    return "forkserver"


def _prepared(one_run: OneRun, run: Run, num_threads: int, method: str) -> _Begun:
    """Return a process that has not started; since we know it before, we can always end it."""
    context: Any = multiprocessing.get_context(method)
    reader, writer = context.Pipe(duplex=False)
    # Once it has started, the process alone holds the end that it writes to.
    arguments = (writer, one_run, run, num_threads)
    return _Begun(run, context.Process(target=_carry_out, args=arguments, name=NAME), reader)


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
    """Show this GPU alone to processes that begin inside the block; with None, change nothing.

    A process cannot choose for itself. The program that it imports first may ask torch for a GPU,
    and CUDA reads the variable only once.
    """
    before = dict(os.environ)
    os.environ |= {} if gpu is None else {GPUS: gpu}
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before


def check_can_travel(one_run: OneRun) -> None:
    """Raise ValueError when the function that makes a run cannot be sent to another process."""
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
            "lines define; put model, data and functions into a file and import them, or give "
            'executor="ray", which sends them along'
        )


def check_not_begun_by_import() -> None:
    """Raise RuntimeError in a process of a comparison, which imports the program anew."""
    if multiprocessing.current_process().name == NAME:
        raise RuntimeError(
            "a comparison must not begin when its program is imported, as each of its processes "
            'does; begin it under `if __name__ == "__main__":`'
        )


def default_jobs(num_runs: int, device: str, num_gpus: int) -> int:
    """Return the number of runs at a time: one for each GPU, or core, as far as memory allows.

    We assume that a run needs as much memory as this process, which has tried each strategy.

    Args:
        num_runs: Number of runs of the comparison.
        device: Type of the device that they train on: ``"cpu"``, ``"cuda"``, ...
        num_gpus: Number of CUDA devices.
    """
    most = {"cpu": num_cores(), "cuda": num_gpus}.get(device, 1)
    return max(1, min(num_runs, most, num_that_fit()))


def num_that_fit() -> int:
    """Count the processes like this one that fit into free memory.

    It is a very large number where the system does not tell.
    """
    if not Path("/proc/meminfo").exists():
        return sys.maxsize
    available = 1024 * _kilobytes("/proc/meminfo", "MemAvailable")
    left = left_in_groups(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    return min(available, left) // (1024 * _kilobytes("/proc/self/status", "VmHWM"))


def left_in_groups(membership: Path, root: Path) -> int:
    """Return the bytes that the process's control groups leave it, as of a container.

    Args:
        membership: Lines ``number:controllers:path``, as in ``/proc/self/cgroup``.
        root: Where the groups are mounted.

    Returns:
        The least of all groups above the process, of version 1 and 2; a very large number without
        a limit.
    """
    left = sys.maxsize
    lines = membership.read_text().splitlines() if membership.exists() else []
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers and "memory" not in controllers.split(","):
            continue
        top, names = (
            (root / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes"))
            if controllers
            else (root, ("memory.max", "memory.current"))
        )
        # Inside a container the path may be that of the host, and the group is mounted at the top.
        inner = PurePosixPath(path).relative_to("/")
        for group in (top, *(top / one for one in (inner, *inner.parents))):
            limit, used = ((group / name) for name in names)
            if limit.exists() and (number := limit.read_text().strip()) != "max":
                held = int(used.read_text()) - _file_cache(group / "memory.stat")
                left = min(left, max(0, int(number) - held))
    return left


def _file_cache(statistics: Path) -> int:
    """Return the bytes of files that the system drops when a group needs room."""
    lines = statistics.read_text().splitlines() if statistics.exists() else []
    sizes = {name: int(size) for name, size in (line.split() for line in lines)}
    return sizes.get("total_inactive_file", sizes.get("inactive_file", 0))


def _kilobytes(path: str, field: str) -> int:
    (line,) = [line for line in Path(path).read_text().splitlines() if line.startswith(field)]
    return int(line.split()[1])


def num_cores() -> int:
    """Count the cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """Return the name that ``CUDA_VISIBLE_DEVICES`` has for each GPU that this process sees."""
    named = os.environ.get(GPUS)
    count = torch.cuda.device_count()
    return named.split(",")[:count] if named else [str(number) for number in range(count)]
