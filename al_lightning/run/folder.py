"""Names in the run folder, the check of a new one, and files that are complete or absent."""

import os
import zlib
from pathlib import Path

from al_lightning.run.journal import Record, read_records, sync_folder

JOURNAL = "journal.jsonl"
CONFIG = "config.yaml"
INITIAL_WEIGHTS = "initial_weights.pt"
WEIGHTS = "weights.ckpt"
NAMES = "names.jsonl"
TO_LABEL = "to_label.csv"
"""In the folder of a query: people fill it in. With it the folder is complete."""
ROWS = "rows.jsonl"
"""In the folder of a query: how people see each row, a JSON object a line."""


def records_of(run_dir: Path, purpose: str = "") -> list[Record]:
    """Read the journal of a run; raise ValueError when it is damaged or there is none.

    Args:
        run_dir: The run's folder.
        purpose: Ends "it holds no run", such as ``" to resume"``.
    """
    records = read_records(run_dir / JOURNAL)
    check_begun(records, run_dir, purpose)
    return records


def check_begun(records: list[Record], run_dir: Path, purpose: str = "") -> None:
    """Raise ValueError when a journal without records says that the folder holds no run."""
    if not records:
        raise ValueError(f"{run_dir} holds no run{purpose}: {JOURNAL} is missing or empty")


def query_folder(run_dir: Path, cycle: int) -> Path:
    """Return the folder of a query that waits: its pictures, and the files to fill in."""
    return run_dir / "queries" / f"cycle_{cycle}"


def shown(folder: Path) -> str:
    """Return a folder's name as short as it can be typed here."""
    here = Path.cwd()
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)


def set_aside(folder: Path) -> None:
    """Rename a folder that is in the way; a person's work may be in it."""
    if folder.exists():
        others = sum(1 for _ in folder.parent.glob(f"{folder.name}_before_*"))
        folder.rename(folder.with_name(f"{folder.name}_before_{others + 1}"))


def check_vacant(run_dir: Path) -> None:
    """Check that a run may begin in ``run_dir``; write nothing.

    Raises:
        ValueError: when ``run_dir`` holds a run, is a file, or cannot be written.
    """
    if read_records(run_dir / JOURNAL):
        raise ValueError(
            f"run_dir must not hold a run, found {run_dir / JOURNAL}; go on with it by "
            f"ActiveLearningLoop.resume({str(run_dir)!r}, ...) or --active.resume true, or name "
            "another folder"
        )
    existing = next(path for path in (run_dir, *run_dir.absolute().parents) if path.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
        raise ValueError(
            f"run_dir must be a folder that can be written, got {run_dir}: {existing} is "
            f"{'not writable' if existing.is_dir() else 'a file'}; name another folder"
        )


def claim_version(runs_dir: Path) -> Path:
    """Make the next ``version_N`` that nobody else has made; two programs never share one."""
    folder = next_version(runs_dir)
    while True:
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number = int(folder.name.removeprefix("version_"))
            folder = folder.with_name(f"version_{number + 1}")


def next_version(runs_dir: Path) -> Path:
    """Return ``version_N``; N is one above the highest of all runs in ``runs_dir``."""
    runs = runs_dir.glob(f"version_*/{JOURNAL}")
    numbers = [path.parent.name.removeprefix("version_") for path in runs]
    last = max((int(number) for number in numbers if number.isdigit()), default=-1)
    return runs_dir / f"version_{last + 1}"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, and the folders above it; a reader finds the old content or the new one.

    The new content may not be on the disk yet when this returns; :func:`sync` waits for that.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    os.replace(partial, path)


def sync(path: Path) -> None:
    """Wait until the file's content and its name are on the disk."""
    with open(path, "r+b") as file:  # Windows syncs no file that is open for reading
        os.fsync(file.fileno())
    sync_folder(path.parent)


def checksum(path: Path) -> str:
    """Return the CRC-32 of a file, in hexadecimal."""
    crc = 0
    with open(path, "rb") as file:
        while chunk := file.read(2**20):
            crc = zlib.crc32(chunk, crc)
    return f"{crc:08x}"
