"""Augmentations on whole batches, on whatever device the batch is.

Each one draws its random numbers for all images of a batch at once, from a CPU generator, and then applies them
without looking at single images. Drawing and applying are apart so that several processes can draw for the global
batch and each apply its own slice of the draws.
"""

import math
from typing import ClassVar

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from spikedistill.data.sets import DataInfo

ASPECT = 4 / 3
"""The most of a rectangle's sides to one another that ``resizedcrop`` cuts out."""

Draws = tuple[Tensor, ...]


class Augmentation:
    """The contract: draw for ``count`` images, then apply to as many.

    Class attributes say what value the name takes: ``default`` (None: it takes no value), the accepted range
    ``low`` .. ``high``, and whether it must be ``whole``. Any number of channels must do: a sequence comes with its T
    steps as T * C channels, so that one draw holds for all of them.
    """

    default: ClassVar[float | None] = None
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = math.inf
    whole: ClassVar[bool] = False
    after_normalise: ClassVar[bool] = False

    def __init__(self, value: float, info: DataInfo) -> None:
        self.value = value
        self.info = info
        self.height, self.width = info.shape[1:]

    def draw(self, count: int, generator: Generator) -> Draws:
        """Draws random numbers, each tensor ``[count, ...]`` on the CPU."""
        raise NotImplementedError

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        """Augments ``[B, C, H, W]`` float images with B draws (still on the CPU); returns the same shape."""
        raise NotImplementedError


class Shift(Augmentation):
    """Moves the image by whole pixels, each way up to the value, and fills with black.

    The same as padding by the value and cutting out a random crop of the old size.
    """

    default, low, whole = 4, 1, True

    def draw(self, count: int, generator: Generator) -> Draws:
        return (torch.randint(0, 2 * int(self.value) + 1, (count, 2), generator=generator),)

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        corner = draws[0].to(images.device, non_blocking=True)
        padded = F.pad(images, (int(self.value),) * 4)
        windows = padded.unfold(2, self.height, 1).unfold(3, self.width, 1)
        index = torch.arange(images.shape[0], device=images.device)
        return windows[index, :, corner[:, 0], corner[:, 1]]


class Flip(Augmentation):
    """Mirrors left and right with the value as probability."""

    default, high = 0.5, 1.0

    def draw(self, count: int, generator: Generator) -> Draws:
        return (torch.rand(count, generator=generator) < self.value,)

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        return torch.where(_per_image(draws[0], images), images.flip(-1), images)


class Rotate(Augmentation):
    """Turns the image about its middle by an angle uniform within +- the value in degrees; bilinear, black outside."""

    default, high = 15.0, 180.0

    def draw(self, count: int, generator: Generator) -> Draws:
        return ((torch.rand(count, generator=generator) * 2 - 1) * self.value,)

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        return warp(images, rotation(draws[0]), "bilinear")


class ResizedCrop(Augmentation):
    """Cuts out a random rectangle and enlarges it to the image's size (Inception-style crop, Szegedy et al. 2015).

    Area uniform between the value and 1, aspect ratio log-uniform between 3/4 and 4/3, bilinear. It works on images in
    memory, already resized and centre-cropped; where they are read one by one, ``cropping.py`` cuts the picture itself.
    """

    default, low, high = 0.08, 0.01, 1.0

    def draw(self, count: int, generator: Generator) -> Draws:
        area = self.value + (1 - self.value) * torch.rand(count, generator=generator)
        log_ratio = (torch.rand(count, generator=generator) * 2 - 1) * math.log(ASPECT)
        sides = torch.stack([(area * log_ratio.exp()).sqrt(), (area / log_ratio.exp()).sqrt()], 1).clamp(max=1)
        return (sides, torch.rand(count, 2, generator=generator))

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        sides, place = draws
        size = torch.tensor([self.width, self.height], dtype=images.dtype)
        offset = (place - 0.5) * (1 - sides) * size
        zero = torch.zeros_like(sides[:, 0])
        rows = [torch.stack([sides[:, 0], zero, offset[:, 0]], 1), torch.stack([zero, sides[:, 1], offset[:, 1]], 1)]
        return warp(images, torch.stack(rows, 1), "bilinear", padding="border")


