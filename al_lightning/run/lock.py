"""One writer for a run folder: a lock that the system takes back when its process dies."""

import os
import socket
import time
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no record locks
    fcntl = None  # type: ignore[assignment]

LOCK = "run.lock"
REFUSALS = (BlockingIOError, PermissionError)  # which of the two depends on the system
_held: dict[tuple[int, Path], int] = {}
"""Open files by process and path; a forked process starts without locks."""


def lock(run_dir: Path, name: str = LOCK, *, patience: float = 0.0) -> None:
    """Make this process the writer of ``run_dir`` until it ends or calls :func:`unlock`.

    A record lock belongs to one process. Forked loader workers that live longer do not hold it. On
    a network file system all machines know it. The same process may lock again. On Windows nothing
    is locked.

    Args:
        run_dir: The folder.
        name: The file in it; the labeling page has one of its own beside the writer's.
        patience: Seconds to wait for another process; a page has the lock for one answer at a time.

    Raises:
        ValueError: when another process is the writer; names its host and process id.
        OSError: when the lock file cannot be written.
    """
    key = os.getpid(), (run_dir / name).resolve()
    if fcntl is None:
        return
    if key in _held:
        if key[1].exists() and os.path.samestat(os.fstat(_held[key]), os.stat(key[1])):
            return
        unlock(run_dir, name)  # of a folder that was removed since
    file = os.open(key[1], os.O_RDWR | os.O_CREAT, 0o666)
    until = time.monotonic() + patience
    try:
        while True:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except REFUSALS:
                if time.monotonic() >= until:
                    raise
            time.sleep(0.01)
    except REFUSALS as error:
        owner = os.read(file, 1000).decode(errors="replace") or "another process"
        os.close(file)
        raise ValueError(
            f"a run must have one {'writer' if name == LOCK else 'page'}, found {run_dir} held by "
            f"{owner}; wait for it or stop it"
        ) from error
    os.ftruncate(file, 0)
    os.pwrite(file, f"process {os.getpid()} on host {socket.gethostname()}".encode(), 0)
    _held[key] = file  # left open: closing any descriptor of the file gives the lock back


def unlock(run_dir: Path, name: str = LOCK) -> None:
    """Let other processes write to ``run_dir``."""
    file = _held.pop((os.getpid(), (run_dir / name).resolve()), None)
    if file is not None:
        os.close(file)
