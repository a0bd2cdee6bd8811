"""Notes of what stands in the run folder and need not be made again when a run is resumed."""

import json
import os
import zlib
from pathlib import Path
from typing import Any

from al_lightning.monitor.monitor import Loop
from al_lightning.run.folder import checksum, write_whole
from al_lightning.run.records import CycleResult


class Notes:
    """Appends JSON lines to a hidden file; drops a last line that a kill has cut short.

    Args:
        path: The file.

    Attributes:
        lines: All that was noted, oldest first.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        *whole, torn = path.read_bytes().split(b"\n") if path.exists() else [b""]
        if torn:
            write_whole(path, b"".join(line + b"\n" for line in whole))
        self.lines: list[Any] = json.loads(b"[%s]" % b",".join(whole))

    def add(self, *values: Any) -> None:
        """Note plain values."""
        self.lines.append(list(values))
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def clear(self) -> None:
        """Forget all."""
        self.lines.clear()
        self._path.unlink(missing_ok=True)


class Kept:
    """Knows of each file what it was made of.

    A file stands while its size and content are as noted and its origin is the same. So one that
    was deleted, changed or cut short, or that is of another run, is made again. The content is not
    read where the time of its last change is as noted too.

    Args:
        run_dir: The run's folder.
        name: Of a hidden file in it, which holds the notes.
    """

    def __init__(self, run_dir: Path, name: str) -> None:
        self._run_dir = run_dir
        self._origins: dict[str, tuple[Any, ...]]
        self._notes = Notes(run_dir / f".{name}.jsonl")
        self._origins = {name: (origin, *state) for name, origin, *state in self._notes.lines}

    def stands(self, file: str, origin: str) -> bool:
        """Tell whether a file of the run folder is as it was made, of the same origin."""
        known, *state = self._origins.get(file, ("",))
        if known != origin:
            return False
        path = f"{self._run_dir}/{file}"
        try:
            found = os.stat(path)
        except FileNotFoundError:
            return state == [None]
        if state[:2] == [found.st_size, found.st_mtime_ns]:
            return True
        return state[:1] == [found.st_size] and state[2:] == [checksum(Path(path))]

    def note(self, file: str, origin: str) -> None:
        """Remember what the file was made of, or that nothing was made of it."""
        path = self._run_dir / file
        state: list[Any] = [None]
        if path.exists():
            found = path.stat()
            state = [found.st_size, found.st_mtime_ns, checksum(path)]
        self._origins[file] = (origin, *state)
        self._notes.add(file, origin, *state)


def origin_of(loop: Loop, result: CycleResult, num: int | None = None) -> str:
    """Return a checksum of all that a query's table or picture is made of.

    Args:
        loop: The run.
        result: A cycle.
        num: Number of rows that are shown; all when not given.
    """
    query, labels = result.query, loop.data.row_labels
    if query is None:
        return checksum_of(loop, result.cycle)
    rows, pool = query.indices[:num], labels.pool
    columns = [(values or [])[:num] for values in (query.scores, query.predicted, query.maps)]
    is_labeled = pool.labeled_N[rows].tolist()
    given = [[i, labels.given[i]] for i in rows if i in labels.given]
    marked = [sorted(marks.intersection(rows)) for marks in (pool.invalid, pool.skipped)]
    named = loop.data.classes, result.num_labeled
    return checksum_of(loop, result.cycle, rows, columns, is_labeled, given, marked, named)


def checksum_of(loop: Loop, *values: Any) -> str:
    """Return a checksum of plain values of this run."""
    content = repr((loop.records[0]["run"], *values))
    return f"{zlib.crc32(content.encode()):08x}"
