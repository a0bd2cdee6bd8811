"""An append-only record of decisions that survives a kill at any moment.

Each line is a JSON object. Its ``crc`` is a checksum of the line and of all lines before it, so a
line that was changed, removed, repeated or moved is noticed. A line is on the disk before
:meth:`Journal.append` returns. A last line that was cut short is dropped. Any other damage is an
error, because what follows it cannot be trusted.
"""

import json
import os
import zlib
from pathlib import Path
from typing import Any, NamedTuple

Record = dict[str, Any]

FORMAT = 2
"""The format of the records; the first record names it."""

FOLLOWS = {
    "start": ("fit", "query"),
    "fit": ("test",),
    "test": ("query", "end"),
    "query": ("answers", "labels"),
    "answers": ("answers", "undo", "labels"),
    "undo": ("answers", "undo", "labels"),
    "labels": ("fit",),
    "end": (),
}
"""The events that may follow each event. A fit opens a cycle, labels close it. Cycle 0 has no fit:
it asks for the first labels of a run that begins with none."""

SETTINGS = "settings"
"""The event of options that change when a run is resumed. It may follow any event, and what could
follow that one may follow it. After an end, what could have been there in its place."""


class Journal:
    """Holds the records of one run, in memory and, when a path is given, on disk.

    Args:
        path: The file. When it exists it is read, and a torn last line is cut off. None keeps the
            records in memory alone.
        known: A copy of the file, which is not read again where it has not changed since.

    Attributes:
        records: All records, oldest first.
        last: The last one that is more than a change of options; None when there is none.

    Raises:
        ValueError: as :func:`read_records`.
    """

    def __init__(self, path: Path | None = None, known: "Journal | None" = None) -> None:
        self.path = path
        self.records: list[Record] = []
        self.last: Record | None = None
        self._found: _Found | None = None  # of a copy, when the file was in this state
        self._state: tuple[int, ...] = ()
        self._crc = self._history = 0
        self._num_bytes = 0
        self._before: Record | None = None
        if path is not None and path.exists():
            is_known = known is not None and known._state == _state(path)
            self._take(known._found if known and known._found and is_known else _read(path))
            if self._num_bytes < path.stat().st_size:
                os.truncate(path, self._num_bytes)  # or the next line would join the torn one

    def append(self, event: str, **fields: Any) -> Record:
        """Add a record; return it as it will be read back.

        Raises:
            TypeError: when a field is not plain JSON data.
            OSError: when it cannot be written, for example on a full disk; the file is as before.
            RuntimeError: when somebody else has written to the file.
        """
        if event == "start":
            fields = {"format": FORMAT, **fields}
        line, crc = _encode({"event": event, **fields}, self._crc)
        if self.path is not None:
            self._write(self.path, line)
        record: Record = json.loads(line)
        del record["crc"]
        self.records.append(record)
        self._crc = crc
        self._num_bytes += len(line)
        self._before = _after(self._before, record)
        if event != SETTINGS:
            self.last = record
            self._history = zlib.crc32(_body(line), self._history)
        return record

    @classmethod
    def watched(cls, path: Path) -> "Journal":
        """Read a file that another process may be writing; :meth:`follow` reads on."""
        journal = cls()
        journal.path = path
        if path.exists():
            journal.follow()
        return journal

    def follow(self, *, as_writer: bool = False) -> list[Record]:
        """Take in what others have added to the file since; return the new records.

        Args:
            as_writer: Cut off a torn last line, for which one must be the only writer. Otherwise
                it is left, because somebody may be writing it right now.

        Raises:
            ValueError: as :func:`read_records`, also when the file is shorter than before.
        """
        assert self.path is not None
        new = self._read_on(self.path)
        if as_writer and self.path.stat().st_size > self._num_bytes:
            os.truncate(self.path, self._num_bytes)
        return new

    def _read_on(self, path: Path) -> list[Record]:
        num_bytes = path.stat().st_size
        if num_bytes == self._num_bytes:
            return []
        if num_bytes < self._num_bytes:
            raise ValueError(
                f"{path} must only grow, found {num_bytes} bytes where {self._num_bytes} were "
                "read before; somebody cut the file: start again from what is there"
            )
        known = _Found([], self.last, self._before, self._crc, self._history, self._num_bytes)
        found = _read(path, known, len(self.records))
        self._take(found._replace(records=[*self.records, *found.records]))
        return found.records

    def find(self, event: str, cycle: int) -> Record | None:
        """Return the record of ``event`` in ``cycle``; None when it has not happened."""
        return next((r for r in reversed(self.of(event)) if r.get("cycle") == cycle), None)

    def of(self, event: str) -> list[Record]:
        """Return all records of ``event``, oldest first."""
        return [record for record in self.records if record["event"] == event]

    @property
    def history(self) -> str:
        """Checksum of all that was decided so far; options that changed do not count."""
        return f"{self._history:08x}"

    @classmethod
    def copy_of(cls, path: Path) -> "Journal":
        """Read a file, and write nothing; raise ValueError as :func:`read_records`."""
        journal = cls()
        if path.exists():
            journal._state = _state(path)
            journal._found = _read(path)
            journal._take(journal._found)
        return journal

    def _take(self, found: "_Found") -> None:
        self.records, self.last, self._before = list(found.records), found.last, found.before
        self._crc, self._history, self._num_bytes = found.crc, found.history, found.num_bytes

    @classmethod
    def in_memory(cls, records: list[Record]) -> "Journal":
        """Return a journal that holds ``records`` and writes nothing: for ranks other than 0."""
        journal = cls()
        for record in records:
            fields = dict(record)
            journal.append(fields.pop("event"), **fields)
        return journal

    def _write(self, path: Path, line: bytes) -> None:
        binary = getattr(os, "O_BINARY", 0)  # or Windows would write other line ends
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | binary, 0o666)
        try:
            found = os.fstat(file).st_size
            if found != self._num_bytes:
                raise RuntimeError(
                    f"{path} must have one writer, found {found} bytes where this run wrote "
                    f"{self._num_bytes}; resume the run anew to go on from what is there"
                )
            try:
                written = 0
                while written < len(line):  # a disk that is nearly full takes a part
                    written += os.write(file, line[written:])
                os.fsync(file)
            except OSError:
                os.ftruncate(file, self._num_bytes)
                raise
        finally:
            os.close(file)
        if self._num_bytes == 0:
            sync_folder(path.parent)


