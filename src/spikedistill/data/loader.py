"""Batches for training and evaluation.

Which images make batch i of epoch e, and how they are augmented, is a function of (seed, e, i) alone: an epoch taken up
in the middle goes on with the very same batches, and neither the number of reading processes nor of training processes
changes a bit. (Of a set that is streamed these two numbers decide along.)
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from spikedistill.data.pipeline import Pipeline
from spikedistill.data.reading import read_batches
from spikedistill.data.seeds import generator
from spikedistill.data.sets import DataInfo, ImageSet, Source
from spikedistill.data.shards import Reading, ShardSet, read_shards
from spikedistill.errors import UserError


class Loader:
    """Yields ``(images float32 [B, C, H, W] normalised, labels int64 [B])`` on the device.

    Sequences come with time in front, ``[T, B, C, H, W]``.

    A set in memory is moved to the device once and indexed there; anything else is read by worker processes and only
    augmented on the device.

    Args:
        source: a part of a data set.
        info: its shape and normalisation.
        batch_size: images in a batch, over all training processes together.
        device: where batches are made.
        augment: augmentations, ``name`` or ``name:value``; none for evaluation.
        shuffle: a new order each epoch; False keeps the source's order.
        seed: decides order and augmentation.
        drop_last: leave out the last, smaller batch of an epoch (unless it is the only one).
        rank: which training process this is.
        world_size: number of training processes; each takes its slice of every batch. The last batch of an epoch may
            leave a process with fewer images than the others, or none: train with ``drop_last``.

    Raises:
        UserError: an empty source, a batch smaller than the number of processes, or an unknown augmentation.
    """

    def __init__(
        self,
        source: Source,
        info: DataInfo,
        *,
        batch_size: int,
        device: torch.device,
        augment: tuple[str, ...] = (),
        shuffle: bool,
        seed: int,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size < world_size or batch_size < 1:
            raise UserError(f"a batch of {batch_size} images cannot be shared by {world_size} processes; enlarge it")
        if len(source) == 0:
            raise UserError(f"data set '{info.name}' has a part without images; nothing can be loaded from it")
        self.info = info
        self.batch_size = batch_size
        self._device = device
        self._source = source
        if isinstance(source, ImageSet):
            self._source = ImageSet(source.images.to(device), source.labels.to(device))
        self._pipeline = Pipeline(augment, info, device)
        self._shuffle = shuffle
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        whole = len(source) // batch_size
        self._batches = whole if drop_last and whole else math.ceil(len(source) / batch_size)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self._batches

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the batches of an epoch.

        Args:
            number: which epoch; decides order and augmentation.
            start: first batch to yield; those before it are not read.
        """
        numbers = range(start, len(self))
        order = self._order(number)
        parts = [order[self._bounds(batch)] for batch in numbers]
        for batch, (images, labels) in zip(numbers, self._read(parts, number, start), strict=True):
            yield self._pipeline(images, self._draws(number, batch)), labels

    def _order(self, epoch: int) -> Tensor:
        if not self._shuffle:
            return torch.arange(len(self._source))
        return torch.randperm(len(self._source), generator=generator(self._seed, "order", epoch))

    def _count(self, batch: int) -> int:
        """Images in the global batch."""
        return min(self.batch_size, len(self._source) - batch * self.batch_size)

    def _slice(self, batch: int) -> slice:
        """This process's part within the global batch."""
        count = self._count(batch)
        return slice(count * self._rank // self._world_size, count * (self._rank + 1) // self._world_size)

    def _bounds(self, batch: int) -> slice:
        """This process's part of the batch within the epoch."""
        first, part = batch * self.batch_size, self._slice(batch)
        return slice(first + part.start, first + part.stop)

    def _draws(self, epoch: int, batch: int) -> list[tuple[Tensor, ...]]:
        drawn = self._pipeline.draw(self._count(batch), generator(self._seed, "augment", epoch, batch))
        return [tuple(tensor[self._slice(batch)] for tensor in draws) for draws in drawn]

    def _read(self, parts: list[Tensor], epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        source = self._source
        if isinstance(source, ImageSet):
            for part in parts:
                rows = part.to(source.labels.device, non_blocking=True)
                yield source.images[rows], source.labels[rows]
            return
        pinned = self._device.type == "cuda"
        if isinstance(source, ShardSet):
            skip = sum(self._bounds(batch).stop - self._bounds(batch).start for batch in range(start))
            reading = Reading(self._seed, epoch, self._shuffle, self._rank, self._world_size, skip)
            batches = read_shards(source, [len(part) for part in parts], reading, pinned)
        else:
            batches = read_batches(source, parts, self._seed, epoch, pinned)
        for images, labels in batches:
            yield images.to(self._device, non_blocking=True), labels.to(self._device, non_blocking=True)
