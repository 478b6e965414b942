"""Decoded data sets on disk, so that the second run starts at once.

One safetensors file a data set under ``$SPIKEDISTILL_CACHE`` or ``~/.cache/spikedistill``; its name carries a hash of
everything the pixels depend on: the source's files with sizes and times, size and channels asked for.
"""

import json
import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from spikedistill.data.sets import ImageSet

LAYOUT = 1


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
    """Lists every visible file under ``path`` with size and modification time."""
    stamps: list[str] = [str(path.resolve())]
    for folder, folders, files in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".")]
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
    """Reads a decoded data set; None where there is none or it is broken."""
    from safetensors import SafetensorError, safe_open

    if not file.exists():
        return None
    try:
        with safe_open(file, framework="pt") as opened:
            classes = tuple(json.loads(opened.metadata()["classes"]))
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return None
    return Decoded(
        classes,
        ImageSet(tensors["train.images"], tensors["train.labels"]),
        ImageSet(tensors["test.images"], tensors["test.labels"]),
    )


def write_cache(file: Path, decoded: Decoded) -> None:
    """Writes a decoded data set; where the folder cannot be written nothing happens, it is only a cache."""
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
        save_file(tensors, partial, metadata={"classes": json.dumps(decoded.classes)})
        os.replace(partial, file)
    except OSError:
        partial.unlink(missing_ok=True)
