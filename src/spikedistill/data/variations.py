"""Digits turned, and digits on noise and on photographs (Larochelle et al. 2007).

"An empirical evaluation of deep architectures on problems with many factors of variation", ICML 2007, section 4.1, and
the authors' page of the data sets. Each image of MNIST appears once: 12,000 make the training part (the authors hold
out 2,000 of them), 50,000 the test part. The digit is turned by an angle uniform in [0, 2 pi), put before noise uniform
in 0..255 in every pixel, before a patch of a grey photograph (patches of low variance are skipped), or turned and
then put before a patch.

The images follow from seeds in this file, so everybody has the same ones, whatever the seed of a run.

Differences. The authors' images are not these: theirs were made by scripts that were never published. How a digit was
put before its background is not written down; here its grey value is its opacity, so that a black pixel shows the
background alone, a white one the digit alone, and a grey one of the stroke's edge both. Their 20 photographs from the
internet are not at hand; these are the two that ship with scikit-learn, at full and at half size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from spikedistill.data.augment import rotation, warp
from spikedistill.data.cache import Decoded
from spikedistill.data.digits import CLASSES, read_digits
from spikedistill.data.images import Opened, choose, open_images
from spikedistill.data.seeds import generator
from spikedistill.data.sets import ImageSet
from spikedistill.data.settings import DataSettings
from spikedistill.errors import UserError

if TYPE_CHECKING:
    import numpy as np

Parts = tuple[ImageSet, ImageSet]

MNIST = "ylecun/mnist"
TRAIN_IMAGES, TEST_IMAGES = 12_000, 50_000
SEED = 2007
CHUNK = 4096
LOW_DEVIATION = 20.0
"""Patches whose grey values (0..255) have a smaller standard deviation are skipped."""


def _rotated(images: Tensor, draws: Generator) -> Tensor:
    """Turns each image about its middle, bilinear, black outside."""
    degrees = torch.rand(len(images), generator=draws, dtype=torch.float64) * 360
    pieces = zip(images.split(CHUNK), rotation(degrees).split(CHUNK), strict=True)
    turned = [warp(piece.float(), matrices, "bilinear") for piece, matrices in pieces]
    return torch.cat([piece.round().clamp(0, 255).to(torch.uint8) for piece in turned])


def _on_noise(images: Tensor, draws: Generator) -> Tensor:
    return _before(images, torch.randint(0, 256, images.shape, generator=draws, dtype=torch.uint8))


def _on_photographs(images: Tensor, draws: Generator) -> Tensor:
    return _before(images, photograph_patches(len(images), images.shape[-2], images.shape[-1], draws))


def _rotated_on_photographs(images: Tensor, draws: Generator) -> Tensor:
    return _on_photographs(_rotated(images, draws), draws)


VARIATIONS: dict[str, Callable[[Tensor, Generator], Tensor]] = {
    "rotated": _rotated,
    "background-random": _on_noise,
    "background-image": _on_photographs,
    "rotated-background-image": _rotated_on_photographs,
}
"""Name to what makes it: grey images ``[N, 1, H, W]`` uint8 and a generator to as many such images."""


def open_variation(settings: DataSettings, seed: int) -> Opened:
    """Opens ``settings.name``: ``mnist-`` or ``digits-`` and a name in ``VARIATIONS``.

    Raises:
        UserError: MNIST that cannot be read, or a path for the digits.
    """
    base, _, kind = settings.name.partition("-")
    train, test = BASES[base](kind, settings)
    if settings.channels == 3:
        train, test = (ImageSet(part.images.expand(-1, 3, -1, -1).contiguous(), part.labels) for part in (train, test))
    return choose(settings.name, Decoded(CLASSES, train, test), settings, seed)


def _of_mnist(kind: str, settings: DataSettings) -> Parts:
    whole = replace(settings, name=MNIST, subset=None, test_subset=None, channels=1, in_memory=True, simulator=None)
    opened = open_images(whole, seed=0)
    if len(opened.classes) != len(CLASSES):
        raise UserError(
            f"data.path '{settings.path}' has {len(opened.classes)} classes where '{settings.name}' is made of MNIST's "
            f"{len(CLASSES)} digits; pass the folder of MNIST"
        )
    assert isinstance(opened.train, ImageSet) and isinstance(opened.test, ImageSet)
    return varied_mnist(kind, opened.train, opened.test)


def _of_digits(kind: str, settings: DataSettings) -> Parts:
    if settings.path is not None:
        raise UserError(f"data.name '{settings.name}' is made of the digits that are always there; leave data.path out")
    return varied_digits(kind, settings.size)


BASES: dict[str, Callable[[str, DataSettings], Parts]] = {"mnist": _of_mnist, "digits": _of_digits}
"""First word of a name to what reads the plain digits and makes a variation of them."""


def varied_mnist(kind: str, train: ImageSet, test: ImageSet) -> Parts:
    """A variation of MNIST: 12,000 training and 50,000 test images out of all 70,000.

    Args:
        kind: one of ``VARIATIONS``.
        train: MNIST's training part, grey.
        test: MNIST's test part.

    Returns:
        The training and the test part. With fewer images than MNIST has, each is smaller in proportion.
    """
    images, labels = torch.cat([train.images, test.images]), torch.cat([train.labels, test.labels])
    share = min(1.0, len(labels) / (TRAIN_IMAGES + TEST_IMAGES))
    first, last = int(share * TRAIN_IMAGES), int(share * (TRAIN_IMAGES + TEST_IMAGES))
    shuffled = torch.randperm(len(labels), generator=generator(SEED, "variation", kind, "order"))
    order = _by_content(images)[shuffled]
    parts = {"train": order[:first], "test": order[first:last]}
    varied = {part: _varied(kind, part, ImageSet(images[rows], labels[rows])) for part, rows in parts.items()}
    return varied["train"], varied["test"]


def varied_digits(kind: str, size: int | None = None) -> Parts:
    """A variation of scikit-learn's digits, split as they always are; ``size`` enlarges them before."""
    train, test = read_digits(size)
    return _varied(kind, "train", train), _varied(kind, "test", test)


