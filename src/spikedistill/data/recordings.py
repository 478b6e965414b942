"""Recorded event data sets, read with tonic (the extra ``events``).

Files are read as the data sets are published: CIFAR10-DVS in AEDAT 4 (tonic's source, through the package aedat) or in
the original's AEDAT 2, N-MNIST in its five-byte events, DVS128 Gesture in tonic's cut version (one .npy a gesture).
Without a folder tonic downloads them.

CIFAR10-DVS has no test part. Here it is a tenth of each class, drawn once and for all by a seed in this file, over the
recordings in the order of their numbers.
"""

# tonic is an extra.
# pyright: reportMissingImports=false

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spikedistill.data.cache import cache_root, folder_stamp
from spikedistill.data.decode import THREADS
from spikedistill.data.events import POLARITIES, Events, from_array, to_frames
from spikedistill.data.folders import FileRows
from spikedistill.data.images import Opened, open_stored
from spikedistill.data.rows import Rows, Stored
from spikedistill.data.split import stratified_split
from spikedistill.errors import UserError, first_line

if TYPE_CHECKING:
    from spikedistill.data.settings import DataSettings

SPLIT_SEED, TEST_SHARE = 0, 0.1
NMNIST_EVENT_BYTES = 5
AEDAT2 = b"#!AER-DAT2"
EXTRA = "pip install 'spikedistill[events]'"

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
GESTURES = (
    *("hand clapping", "right hand wave", "left hand wave", "right arm clockwise", "right arm counter-clockwise"),
    *("left arm clockwise", "left arm counter-clockwise", "arm roll", "air drums", "air guitar", "other gestures"),
)


@dataclass(frozen=True)
class Recorded:
    """A data set of recordings.

    Attributes:
        line: what it is, for ``spikedistill list data``.
        classes: class names in label order.
        side: of the sensor in pixels.
        tonic: name of tonic's class, which downloads it.
        inside: the folder whose presence shows that the files lie here.
        listed: lists the files of a folder: training and test part.
    """

    line: str
    classes: tuple[str, ...]
    side: int
    tonic: str
    inside: str
    listed: Callable[[Path], tuple[FileRows, FileRows]]


def _cifar10_dvs(root: Path) -> tuple[FileRows, FileRows]:
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(CIFAR10):
        found = [file for file in (root / name).glob("*") if file.suffix in (".aedat4", ".aedat")]
        files += sorted(found, key=_number)
        labels += [label] * len(found)
    every = _rows(files, labels)
    train, test = stratified_split(every.labels, TEST_SHARE, SPLIT_SEED)
    return _some(every, train), _some(every, test)


def _n_mnist(root: Path) -> tuple[FileRows, FileRows]:
    def part(name: str) -> FileRows:
        by_digit = [sorted((root / name / str(digit)).glob("*.bin")) for digit in range(10)]
        labels = [digit for digit, files in enumerate(by_digit) for _ in files]
        return _rows([file for files in by_digit for file in files], labels)

    return part("Train"), part("Test")


def _dvs_gesture(root: Path) -> tuple[FileRows, FileRows]:
    parts = []
    for part in ("ibmGestureTrain", "ibmGestureTest"):
        files = sorted((root / part).glob("*/*.npy"), key=lambda file: (file.parent.name, _number(file)))
        parts.append(_rows(files, [_gesture(file) for file in files]))
    return parts[0], parts[1]


RECORDINGS: dict[str, Recorded] = {
    "cifar10-dvs": Recorded(
        "CIFAR10-DVS, 9,000 + 1,000 recordings of moving CIFAR-10 images, 128 x 128, 10 classes",
        CIFAR10,
        128,
        "CIFAR10DVS",
        CIFAR10[0],
        _cifar10_dvs,
    ),
    "n-mnist": Recorded(
        "N-MNIST, 60,000 + 10,000 recordings of MNIST before a moving camera, 34 x 34, 10 classes",
        tuple(str(digit) for digit in range(10)),
        34,
        "NMNIST",
        "Train",
        _n_mnist,
    ),
    "dvs128-gesture": Recorded(
        "DVS128 Gesture, 1,077 + 264 recordings of hands and arms, 128 x 128, 11 classes",
        GESTURES,
        128,
        "DVSGesture",
        "ibmGestureTrain",
        _dvs_gesture,
    ),
}


