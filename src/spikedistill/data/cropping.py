"""The random rectangle of ImageNet training (``resizedcrop``), cut out of the pictures as they lie on disk.

A set in memory holds images that were brought to one size, and there the augmentation works on these. Where images are
read one by one, each epoch cuts its rectangle out of the whole picture, sides and all, and only then brings it to the
network's size.
"""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spikedistill.data.augment import ASPECT, ResizedCrop
from spikedistill.data.augmentations import parse_augmentation
from spikedistill.data.decode import DecodedItems, Decoder, as_array
from spikedistill.data.rows import Rows
from spikedistill.data.sets import Source, StreamSet
from spikedistill.data.shards import ShardSet

if TYPE_CHECKING:
    from PIL.Image import Image

ATTEMPTS = 10


@dataclass(frozen=True)
class CroppingDecoder:
    """Decodes to a random rectangle of the picture, resized to the decoder's size; drawn from torch's global generator.

    Attributes:
        decoder: how the same images are decoded for evaluation; its ``size`` is set.
        smallest: of a rectangle's area, as a share of the picture's.
    """

    decoder: Decoder
    smallest: float

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of every image."""
        return self.decoder.shape

    @property
    def threads(self) -> int:
        """How many images are best decoded at once."""
        return self.decoder.threads

    def __call__(self, rows: Rows, row: int) -> Tensor:
        """Decodes one image to ``[C, H, W]`` uint8.

        Raises:
            UserError: as ``Decoder`` does.
        """
        from PIL.Image import Resampling

        image: Image = self.decoder.read(rows, row)
        _, height, width = self.shape
        box = rectangle(image.width, image.height, self.smallest)
        return as_array(image.resize((width, height), Resampling.BILINEAR, box))


def rectangle(width: int, height: int, smallest: float) -> tuple[int, int, int, int]:
    """Draws a rectangle (left, top, right, bottom) in whole pixels of a picture (Szegedy et al. 2015).

    Area uniform between ``smallest`` and 1 of the picture's, aspect ratio log-uniform in 3/4 .. 4/3; as everywhere in
    the field the first of ten that lies inside, else the largest in the middle whose ratio is allowed.
    """
    area, ratio, across, down = torch.rand(4, ATTEMPTS, dtype=torch.float64)
    area = (smallest + (1 - smallest) * area) * width * height
    ratio = ((2 * ratio - 1) * math.log(ASPECT)).exp()
    wide, high = (area * ratio).sqrt().round().clamp(min=1), (area / ratio).sqrt().round().clamp(min=1)
    fitting = ((wide <= width) & (high <= height)).nonzero().flatten().tolist()
    if not fitting:
        widest, highest = min(width, round(height * ASPECT)), min(height, round(width * ASPECT))
        left, top = (width - widest) // 2, (height - highest) // 2
        return left, top, left + widest, top + highest
    first = fitting[0]
    w, h = int(wide[first]), int(high[first])
    left, top = int(across[first] * (width - w + 1)), int(down[first] * (height - h + 1))
    return left, top, left + w, top + h


def cropped_when_read(train: Source, augment: tuple[str, ...]) -> tuple[Source, tuple[str, ...]]:
    """Moves ``resizedcrop`` from the augmentations into the reading, where pictures of other sizes are read.

    Args:
        train: the training part, without what was held out.
        augment: the augmentations' names.

    Returns:
        The part and the augmentations that are left; both as they came where the images are in memory or fixed in size.
    """
    crops = [text for text in augment if parse_augmentation(text)[0] is ResizedCrop]
    decoder = _decoder(train)
    if len(crops) != 1 or decoder is None or decoder.size is None:
        return train, augment
    cropping = CroppingDecoder(decoder, parse_augmentation(crops[0])[1])
    rest = tuple(text for text in augment if text not in crops)
    if isinstance(train, ShardSet):
        return replace(train, decoder=cropping, random=True), rest
    assert isinstance(train, StreamSet) and isinstance(train.items, DecodedItems)
    return replace(train, items=replace(train.items, decoder=cropping), random=True), rest


def _decoder(part: Source) -> Decoder | None:
    """What decodes a part's images as they are read; None where something else makes its items."""
    decoder: Any = None
    if isinstance(part, ShardSet):
        decoder = part.decoder
    elif isinstance(part, StreamSet) and isinstance(part.items, DecodedItems):
        decoder = part.items.decoder
    return decoder if isinstance(decoder, Decoder) else None