def variation_examples(digits: Tensor) -> dict[str, Tensor]:
    """The given grey digits ``[N, 1, H, W]`` uint8 in every variation, for pictures; the same at every call."""
    return {kind: vary(digits, generator(SEED, "variation", kind, "examples")) for kind, vary in VARIATIONS.items()}


def _varied(kind: str, part: str, plain: ImageSet) -> ImageSet:
    return ImageSet(VARIATIONS[kind](plain.images, generator(SEED, "variation", kind, part)), plain.labels)


def _by_content(images: Tensor) -> Tensor:
    """Positions in the order of the pixels' values: copies of MNIST differ in the order of their images."""
    rows = images.flatten(1).contiguous().numpy()
    order = rows.view(f"V{rows.shape[1]}").ravel().argsort(kind="stable")
    return torch.from_numpy(order)


def _before(digits: Tensor, background: Tensor) -> Tensor:
    """Puts digits before a background, both ``[N, 1, H, W]`` uint8; the digit's grey value is its opacity."""
    composed = torch.empty_like(digits)
    for out, digit, behind in zip(composed.split(CHUNK), digits.split(CHUNK), background.split(CHUNK), strict=True):
        shown = digit.int() * 255 + (255 - digit.int()) * behind.int()
        out.copy_((shown + 127) // 255)
    return composed


def photograph_patches(count: int, height: int, width: int, draws: Generator) -> Tensor:
    """Random patches of grey photographs.

    Each patch is equally likely among all that have enough texture, of any photograph at any of its sizes.

    Args:
        count: how many.
        height, width: of a patch in pixels.
        draws: decides which.

    Returns:
        ``[count, 1, height, width]`` uint8.

    Raises:
        UserError: no photograph is as large as a patch.
    """
    photos = [photo for photo in _photographs() if photo.shape[0] >= height and photo.shape[1] >= width]
    if not photos:
        largest = "x".join(map(str, _photographs()[0].shape))
        raise UserError(f"data.size: patches of {height}x{width} pixels do not fit into photographs of {largest}")
    windows = [photo.unfold(0, height, 1).unfold(1, width, 1) for photo in photos]
    places = [_textured(photo, height, width) for photo in photos]
    ends = torch.tensor([len(place) for place in places]).cumsum(0)
    chosen = torch.randint(0, int(ends[-1]), (count,), generator=draws)
    which = torch.bucketize(chosen, ends, right=True)
    patches = torch.empty(count, 1, height, width, dtype=torch.uint8)
    for number, (window, place) in enumerate(zip(windows, places, strict=True)):
        rows = (which == number).nonzero().flatten()
        spots = place[chosen[rows] - (ends[number] - len(place))]
        patches[rows, 0] = window[spots[:, 0], spots[:, 1]]
    return patches


def _textured(photo: Tensor, height: int, width: int) -> Tensor:
    """Upper left corners ``[M, 2]`` of the patches whose deviation is not low (exact: sums of whole numbers)."""
    x = F.pad(photo.to(torch.int64), (1, 0, 1, 0))

    def box_sums(values: Tensor) -> Tensor:
        total = values.cumsum(0).cumsum(1)
        return total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]

    pixels = height * width
    variance = (pixels * box_sums(x.square()) - box_sums(x).square()).double() / pixels**2
    return (variance >= LOW_DEVIATION**2).nonzero()


@cache
def _photographs() -> tuple[Tensor, ...]:
    """scikit-learn's two photographs in grey (ITU-R 601-2 luma), each at full and at half size, ``[H, W]`` uint8."""
    from sklearn.datasets import load_sample_images

    grey = [_luma(photo) for photo in load_sample_images().images]  # pyright: ignore
    half = [F.avg_pool2d(photo[None, None].float(), 2)[0, 0].round().to(torch.uint8) for photo in grey]
    return (*grey, *half)


def _luma(photo: np.ndarray) -> Tensor:
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    return (torch.tensor(photo, dtype=torch.float64) @ weights).round().to(torch.uint8)
