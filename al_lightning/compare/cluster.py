"""Runs on a Ray cluster."""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from al_lightning.compare.runs import Run
from al_lightning.compare.worker import OneRun, Outcomes, work


def check_ray_is_installed() -> None:
    """Raise ValueError when Ray is not installed."""
    if find_spec("ray") is None:
        raise ValueError('executor="ray" needs Ray, which is not installed: pip install ray')


def on_ray(
    one_run: OneRun, runs: Sequence[Run], look: Callable[[], None], *, num_gpus: int
) -> Outcomes:
    """Carry out runs on the cluster that ``RAY_ADDRESS`` names, or on one begun here.

    Each run is a task of one core; Ray decides where and when it is carried out. All machines must
    see the run folders under the same path.

    Args:
        one_run: Carries out one run.
        runs: All runs.
        look: Called about twice a second; an error that it raises ends all runs.
        num_gpus: GPUs of each run.
    """
    import ray

    ours = not ray.is_initialized()
    if ours:
        _begin_ray(ray)
    task: Any = ray.remote(work).options(num_cpus=1, num_gpus=num_gpus, max_retries=0)
    begun: dict[Run, Any] = {}
    try:
        for run in runs:
            begun[run] = task.remote(one_run, replace(run, folder=run.folder.absolute()))
        waiting = list(begun.values())
        while waiting:
            _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=0.5)
            look()
        return {run: _outcome(ray, reference) for run, reference in begun.items()}
    except BaseException:
        for reference in begun.values():
            ray.cancel(reference, force=True)
        raise
    finally:
        if ours:
            ray.shutdown()


def _begin_ray(ray: Any) -> None:
    address = os.environ.get("RAY_ADDRESS")
    # Workers of a cluster have a path of their own; those of this machine have ours.
    own_path = {"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}}
    ray.init(
        address or "local",  # Ray would take any that somebody has begun on this machine
        log_to_driver=False,
        logging_level=logging.WARNING,
        runtime_env=None if address else own_path,
    )


def _outcome(ray: Any, reference: Any) -> str | None:
    try:
        why: str | None = ray.get(reference)
    except ray.exceptions.RayError as error:  # a process that was killed, a machine that was lost
        return str(error)
    return why
