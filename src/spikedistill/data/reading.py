"""Reading a part item by item, in worker processes or in this one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from spikedistill.data.seeds import generator, seed_of, seeded
from spikedistill.data.sets import StreamSet
from spikedistill.errors import UserError


def read_batches(
    source: StreamSet, parts: Sequence[Tensor], seed: int, epoch: int, pinned: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Reads one batch per part, in order.

    What an item draws at random depends on (seed, epoch, item) only, as long as it draws from the global generators
    of torch, numpy or random.

    Args:
        source: where the items are.
        parts: for each batch the positions within the source, int64.
        seed: for the items' own random numbers.
        epoch: for the items' own random numbers.
        pinned: whether to return page-locked memory.

    Yields:
        Images ``[B, C, H, W]`` or sequences ``[B, T, C, H, W]``, uint8 or float32, labels ``[B]`` int64, on the CPU.

    Raises:
        UserError: an item that cannot be read or does not fit, named by its index.
    """
    reader = _Reader(source, seed, epoch)
    loader = DataLoader(
        reader,
        batch_size=None,
        sampler=_Listed(parts),
        num_workers=source.workers,
        pin_memory=pinned,
        # Without one of its own, DataLoader draws from the global generator.
        generator=generator(seed, "workers", epoch),
    )
    for batch in loader:
        # An exception in a worker would arrive with the worker's traceback in its message; a refusal travels as data.
        if isinstance(batch, _Refusal):
            raise UserError(batch.message)
        yield batch


@dataclass(frozen=True)
class _Refusal:
    message: str


class _Listed(torch.utils.data.Sampler[Tensor]):
    """Hands out the given parts in order."""

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self._parts = parts

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


class _Reader(Dataset[Any]):
    """Maps a part's positions to a whole batch, so that a worker hands over one tensor instead of many."""

    def __init__(self, source: StreamSet, seed: int, epoch: int) -> None:
        self._source = source
        self._seed = seed
        self._epoch = epoch

    def __getitem__(self, part: Tensor) -> tuple[Tensor, Tensor] | _Refusal:
        try:
            items = [self._item(index) for index in self._source.indices[part].tolist()]
        except UserError as error:
            return _Refusal(str(error))
        if not items:
            return torch.empty(0, *self._source.shape), torch.empty(0, dtype=torch.int64)
        images = [image for image, _ in items]
        if len({image.dtype for image in images}) > 1:  # whole numbers would be taken for [0, 1], too
            images = [image / 255 if image.dtype == torch.uint8 else image for image in images]
        return torch.stack(images), torch.tensor([label for _, label in items])

    def _item(self, index: int) -> tuple[Tensor, int]:
        if self._source.random:
            with seeded(seed_of(self._seed, "item", self._epoch, index)):
                item = self._source.items[index]
        else:
            item = self._source.items[index]
        image, label = checked_item(item, f"item {index} of the data set")
        if tuple(image.shape) != self._source.shape:
            raise UserError(
                f"item {index} of the data set has shape {tuple(image.shape)} where the first has "
                f"{self._source.shape}; resize the images to one size"
            )
        if not 0 <= label < self._source.classes:
            raise UserError(
                f"item {index} of the data set has label {label}; labels must lie in 0 .. {self._source.classes - 1}"
            )
        return image, label


def checked_item(item: Any, where: str) -> tuple[Tensor, int]:
    """Takes an item apart.

    Args:
        item: what a data set returned for one index.
        where: for the message, such as "item 3 of the data set".

    Returns:
        The image ``[C, H, W]`` or the sequence ``[T, C, H, W]`` as uint8 or float32, the label.

    Raises:
        UserError: not a pair of an image tensor and a whole number.
    """
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise UserError(f"{where} is a {type(item).__name__}; it must be a pair (image tensor [C, H, W], label)")
    image, label = item
    if not isinstance(image, Tensor):
        raise UserError(f"{where} has an image of type {type(image).__name__}; convert it to a torch tensor [C, H, W]")
    if image.ndim not in (3, 4):
        raise UserError(
            f"{where} has an image of shape {tuple(image.shape)}; it must be [C, H, W], or [T, C, H, W] for a sequence"
        )
    if image.numel() == 0:
        raise UserError(f"{where} has an image of shape {tuple(image.shape)}, which has no pixels")
    if image.dtype != torch.uint8:
        if not image.is_floating_point():
            raise UserError(f"{where} has an image of {image.dtype}; it must be uint8 (0..255) or floating point")
        image = image.to(torch.float32)
    return image, _whole(label, where)


def _whole(label: Any, where: str) -> int:
    if isinstance(label, Tensor) and label.numel() != 1:
        raise UserError(f"{where} has a label of shape {tuple(label.shape)}; it must be one class number")
    # Python, numpy and torch each have integers of their own; a float that looks like one is still a regression target.
    if isinstance(label, Tensor):
        label = label.item()
    if not hasattr(label, "__index__"):
        raise UserError(f"{where} has a label of type {type(label).__name__}; it must be a class number")
    return int(label)