def open_recordings(settings: DataSettings, seed: int) -> Opened:
    """Opens ``settings.name``, one of ``RECORDINGS``, as frames ``[T, 2, H, W]``.

    Raises:
        UserError: files that are missing, cut short or empty; tonic not there.
    """
    recorded = RECORDINGS[settings.name]
    root = _root(settings, recorded)
    decoder = FrameDecoder((recorded.side, recorded.side), settings.frames, settings.slicing, settings.size)

    def load() -> Stored:
        train, test = recorded.listed(root)
        if not len(train.labels):
            raise UserError(f"'{root}' holds no recordings of {settings.name}; copy the data set's own files there")
        return Stored(settings.name, recorded.classes, train, test)

    stamp = [*folder_stamp(root), f"{settings.frames} frames by {settings.slicing}"]
    return open_stored(settings.name, stamp, load, lambda _: decoder, settings, seed)


@dataclass(frozen=True)
class FrameDecoder:
    """How a recording becomes frames; see ``events.to_frames``."""

    sensor: tuple[int, int]
    frames: int
    slicing: str
    size: int | None
    threads: int = THREADS

    @property
    def shape(self) -> tuple[int, ...]:
        """``(T, 2, H, W)``."""
        height, width = self.sensor if self.size is None else (self.size, self.size)
        return self.frames, POLARITIES, height, width

    def __call__(self, rows: Rows, row: int) -> Tensor:
        """Reads one recording.

        Raises:
            UserError: a file that is cut short, empty, or of another kind.
        """
        events = read_recording(Path(str(rows.encoded(row))), self.sensor, rows.where(row))
        return to_frames(events, self.sensor, self.frames, self.slicing, self.size)


def read_recording(file: Path, sensor: tuple[int, int], where: str) -> Events:
    """Reads a recording's events.

    Args:
        file: its ending says what it is.
        sensor: height and width in pixels.
        where: what to call it in a message.

    Raises:
        UserError: a file that is cut short, empty, or not what its ending says.
    """
    try:
        if not file.is_file():
            raise ValueError("not a file")  # a pipe would be waited for
        array = READERS[file.suffix](file)
    except ImportError as error:
        raise UserError(f"{where} needs the package {error.name}, which is not installed: {EXTRA}") from error
    # The readers are other packages' and raise whatever their parsing runs into.
    except Exception as error:
        said = first_line(error)
        raise UserError(f"{where} cannot be read ({said}); replace or remove it") from error
    return from_array(array, sensor, where)


def _aedat4(file: Path) -> Any:
    import aedat  # noqa: F401  tonic imports it only when it reads, and names no package
    from tonic.io import read_aedat4

    array = read_aedat4(str(file))
    array.dtype.names = ("t", "x", "y", "p")
    return array


def _aedat2(file: Path) -> Any:
    """AEDAT 2 as the DVS128 writes it (jAER): lines that begin with #, then pairs of address and microseconds.

    An address has 15 bits, rows before columns before one that is 1 for darker; columns are counted from the right and
    rows from the bottom. (tonic's own reader leaves broken files open.)
    """
    import numpy as np

    content, start = file.read_bytes(), 0
    if not content.startswith(AEDAT2):
        raise ValueError(f"it does not begin with {AEDAT2.decode()}")
    while content[start : start + 1] == b"#":
        start = content.index(b"\n", start) + 1
    if (len(content) - start) % 8:
        raise ValueError("cut short")
    pairs = np.frombuffer(content, ">u4", offset=start).reshape(-1, 2).astype(np.int64)
    address = pairs[:, 0]
    array = np.empty(len(pairs), dtype=[("t", "i8"), ("x", "i8"), ("y", "i8"), ("p", "i8")])
    array["t"], array["p"] = pairs[:, 1], 1 - (address & 1)
    array["x"], array["y"] = 127 - ((address >> 1) & 127), 127 - ((address >> 8) & 127)
    return array


