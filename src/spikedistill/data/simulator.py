"""An event camera that looks at moving pictures: any images become recordings.

The scene is that of CIFAR10-DVS (Li et al. 2017, "CIFAR10-DVS: an event-stream dataset for object classification",
Frontiers in Neuroscience 11:309): an image, enlarged by bicubic interpolation and shown on a monitor, moves smoothly
along a closed loop again and again before a camera that stands still. The loop is a square on its corner, four diagonal
strokes. How far, how fast and how often the image moves, and the camera's threshold, are settings, their defaults this
project's choice: with them a CIFAR-10 image on a sensor of 128 x 128 pixels gives some 200,000 events in 1.2 seconds.

A pixel compares the logarithm of its light with what it last remembered. Each time it has risen or fallen by the
threshold, the pixel reports an event of that polarity and remembers the new level (Lichtsteiner et al. 2008, the DVS128
of that recording). Light changes linearly between the positions that are computed, so that an event's time is where the
line crosses the threshold. For a short time after an event the pixel is blind: it follows the light without reporting.
Thresholds differ a little from pixel to pixel, and pixels report out of nowhere now and then.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from spikedistill.data.augment import warp
from spikedistill.data.events import POLARITIES, Events
from spikedistill.data.seeds import generator
from spikedistill.errors import UserError

MICROSECONDS = 1_000_000
LUMA = (0.299, 0.587, 0.114)
STROKES = ((0.0, -1.0), (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0))
STEPS_PER_PIXEL = 2
LOWEST_THRESHOLD = 0.2
ROUNDING = 1e-6


@dataclass(frozen=True)
class SimulatorSettings:
    """The camera and the movement before it: the section ``data.simulator``.

    Attributes:
        side: of the sensor in pixels, to which the images are enlarged; None takes the images' own size.
        seconds: length of a recording.
        loops: how often the image goes round in that time.
        travel: how far it moves from the middle, as a share of the sensor's side.
        threshold: change of log light that makes an event.
        mismatch: standard deviation of the thresholds from pixel to pixel, as a share of the threshold.
        dark: light of a black pixel, where that of a white one is 1 + dark.
        refractory: seconds for which a pixel is blind after an event.
        noise: events a second and pixel that nothing caused.
        seed: decides thresholds and noise; the same whatever the run's seed.
    """

    side: int | None = None
    seconds: float = 1.2
    loops: int = 6
    travel: float = 0.06
    threshold: float = 0.3
    mismatch: float = 0.03
    dark: float = 0.08
    refractory: float = 0.001
    noise: float = 0.1
    seed: int = 0

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        for key in ("seconds", "travel", "threshold", "dark"):
            if not (math.isfinite(getattr(self, key)) and getattr(self, key) > 0):
                raise UserError(f"data.simulator.{key} is {getattr(self, key)}; it must be above 0")
        for key in ("mismatch", "refractory", "noise"):
            if not (math.isfinite(getattr(self, key)) and getattr(self, key) >= 0):
                raise UserError(f"data.simulator.{key} is {getattr(self, key)}; it must be 0 or more")
        for key in ("side", "loops"):
            if getattr(self, key) is not None and getattr(self, key) < 1:
                raise UserError(f"data.simulator.{key} is {getattr(self, key)}; it must be at least 1")


def record(images: Tensor, settings: SimulatorSettings, part: str, indices: Sequence[int]) -> list[Events]:
    """Records images, one recording each.

    Args:
        images: ``[B, C, H, W]``, C 1 or 3, uint8 or float in [0, 1].
        settings: camera and movement.
        part: with the index, decides on an image's noise (``train``, ``test``, ...).
        indices: of the B images.

    Returns:
        B recordings; ``sensor_of(images, settings)`` is the sensor they are of.
    """
    light = _enlarged(_grey(images), settings.side)
    path = _path(settings, light.shape[-1])
    levels = torch.stack([(_moved(light, dx, dy) + settings.dark).log().flatten(1) for dx, dy in path])
    steps = len(path) * settings.loops
    rows = torch.arange(steps + 1) % len(path)
    times = torch.linspace(0, settings.seconds * MICROSECONDS, steps + 1, dtype=torch.float64)
    thresholds = _thresholds(settings, levels.shape[-1])
    found = crossings(levels, rows, times, thresholds, settings.refractory * MICROSECONDS)
    noise = _noise(settings, levels.shape[-1], part, indices)
    which, t, pixel, p = (torch.cat(pair) for pair in zip(found, noise, strict=True))
    return _recordings(which, t, pixel, p, len(images), light.shape[-1])


def sensor_of(images: Tensor, settings: SimulatorSettings) -> tuple[int, int]:
    """Height and width in pixels of the camera that looks at images ``[..., H, W]``."""
    side = settings.side
    return (images.shape[-2], images.shape[-1]) if side is None else (side, side)


def crossings(
    levels: Tensor, rows: Tensor, times: Tensor, thresholds: Tensor, refractory: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Finds where levels have changed by the threshold since the last event.

    Args:
        levels: log light ``[K, B, P]`` of B images and P pixels at K positions.
        rows: which of the K positions is reached at each time, ``[S]`` int64; a recording starts with the first one
            remembered. Between two times levels change linearly.
        times: ``[S]`` float64, ascending, in microseconds.
        thresholds: of each pixel, ``[P]``.
        refractory: microseconds for which a pixel is blind after an event.

    Returns:
        Of each event its image, time (microseconds, rounded), pixel and polarity, int64, in no order.
    """
    remembered = levels[rows[0]].clone()
    last = torch.full(remembered.shape, -math.inf, dtype=torch.float64)
    found: list[tuple[Tensor, ...]] = []
    for step in range(len(rows) - 1):
        before, after = levels[rows[step]], levels[rows[step + 1]]
        change = after - remembered
        # A level that reaches the threshold exactly must not miss it by a rounding error.
        times_over = (change.abs() / thresholds + ROUNDING).floor()
        image, pixel = times_over.nonzero(as_tuple=True)
        if not len(image):
            continue
        count, sign = times_over[image, pixel], change[image, pixel].sign()
        size, start = sign * thresholds[pixel], before[image, pixel]
        slope, memory = after[image, pixel] - start, remembered[image, pixel]
        for number in range(1, int(count.max()) + 1):
            share = ((memory + number * size - start) / slope).clamp(0, 1).double()
            t = times[step] + share * (times[step + 1] - times[step])
            seen = (count >= number) & (t - last[image, pixel] >= refractory)
            last[image[seen], pixel[seen]] = t[seen]
            polarity = (sign[seen] > 0).long()
            found.append((image[seen], t[seen].round().long(), pixel[seen], polarity))
        remembered[image, pixel] = memory + count * size
    empty = torch.empty(0, dtype=torch.int64)
    which, t, pixel, p = (torch.cat(parts) for parts in zip(*found, strict=True)) if found else (empty,) * 4
    return which, t, pixel, p


