"""Checkpoints: written to a new file, synced, then renamed, with a checksum; the last two are kept.

A checkpoint that was cut short or altered is noticed by its checksum, and the one before it is used.
"""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from pathlib import Path
from typing import Any

import torch

KEEP = 2
PATTERN = "step-*.pt"


def write_durably(path: Path, payload: bytes) -> None:
    """Writes a file so that, after a crash at any moment, either the old or the new content stands there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Saves ``state`` (tensors, numbers, strings, lists, dicts of them) as the checkpoint of global step ``step``."""
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    body = buffer.getvalue()
    path = folder / f"step-{step:010d}.pt"
    write_durably(path, hashlib.sha256(body).digest() + body)
    for old in sorted(folder.glob(PATTERN))[:-KEEP]:
        old.unlink(missing_ok=True)
    return path


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The state in a checkpoint, or None where the file is truncated or altered."""
    content = path.read_bytes()
    digest, body = content[:32], content[32:]
    if hashlib.sha256(body).digest() != digest:
        return None
    return torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)


def latest_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest sound checkpoint's state, or None where there is none. A damaged one is named in a warning."""
    for path in sorted(folder.glob(PATTERN), reverse=True):
        state = load_checkpoint(path)
        if state is not None:
            return state
        warnings.warn(f"checkpoint {path} is damaged (checksum); the one before it is used", stacklevel=2)
    return None