def _nmnist(file: Path) -> Any:
    import numpy as np
    from tonic.io import read_mnist_file

    if file.stat().st_size % NMNIST_EVENT_BYTES:
        raise ValueError("cut short")
    return read_mnist_file(str(file), np.dtype([("x", "i8"), ("y", "i8"), ("t", "i8"), ("p", "i8")]))


def _gesture_array(file: Path) -> Any:
    """The events of tonic's cut version: columns x, y, polarity, milliseconds."""
    import numpy as np

    columns = np.load(file, allow_pickle=False)
    if columns.ndim != 2 or columns.shape[1] != 4:
        raise ValueError(f"its array has shape {list(columns.shape)}, not [events, 4]")
    array = np.empty(len(columns), dtype=[("x", "i8"), ("y", "i8"), ("p", "i8"), ("t", "i8")])
    for number, field in enumerate("xypt"):
        array[field] = columns[:, number]
    array["t"] *= 1000
    return array


READERS: dict[str, Callable[[Path], Any]] = {
    ".aedat4": _aedat4,
    ".aedat": _aedat2,
    ".bin": _nmnist,
    ".npy": _gesture_array,
}
"""A file's ending to what reads it: a structured array with the fields t (microseconds), x, y, p."""


def _root(settings: DataSettings, recorded: Recorded) -> Path:
    """The folder with the files: the one given (or tonic's own inside it), or where tonic puts its download."""
    if settings.path is None:
        return _downloaded(settings.name, recorded)
    path = Path(settings.path).expanduser()
    for folder in (path, path / recorded.tonic):
        if (folder / recorded.inside).is_dir():
            return folder
    raise UserError(
        f"data.path '{settings.path}' has no folder '{recorded.inside}'; pass the folder of {settings.name}'s own files"
    )


def _downloaded(name: str, recorded: Recorded) -> Path:
    try:
        import tonic.datasets
    except ImportError as error:
        raise UserError(f"data set '{name}' needs tonic, which is not installed: {EXTRA}") from error
    try:
        kind, place = getattr(tonic.datasets, recorded.tonic), str(cache_root() / "tonic")
        dataset = kind(save_to=place)
        if "train" in inspect.signature(kind).parameters:  # the parts come one by one
            kind(save_to=place, train=False)
    except (OSError, RuntimeError, ValueError) as error:
        said = first_line(error)
        raise UserError(
            f"data set '{name}' could not be downloaded ({said}); pass a local copy of its files with data.path="
        ) from error
    return Path(dataset.location_on_system)


def _rows(files: list[Path], labels: list[int]) -> FileRows:
    return FileRows([str(file) for file in files], torch.tensor(labels, dtype=torch.int64), "recording")


def _some(rows: FileRows, indices: Tensor) -> FileRows:
    return FileRows([rows.files[int(index)] for index in indices], rows.labels[indices], rows.noun)


def _number(file: Path) -> tuple[int, str]:
    """Sorts cifar10_cat_2 before cifar10_cat_10."""
    digits = re.findall(r"\d+", file.stem)
    return (int(digits[-1]) if digits else -1, file.name)


def _gesture(file: Path) -> int:
    if not file.stem.isdecimal() or int(file.stem) >= len(GESTURES):
        raise UserError(f"recording '{file}' is not named by a gesture, 0.npy to {len(GESTURES) - 1}.npy; remove it")
    return int(file.stem)
