"""Decoded data sets on disk, so that the second run starts at once.

One safetensors file a data set under ``$SPIKEDISTILL_CACHE`` or ``~/.cache/spikedistill``; its name carries a hash of
everything the pixels depend on: the source's files with sizes and times, size and channels asked for.
"""

import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch

from spikedistill.data.sets import ImageSet

LAYOUT = 1
OLD = 86400.0
"""Seconds; no data set is written for so long."""


@dataclass(frozen=True)
class Decoded:
    """A whole data set, decoded."""

    classes: tuple[str, ...]
    train: ImageSet
    test: ImageSet


def cache_root() -> Path:
    """Returns the folder for everything that can be made or fetched again."""
    return Path(os.environ.get("SPIKEDISTILL_CACHE") or "~/.cache/spikedistill").expanduser()


def folder_stamp(path: Path) -> list[str]:
    """Lists every visible file under ``path``, behind links too, with size and modification time."""
    stamps: list[str] = [str(path.resolve())]
    seen: set[str] = set()
    for folder, folders, files in os.walk(path, followlinks=True):
        place = os.path.realpath(folder)
        stamps.append(f"{os.path.relpath(folder, path)} is {place}")
        # A link may lead back to where it stands in.
        folders[:] = [name for name in folders if not name.startswith(".") and place not in seen]
        seen.add(place)
        for name in files:
            if not name.startswith("."):
                file = Path(folder, name)
                # A link to nothing is refused with its name when it is read.
                status = file.stat() if file.exists() else file.lstat()
                stamps.append(f"{file.relative_to(path)}:{status.st_size}:{status.st_mtime_ns}")
    return sorted(stamps)


def cache_file(name: str, stamp: list[str], size: int | None, channels: int | None) -> Path:
    """Returns where the decoded data set lies or would lie."""
    key = sha256(json.dumps([LAYOUT, stamp, size, channels]).encode()).hexdigest()[:16]
    return cache_root() / f"{name.replace('/', '--')}-{key}.safetensors"


def read_cache(file: Path) -> Decoded | None:
    """Reads a decoded data set; None where there is none, or it is broken, or not what ``write_cache`` writes."""
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt") as opened:
            classes = json.loads(opened.metadata()["classes"])
            train, test = (
                ImageSet(opened.get_tensor(f"{part}.images"), opened.get_tensor(f"{part}.labels"))
                for part in ("train", "test")
            )
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError, RecursionError):
        return None
    named = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    if not (named and _fits(train, len(classes)) and _fits(test, len(classes))):
        return None
    return Decoded(tuple(classes), train, test) if train.images.shape[1:] == test.images.shape[1:] else None


def _fits(part: ImageSet, classes: int) -> bool:
    images, labels = part.images, part.labels
    if images.dtype != torch.uint8 or images.ndim not in (4, 5) or labels.dtype != torch.int64:
        return False
    if labels.shape != images.shape[:1] or labels.numel() == 0:
        return False
    return int(labels.min()) >= 0 and int(labels.max()) < classes


def write_cache(file: Path, decoded: Decoded) -> None:
    """Writes a decoded data set; where the folder cannot be written nothing happens, it is only a cache."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {
        "train.images": decoded.train.images,
        "train.labels": decoded.train.labels,
        "test.images": decoded.test.images,
        "test.labels": decoded.test.labels,
    }
    # Another process may be writing the same file, and this one may be killed: a rename leaves nothing half-written.
    partial = file.with_suffix(f".{os.getpid()}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        for left in file.parent.glob("*.partial"):
            if time.time() - left.stat().st_mtime > OLD:  # of a process that was killed
                left.unlink()
        save_file(tensors, partial, metadata={"classes": json.dumps(decoded.classes)})
        os.replace(partial, file)
    except (OSError, SafetensorError):  # a full disk is either
        with suppress(OSError):
            partial.unlink(missing_ok=True)
