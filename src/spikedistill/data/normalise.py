"""Mean and standard deviation per channel: given, known, or computed from the training images."""

import math

import torch
from torch import Tensor

from spikedistill.data.catalogue import IMAGENET_MEAN, IMAGENET_STD, Known
from spikedistill.data.sets import DataInfo, ImageSet, Source, item_shape
from spikedistill.errors import UserError

Constants = tuple[tuple[float, ...], tuple[float, ...]]

# ImageNet's constants averaged over the channels, for large grey sets.
GREY = ((0.449,), (0.226,))


def normalisation(
    given: tuple[tuple[float, ...] | None, tuple[float, ...] | None], known: Known | None, train: Source, channels: int
) -> Constants:
    """Decides on the constants, in units of [0, 1].

    What is given wins; then those known for the name; then those of the training images in memory, rounded to four
    digits; then ImageNet's, for sets too large to be read twice. Event frames are only scaled: no event stays zero.

    Args:
        given: mean and std from the recipe, either may be None.
        known: catalogue entry of the name, or None.
        train: training images, the validation part still among them.
        channels: of the images.

    Returns:
        Mean and standard deviation, one number a channel.

    Raises:
        UserError: as many numbers given as neither 1 nor the channels.
    """
    mean, std = given
    for key, value in (("mean", mean), ("std", std)):
        if value is not None and len(value) not in (1, channels):
            raise UserError(f"data.{key} has {len(value)} values where the images have {channels} channels")
    if mean is None or std is None:
        found = _counts(train, channels) if len(item_shape(train)) == 4 else _found(known, train, channels)
        mean, std = mean or found[0], std or found[1]
    return mean * (channels // len(mean)), std * (channels // len(std))


def _found(known: Known | None, train: Source, channels: int) -> Constants:
    if known is not None and len(known.mean) in (1, channels):
        return known.mean, known.std
    if isinstance(train, ImageSet):
        return measured(train.images)
    return (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else GREY


def _counts(train: Source, channels: int) -> Constants:
    """Scales event frames to a mean square of 1 over all pixels and steps; in a stream a count stays a count."""
    scale = 1 / 255
    if isinstance(train, ImageSet) and train.images.dtype == torch.uint8:
        total = sum(int(piece.to(torch.int64).square().sum()) for piece in train.images.split(256))
        scale = round(math.sqrt(total / max(1, train.images.numel())) / 255, 6) or scale
    elif isinstance(train, ImageSet):
        scale = 1.0
    return (0.0,) * channels, (scale,) * channels


def pixels(image: Tensor, info: DataInfo) -> Tensor:
    """Turns a normalised image ``[C, H, W]``, or the mean of a sequence ``[T, C, H, W]``, back into one to look at.

    Event counts have no brightness of their own: the pixel with most events is shown as the brightest.

    Returns:
        ``[H, W, C]`` uint8.
    """
    shape = (-1, 1, 1)
    x = image.cpu() * torch.tensor(info.std).view(shape) + torch.tensor(info.mean).view(shape)
    if image.dim() == 4:
        x = x.mean(0)
        x = x / x.max().clamp(min=torch.finfo(x.dtype).tiny)
    return (x.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)


def measured(images: Tensor) -> Constants:
    """Computes mean and standard deviation per channel of uint8 images ``[N, C, H, W]``, to four digits.

    Sums are of integers, so the result does not depend on their order. A constant channel gets a deviation of 1.
    """
    pixels = images.shape[0] * images.shape[2] * images.shape[3]
    total = torch.zeros(images.shape[1], dtype=torch.int64)
    squares = torch.zeros_like(total)
    # In pieces: all images as int64 at once would take eight times their memory.
    for piece in images.split(1024):
        whole = piece.to(torch.int64)
        total += whole.sum((0, 2, 3))
        squares += whole.square().sum((0, 2, 3))
    mean = total.double() / pixels
    std = (squares.double() / pixels - mean.square()).clamp(min=0).sqrt()
    return (
        tuple(round(value / 255, 4) for value in mean.tolist()),
        tuple(round(value / 255, 4) or 1.0 for value in std.tolist()),
    )