def _grey(images: Tensor) -> Tensor:
    light = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    if light.shape[1] == 1:
        return light
    return (light * torch.tensor(LUMA)[:, None, None]).sum(1, keepdim=True)


def _enlarged(light: Tensor, side: int | None) -> Tensor:
    if side is None or tuple(light.shape[-2:]) == (side, side):
        return light
    return F.interpolate(light, size=(side, side), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)


def _path(settings: SimulatorSettings, side: int) -> list[tuple[float, float]]:
    """Positions (right, down) in pixels of one round; the one after the last is the first again."""
    reach = settings.travel * side
    steps = max(2, math.ceil(STEPS_PER_PIXEL * reach))
    corners = [*STROKES, STROKES[0]]
    return [
        (reach * (x + (far_x - x) * step / steps), reach * (y + (far_y - y) * step / steps))
        for (x, y), (far_x, far_y) in pairwise(corners)
        for step in range(steps)
    ]


def _moved(light: Tensor, right: float, down: float) -> Tensor:
    """Moves pictures ``[B, 1, H, W]`` by parts of pixels; beyond its edge a picture goes on as it ends."""
    matrix = torch.tensor([[1.0, 0.0, -right], [0.0, 1.0, -down]])
    return warp(light, matrix.expand(len(light), 2, 3), "bilinear", padding="border")


def _thresholds(settings: SimulatorSettings, pixels: int) -> Tensor:
    """The camera's own: the same for all its recordings."""
    spread = torch.randn(pixels, generator=generator(settings.seed, "simulator", "thresholds"))
    return settings.threshold * (1 + settings.mismatch * spread).clamp(min=LOWEST_THRESHOLD)


def _noise(
    settings: SimulatorSettings, pixels: int, part: str, indices: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    expected = torch.tensor([settings.noise * settings.seconds * pixels])
    parts: list[tuple[Tensor, ...]] = []
    for row, index in enumerate(indices):
        draws = generator(settings.seed, "simulator", "noise", part, index)
        count = int(torch.poisson(expected, generator=draws))
        limits = (int(settings.seconds * MICROSECONDS) + 1, pixels, POLARITIES)
        drawn = [torch.randint(0, limit, (count,), generator=draws) for limit in limits]
        parts.append((torch.full((count,), row), *drawn))
    which, t, pixel, p = (torch.cat(column) for column in zip(*parts, strict=True))
    return which, t, pixel, p


def _recordings(which: Tensor, t: Tensor, pixel: Tensor, p: Tensor, count: int, width: int) -> list[Events]:
    longest = int(t.max()) + 1 if len(t) else 1
    order = torch.argsort(which * longest + t, stable=True)
    sizes = torch.bincount(which, minlength=count).tolist()
    columns = [column[order].split(sizes) for column in (t, pixel % width, pixel // width, p)]
    return [Events(*rows) for rows in zip(*columns, strict=True)]