def read_records(path: Path) -> list[Record]:
    """Read the records in the file, without a torn last line; write nothing.

    Raises:
        ValueError: when a complete line is damaged, or the events are not in an order that a run
            can take; names the line. Also when another version wrote the file.
    """
    return _read(path).records if path.exists() else []


class _Found(NamedTuple):
    """Holds what a journal's file says."""

    records: list[Record]
    last: Record | None
    before: Record | None
    """The record that says what may follow."""
    crc: int
    """The running checksum after the records."""
    history: int
    """The same without changes of options."""
    num_bytes: int


def _state(path: Path) -> tuple[int, ...]:
    """Return what changes when a file does."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


NOTHING = _Found([], None, None, 0, 0, 0)


def _read(path: Path, known: _Found = NOTHING, num_known: int = 0) -> _Found:
    """Read the lines that come after what is known; return their records, and the state then."""
    with open(path, "rb") as file:
        file.seek(known.num_bytes)
        *lines, _torn = file.read().split(b"\n")
    crcs = [known.crc]
    for line in lines:
        body, crc = _checked(line, crcs[-1])
        if body is None:
            break
        crcs.append(crc)
    num_whole = len(crcs) - 1
    # At once, which takes a fifth of the time.
    records: list[Record] = json.loads(b"[%s]" % b",".join(map(_body, lines[:num_whole])))
    last, before, history = known.last, known.before, known.history
    has_changed = known.history != known.crc
    for number, record in enumerate(records):
        if not _may_follow(before, record):
            where = num_known + number
            raise _damage(path, where, num_known + len(lines), "its event is out of order")
        before = _after(before, record)
        if record["event"] == SETTINGS:
            has_changed = True
            continue
        last = record
        history = zlib.crc32(_body(lines[number]), history) if has_changed else crcs[number + 1]
    if num_whole < len(lines):
        where = num_known + num_whole
        raise _damage(path, where, num_known + len(lines), "its checksum is wrong")
    first = records[0] if records and not num_known else {"format": FORMAT}
    if first.get("format") != FORMAT:
        raise ValueError(
            f"{path} must be of format {FORMAT}, found {first.get('format')}: another version "
            "of al_lightning wrote it; go on with that one, or begin anew in another folder"
        )
    num_bytes = known.num_bytes + sum(len(line) + 1 for line in lines)
    return _Found(records, last, before, crcs[-1], history, num_bytes)


def _damage(path: Path, place: int, num_lines: int, wrong: str) -> ValueError:
    return ValueError(
        f"{path} is damaged at line {place + 1} of {num_lines}: {wrong}; restore the file from a "
        "copy, or cut it before that line and resume from there"
    )


def _after(before: Record | None, record: Record) -> Record | None:
    """Return the record that says what may follow next."""
    if record["event"] != SETTINGS:
        return record
    if before is not None and before["event"] == "end":
        return {**before, "event": "test"}
    return before


def _may_follow(before: Record | None, record: Record) -> bool:
    if before is None:
        return bool(record["event"] == "start")
    cycle = before.get("cycle", 0) + (record["event"] == "fit")
    return record["event"] in (*FOLLOWS[before["event"]], SETTINGS) and record["cycle"] == cycle


def _encode(record: Record, crc: int) -> tuple[bytes, int]:
    body = json.dumps(record)
    crc = zlib.crc32(body.encode(), crc)
    return f'{body[:-1]}, "crc": "{crc:08x}"}}\n'.encode(), crc


def _body(line: bytes) -> bytes:
    """Return a line without its checksum."""
    return line.rpartition(b', "crc": "')[0] + b"}"


def _checked(line: bytes, crc: int) -> tuple[bytes | None, int]:
    """Return a line without its checksum, None when damaged; and the running checksum after it."""
    body, separator, tail = line.rpartition(b', "crc": "')
    body += b"}"
    crc = zlib.crc32(body, crc)
    return (body if separator and tail == f'{crc:08x}"}}'.encode() else None), crc


def sync_folder(folder: Path) -> None:
    """Wait until new names in ``folder`` are on the disk; Windows has no call for that."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