class Cutout(Augmentation):
    """Blanks a square with the value as side, centred on any pixel and clipped at the edge.

    DeVries and Taylor 2017, section 3. Filled with zero after normalisation, which is the mean colour.
    """

    default, low, whole, after_normalise = 8, 1, True, True

    def draw(self, count: int, generator: Generator) -> Draws:
        rows = torch.randint(0, self.height, (count,), generator=generator)
        columns = torch.randint(0, self.width, (count,), generator=generator)
        return (torch.stack([rows, columns], 1) - int(self.value) // 2,)

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        corner = draws[0]
        return blank(images, corner, torch.full_like(corner, int(self.value)))


class Erase(Augmentation):
    """Blanks a random rectangle with the value as probability (Random Erasing, Zhong et al. 2020, algorithm 1).

    Area uniform in 2 % .. 40 %, aspect ratio in 0.3 .. 1/0.3. Deviations: the ratio is log-uniform, a rectangle that
    does not fit is cut to the image instead of drawn again, and the fill is the mean colour (their RE-M).
    """

    default, high, after_normalise = 0.25, 1.0, True

    def draw(self, count: int, generator: Generator) -> Draws:
        hit = torch.rand(count, generator=generator) < self.value
        area = (0.02 + 0.38 * torch.rand(count, generator=generator)) * self.height * self.width
        ratio = ((torch.rand(count, generator=generator) * 2 - 1) * math.log(1 / 0.3)).exp()
        limit = torch.tensor([self.height, self.width])
        sides = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], 1).round().long().clamp(min=1)
        sides = sides.minimum(limit)
        corner = (torch.rand(count, 2, generator=generator) * (limit - sides + 1)).long()
        return (corner, sides * hit[:, None])

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        return blank(images, draws[0], draws[1])


def blank(images: Tensor, corner: Tensor, sides: Tensor) -> Tensor:
    """Sets a rectangle of each image to zero: corner and sides ``[B, 2]`` as (row, column), clipped at the edge."""
    first, sides = corner.to(images.device, non_blocking=True), sides.to(images.device, non_blocking=True)
    last = first + sides
    rows = torch.arange(images.shape[2], device=images.device)
    columns = torch.arange(images.shape[3], device=images.device)
    in_rows = (rows >= first[:, :1]) & (rows < last[:, :1])
    in_columns = (columns >= first[:, 1:]) & (columns < last[:, 1:])
    return images.masked_fill((in_rows[:, :, None] & in_columns[:, None, :])[:, None], 0)


def rotation(degrees: Tensor) -> Tensor:
    """Returns ``[B, 2, 3]`` matrices for ``warp`` that turn each image by ``degrees`` ``[B]``, counter-clockwise."""
    angle = degrees.double().deg2rad()
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1).to(degrees.dtype)


def warp(images: Tensor, matrices: Tensor, mode: str, padding: str = "zeros") -> Tensor:
    """Resamples each image by its affine map.

    Args:
        images: ``[B, C, H, W]`` float.
        matrices: ``[B, 2, 3]``; maps an output position (x, y) to the input position it is read from, both in
            pixels from the middle of the image.
        mode: ``nearest`` or ``bilinear``.
        padding: what lies outside: ``zeros`` or ``border``.
    """
    height, width = images.shape[2:]
    options = {"device": images.device, "dtype": images.dtype}
    y = torch.arange(height, **options) - (height - 1) / 2
    x = torch.arange(width, **options) - (width - 1) / 2
    matrices = matrices.to(**options, non_blocking=True)
    grid = matrices[:, None, None, :, 0] * x[:, None] + matrices[:, None, None, :, 1] * y[:, None, None]
    grid = grid + matrices[:, None, None, :, 2]
    # Filled there: a tensor of two numbers from here would make the processor wait for the device.
    scale = torch.stack([torch.full((), 2 / side, **options) for side in (width, height)])
    return F.grid_sample(images, grid * scale, mode=mode, padding_mode=padding, align_corners=False)


def _per_image(flags: Tensor, images: Tensor) -> Tensor:
    return flags.to(images.device, non_blocking=True)[:, None, None, None]
