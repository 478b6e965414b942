"""One process a run folder.

A POSIX record lock on the file ``.lock``: it belongs to the process and not to its children, so that it ends with the
process however that ends, and workers that outlive it for a moment do not keep it. On NFS such locks hold between
machines where the server has a lock service (NFSv4 always, NFSv3 with lockd); where a file system has none, or the
operating system none (Windows), a warning says that nothing keeps a second process out.
"""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from spikedistill.errors import UserError, WriteFailed

LOCK = ".lock"
_held: set[Path] = set()
"""Folders that this process holds: a record lock does not keep a process from its own files."""


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keeps other processes (and other threads of this one) off a run folder inside the block.

    Raises:
        UserError: someone else holds it.
        WriteFailed: the lock's file cannot be made.
    """
    place = folder.resolve()
    if place in _held:
        raise _in_use(folder, "this very process")
    descriptor = _locked(folder)
    _held.add(place)
    try:
        yield
    finally:
        _held.discard(place)
        with suppress(OSError):  # a file that stays is no lock
            (folder / LOCK).unlink(missing_ok=True)
        os.close(descriptor)


def _locked(folder: Path) -> int:
    """The descriptor of the folder's lock file, locked."""
    path = folder / LOCK
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        except OSError as error:
            raise WriteFailed(f"'{path}' cannot be written: {error.strerror}") from None
        try:
            _lock(descriptor, folder)
            # Whoever held it before may have taken the file away between our opening and our locking it.
            if path.exists() and os.stat(path).st_ino == os.fstat(descriptor).st_ino:
                with suppress(OSError):  # only for the other's message
                    os.ftruncate(descriptor, 0)
                    os.write(descriptor, f"{os.getpid()} on {socket.gethostname()}\n".encode())
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        import fcntl
    except ImportError:
        warnings.warn(f"no file locks here: nothing keeps a second process off '{folder}'", stacklevel=4)
        return
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        holder = os.pread(descriptor, 100, 0).decode("ascii", "replace").strip()
        raise _in_use(folder, f"process {holder}" if holder else "another process") from None
    except OSError as error:
        warnings.warn(
            f"'{folder}' lies on a file system without locks ({error.strerror}): nothing keeps a second process off it",
            stacklevel=4,
        )


def _in_use(folder: Path, holder: str) -> UserError:
    return UserError(
        f"'{folder}' is in use by {holder}; wait until it ends, or choose another folder with out= (two runs in one "
        "folder would write over each other)"
    )
