"""Events of an event camera, and frames of counted events: what a network sees of them.

A pixel of such a camera reports that it became brighter or darker, and when. A recording becomes T frames: it is cut
into T slices of equal length or of equally many events, and each frame counts a slice's events by polarity and place.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spikedistill.errors import UserError

POLARITIES = 2
MOST = 255
"""Frames are uint8; a pixel that sees more events in a slice counts as this many."""


@dataclass(frozen=True)
class Events:
    """The events of one recording, in the order of their times.

    Attributes:
        t: times in microseconds, ``[N]`` int64, ascending.
        x: columns from the left, ``[N]`` int64.
        y: rows from the top, ``[N]`` int64.
        p: polarities, ``[N]`` int64: 0 darker, 1 brighter.
    """

    t: Tensor
    x: Tensor
    y: Tensor
    p: Tensor

    def __len__(self) -> int:
        return self.t.shape[0]


def from_array(array: Any, sensor: tuple[int, int], where: str) -> Events:
    """Takes the structured array that tonic returns, with the fields ``t, x, y, p``.

    Args:
        array: events in any order.
        sensor: height and width of the camera in pixels.
        where: what to call the recording in a message.

    Raises:
        UserError: no events, or events outside the sensor.
    """
    import numpy as np

    if len(array) == 0:
        raise UserError(f"{where} holds no events; remove it or copy it again")
    t, x, y, p = (torch.from_numpy(np.ascontiguousarray(array[field]).astype(np.int64)) for field in "txyp")
    height, width = sensor
    outside = (x < 0) | (x >= width) | (y < 0) | (y >= height)
    if bool(outside.any()):
        first = int(outside.nonzero()[0])
        raise UserError(
            f"{where} has an event at column {int(x[first])}, row {int(y[first])}, outside the sensor's {width} x "
            f"{height} pixels; it is damaged, or a recording of another camera"
        )
    order = torch.argsort(t, stable=True)
    return Events(t[order], x[order], y[order], (p[order] > 0).to(torch.int64))


def to_frames(
    events: Events, sensor: tuple[int, int], frames: int, slicing: str = "time", size: int | None = None
) -> Tensor:
    """Counts events in T slices.

    Args:
        events: a recording.
        sensor: height and width of the camera in pixels.
        frames: T.
        slicing: ``time``: slices of equal length, from the first event to the last; ``count``: slices of equally many
            events (as nearly as whole numbers allow).
        size: side of the frames in pixels: events of a coarser pixel are counted together. None keeps the sensor's.

    Returns:
        ``[T, 2, H, W]`` uint8, channel 0 the events of becoming darker, channel 1 of becoming brighter.
    """
    height, width = sensor
    rows, columns = (height, width) if size is None else (size, size)
    result = torch.zeros(frames * POLARITIES * rows * columns, dtype=torch.int64)
    if len(events):
        slices = SLICERS[slicing](events, frames)
        place = (events.y * rows // height) * columns + events.x * columns // width
        result = torch.bincount((slices * POLARITIES + events.p) * rows * columns + place, minlength=result.shape[0])
    return result.clamp(max=MOST).to(torch.uint8).view(frames, POLARITIES, rows, columns)


def _by_time(events: Events, frames: int) -> Tensor:
    passed = events.t - events.t[0]
    return passed * frames // (passed[-1] + 1)


def _by_count(events: Events, frames: int) -> Tensor:
    return torch.arange(len(events)) * frames // len(events)


SLICERS = {"time": _by_time, "count": _by_count}
"""Name of a slicing to what says which of T slices each event belongs to."""
