"""Weights on disk: tensors and plain values, saved completely or not at all."""

import io
from pathlib import Path
from typing import Any

import torch

from al_lightning.run.folder import checksum, write_whole


def save_state(state: dict[str, Any], path: Path) -> None:
    """Save tensors and plain values for :func:`load_state`, completely or not at all."""
    content = io.BytesIO()
    torch.save(state, content)
    write_whole(path, content.getvalue())


def load_state(path: Path, crc: str) -> dict[str, Any]:
    """Load a file of tensors and plain values; nothing else in it is ever run.

    Args:
        path: A file that ``torch.save`` wrote.
        crc: Its :func:`~al_lightning.run.folder.checksum` at that time.

    Raises:
        ValueError: when the file is missing, or is not as it was written.
    """
    found = checksum(path) if path.exists() else "no file"
    if found != crc:
        raise ValueError(
            f"{path} must be as the run wrote it, with checksum {crc}, found {found}; restore it "
            "from a copy"
        )
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state
