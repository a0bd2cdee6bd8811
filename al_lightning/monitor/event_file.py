"""A file of TensorBoard's events that grows, and is cut back to where it was known to be whole."""

import os
import socket
import time
from pathlib import Path
from typing import Any


class EventFile:
    """Appends events to one file.

    TensorBoard reads several files in the order of the times in their names, and clocks can jump
    back; so one file holds the whole run.

    Args:
        path: The file.
        size: Bytes of it that are known to be whole; what follows is cut off. None begins a file.
    """

    def __init__(self, path: Path, size: int | None = None) -> None:
        self.path = path
        if size is not None:
            os.truncate(path, size)
            return
        path.touch()
        self._write(file_version="brain.Event:2")

    @classmethod
    def named(cls, folder: Path, suffix: str) -> "EventFile":
        """Begin a file whose name is as TensorBoard expects it."""
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}.0"
        return cls(folder / f"{name}{suffix}")

    def add(self, tag: str, step: int, **value: Any) -> int:
        """Write one value, in the words of TensorBoard's ``Summary.Value``.

        Returns:
            The size of the file, which is whole up to there.
        """
        tag = tag.encode(errors="backslashreplace").decode()
        return self._write(step=step, summary={"value": [{"tag": tag, **value}]})

    def _write(self, **event: Any) -> int:
        # Half a second that not every run needs.
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        content = Event(wall_time=time.time(), **event).SerializeToString()
        with open(self.path, "ab") as file:
            RecordWriter(file).write(content)
            return file.tell()
