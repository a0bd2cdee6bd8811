"""Cores, memory and GPUs of this machine, and the number of runs that it takes at a time."""

import os
import sys
from pathlib import Path

import torch


def default_jobs(num_runs: int, device: str, num_gpus: int) -> int:
    """Return how many runs to do at a time: one a GPU, or else one a core, as far as memory goes.

    A run is taken to need what this process has needed, which has tried one of each strategy.

    Args:
        num_runs: Of the comparison.
        device: Type of the device that they train on: ``"cpu"``, ``"cuda"``, ...
        num_gpus: CUDA devices.
    """
    most = {"cpu": num_cores(), "cuda": num_gpus}.get(device, 1)
    return max(1, min(num_runs, most, num_that_fit()))


def num_that_fit() -> int:
    """Count the processes like this one that memory has room for.

    A very large number where the system does not say.
    """
    if not Path("/proc/meminfo").exists():
        return sys.maxsize
    available = _kilobytes("/proc/meminfo", "MemAvailable")
    return available // _kilobytes("/proc/self/status", "VmHWM")


def _kilobytes(path: str, field: str) -> int:
    (line,) = [line for line in Path(path).read_text().splitlines() if line.startswith(field)]
    return int(line.split()[1])


def num_cores() -> int:
    """Count the cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """Return the name that ``CUDA_VISIBLE_DEVICES`` has for each GPU that this process sees."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return named.split(",")[:count] if named else [str(number) for number in range(count)]
