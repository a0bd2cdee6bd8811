"""Names in the run folder, and whether a folder may become one."""

import os
from pathlib import Path

JOURNAL = "journal.jsonl"
CONFIG = "config.yaml"
INITIAL_WEIGHTS = "initial_weights.pt"
WEIGHTS = "weights.ckpt"


def check_vacant(run_dir: Path) -> None:
    """Writes nothing.

    Raises:
        ValueError: when ``run_dir`` holds a run, is a file, or cannot be written.
    """
    if (run_dir / JOURNAL).exists():
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


def next_version(runs_dir: Path) -> Path:
    """``version_N`` with the first N above those of all runs in ``runs_dir``."""
    taken = [
        int(path.parent.name.removeprefix("version_"))
        for path in runs_dir.glob(f"version_*/{JOURNAL}")
        if path.parent.name.removeprefix("version_").isdigit()
    ]
    return runs_dir / f"version_{max(taken, default=-1) + 1}"
