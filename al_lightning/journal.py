"""An append-only record of decisions that survives a kill at any moment.

One JSON object a line, with the checksum of the rest of the line under ``crc``. A line is on the
disk before :meth:`Journal.append` returns. A last line that was cut short is recognised and
dropped; a damaged line before it is an error, because what follows it cannot be trusted.
"""

import json
import os
import zlib
from pathlib import Path
from typing import Any

Record = dict[str, Any]


class Journal:
    """The records of one run, in memory and, when a path is given, on disk.

    Args:
        path: The file; read when it exists. None keeps the records in memory alone.

    Raises:
        ValueError: when a line before the last is damaged; names the line.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.records: list[Record] = []
        if path is not None and path.exists():
            self._replay(path)

    def append(self, event: str, **fields: Any) -> Record:
        """Adds a record and returns it as it will be read back.

        Raises:
            TypeError: when a field is not plain JSON data.
        """
        line = _encode({"event": event, **fields})
        if self.path is not None:
            is_new = not self.path.exists()
            with open(self.path, "ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            if is_new:
                _sync_directory(self.path.parent)
        record = _decode(line)
        assert record is not None
        self.records.append(record)
        return record

    def find(self, event: str, cycle: int) -> Record | None:
        """The record of ``event`` in ``cycle``, or None when that has not happened."""
        for record in reversed(self.records):
            if record["event"] == event and record.get("cycle") == cycle:
                return record
        return None

    def of(self, event: str) -> list[Record]:
        """All records of ``event``, oldest first."""
        return [record for record in self.records if record["event"] == event]

    @classmethod
    def in_memory(cls, records: list[Record]) -> "Journal":
        """A journal that holds ``records`` and writes nothing: for every rank but the first."""
        journal = cls()
        journal.records = list(records)
        return journal

    def _replay(self, path: Path) -> None:
        content = path.read_bytes()
        lines = content.splitlines(keepends=True)
        good_bytes = 0
        for number, line in enumerate(lines, start=1):
            record = _decode(line)
            if record is None and number < len(lines):
                raise ValueError(
                    f"{path} is damaged at line {number} of {len(lines)}: its checksum does not "
                    "match; restore the file from a copy, or cut it before that line"
                )
            if record is not None:
                self.records.append(record)
                good_bytes += len(line)
        if good_bytes < len(content):
            os.truncate(path, good_bytes)  # or the next append would join the torn line


def _encode(record: Record) -> bytes:
    body = json.dumps(record)
    return f'{body[:-1]}, "crc": "{zlib.crc32(body.encode()):08x}"}}\n'.encode()


def _decode(line: bytes) -> Record | None:
    """The record in ``line``, without its checksum; None when the line is torn or altered."""
    body, separator, tail = line.rpartition(b', "crc": "')
    body += b"}"
    if not separator or tail != f'{zlib.crc32(body):08x}"}}\n'.encode():
        return None
    record: Record = json.loads(body)
    return record


def _sync_directory(folder: Path) -> None:
    """Makes a new file's name durable, where the system allows it (not on Windows)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
