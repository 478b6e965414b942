"""The parts of a data set as the rest of the program sees them."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from spikedistill.data.shards import ShardSet


@dataclass(frozen=True)
class ImageSet:
    """A part held in memory.

    Attributes:
        images: ``[N, C, H, W]``, or sequences ``[N, T, C, H, W]``; uint8 0..255 (a user's own tensors may be float and
            are then left as they are).
        labels: ``[N]``, int64.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return self.labels.shape[0]


class Items(Protocol):
    """Something map-style that yields one (image ``[C, H, W]`` or sequence ``[T, C, H, W]``, label) at a time."""

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True)
class StreamSet:
    """A part read item by item, as the epoch goes.

    Attributes:
        items: where the items come from; anything with ``items[i]`` -> (image, label).
        indices: ``[N]`` int64, which of the items make up this part.
        workers: reading processes; 0 reads in the training process.
        random: whether reading an item draws random numbers (a user's own transforms).
        shape: ``(C, H, W)`` of every image, ``(T, C, H, W)`` of every sequence.
        classes: number of classes, every label lies below it.
    """

    items: Items
    indices: Tensor
    workers: int
    random: bool
    shape: tuple[int, ...]
    classes: int

    def __len__(self) -> int:
        return self.indices.shape[0]


Indexed = ImageSet | StreamSet
Source = Indexed | ShardSet


@dataclass(frozen=True)
class DataInfo:
    """What a network and a report must know of a data set.

    Attributes:
        name: as asked for, or the folder's name.
        classes: class names in label order.
        shape: ``(C, H, W)`` of every image.
        mean: per channel, in units of [0, 1]; batches are ``(image - mean) / std``.
        std: per channel.
        timesteps: T where the set holds sequences ``[T, C, H, W]``; None for images.
    """

    name: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    timesteps: int | None = None


@dataclass(frozen=True)
class Data:
    """A data set, opened and split.

    Attributes:
        info: names, shape, normalisation.
        train: the training part, without what was held out.
        validation: the held-out share of the training images, None when the share is 0.
        test: the test part; never used to choose anything.
        augment: augmentations for the training part's loader.
    """

    info: DataInfo
    train: Source
    validation: Source | None
    test: Source
    augment: tuple[str, ...] = ()


def item_shape(source: Source) -> tuple[int, ...]:
    """Returns ``(C, H, W)`` of a part's images or ``(T, C, H, W)`` of its sequences."""
    return tuple(source.images.shape[1:]) if isinstance(source, ImageSet) else source.shape


def select(source: Indexed, indices: Tensor) -> Indexed:
    """Returns the part of ``source`` at ``indices`` (positions within the source, int64)."""
    if isinstance(source, ImageSet):
        # A selection of everything in order would copy the whole set for nothing.
        if torch.equal(indices, torch.arange(len(source))):
            return source
        return ImageSet(source.images[indices], source.labels[indices])
    return StreamSet(source.items, source.indices[indices], source.workers, source.random, source.shape, source.classes)
