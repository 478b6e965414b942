"""Files that survive a crash, and checkpoints: written to a new file, synced, then renamed, with a checksum.

The last two checkpoints are kept. One that was cut short or altered is noticed by its checksum, and the one before it
is used.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from spikedistill.errors import UserError, WriteFailed, first_line

KEEP = 2
NAME = re.compile(r"step-(\d{10})\.pt")
TEMPORARY = ".*.tmp"
OLD = 3600.0
"""Seconds."""


def write_durably(path: Path, payload: bytes) -> None:
    """Writes a file so that, after a crash at any moment, either the old or the new content stands there.

    Raises:
        WriteFailed: the file cannot be written (a full disk, for one); what stood there before still does.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            temporary.unlink(missing_ok=True)
            # x: nothing that lies there under this name, a link least of all, is written through.
            with temporary.open("xb") as file:
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        raise write_failed(path, error) from error


def write_failed(path: Path, error: OSError) -> WriteFailed:
    """The sentence for a file that cannot be written."""
    return WriteFailed(
        f"'{path}' cannot be written: {error.strerror or error}; what was written before still stands: mend that and "
        "give the command again (train: with --resume)"
    )


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # a folder cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems do that with files only
            raise
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> None:
    """Removes what writes that were killed have left behind; only for who holds the folder."""
    for place in (folder, folder / "checkpoints"):
        for left in place.glob(TEMPORARY):
            with suppress(OSError):
                left.unlink()


def sweep_below(folder: Path) -> None:
    """Removes the same from a folder of pages and records, which nobody holds: what is older than any write lasts."""
    for left in folder.rglob(TEMPORARY):
        with suppress(OSError):
            if time.time() - left.lstat().st_mtime > OLD:
                left.unlink()


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Saves ``state`` (tensors, numbers, strings, lists, dicts of them) as the checkpoint of global step ``step``.

    Raises:
        WriteFailed: it cannot be written; the ones before still stand.
    """
    path = folder / f"step-{step:010d}.pt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_failed(folder, error) from error
    buffer = io.BytesIO()
    torch.save(state, buffer)
    body = buffer.getvalue()
    write_durably(path, hashlib.sha256(body).digest() + body)
    for old in _to_remove(folder, path):
        with suppress(OSError):
            old.unlink()
    return path


def _to_remove(folder: Path, newest: Path) -> list[Path]:
    """All but the last two up to ``newest``, and those behind it: the run did not go on from these, so they are bad."""
    found = checkpoints(folder)
    behind = [path for path in found if path.name > newest.name]
    return [*found[: len(found) - len(behind)][:-KEEP], *behind]


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the oldest first; files of other names are nobody's business."""
    return sorted(path for path in folder.glob("step-*.pt") if NAME.fullmatch(path.name))


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The state in a checkpoint, or None where the file is truncated or altered.

    Raises:
        OSError: the file cannot be read.
        UserError: its checksum is right but it is no checkpoint; no code of the file is ever run.
    """
    if not path.is_file():  # a pipe would be waited for
        return None
    content = path.read_bytes()
    digest, body = content[:32], content[32:]
    if hashlib.sha256(body).digest() != digest:
        return None
    try:
        state = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever it is that a stranger put there
        reason = first_line(error)
        raise UserError(f"'{path}' is no checkpoint of spikedistill: {reason}") from None
    if not isinstance(state, dict):
        raise UserError(f"'{path}' is no checkpoint of spikedistill: it holds a {type(state).__name__}")
    return state


def latest_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest sound checkpoint's state, or None where there is none. A damaged one is named in a warning.

    Raises:
        UserError: a file there is no checkpoint, although its checksum is right; or none can be read, for a reason that
            may pass, so that a run must not begin anew over them.
    """
    paths, unreadable = checkpoints(folder)[::-1], None
    for path, before in zip(paths, [*paths[1:], None], strict=False):
        try:
            state, fault = load_checkpoint(path), "is damaged (checksum)"
        except OSError as error:
            state, fault, unreadable = None, f"cannot be read ({error.strerror})", error
        if state is not None:
            return state
        then = f"{before.name} before it is used" if before else "there is none before it, so the run begins anew"
        if before or unreadable is None:
            warnings.warn(f"checkpoint {path} {fault}; {then}", stacklevel=2)
    if unreadable is not None:
        raise UserError(
            f"no checkpoint in '{folder}' is sound, and '{unreadable.filename}' cannot be read "
            f"({unreadable.strerror}); mend that and go on with --resume, or choose another folder with out="
        )
    return None
