"""Test images that a caller holds, as batches: a data set, a pair of tensors, or a loader."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spikedistill.data import DataInfo, Loader
from spikedistill.data.hub import check_labels
from spikedistill.data.own import as_they_come, from_dataset
from spikedistill.engine.loop import Batches
from spikedistill.errors import UserError
from spikedistill.methods.base import classifies


def batches_of(
    network: nn.Module, data: Any, place: torch.device, batch_size: int, workers: int, seed: int
) -> tuple[DataInfo, Batches]:
    """Images that the caller holds, as they come."""
    if isinstance(data, str | Path) or not any(hasattr(data, way) for way in ("__iter__", "__getitem__")):
        raise UserError(
            f"data must be a Dataset, a pair of tensors or a loader, not {data!r:.60}; images by a name or a "
            "path are found with the run whose normalisation they need: run='runs/mine'"
        )
    if isinstance(data, tuple | list) and len(data) == 2 and all(isinstance(part, Tensor) for part in data):
        data = torch.utils.data.TensorDataset(*data)
    if isinstance(data, list | tuple) or not hasattr(data, "__getitem__"):
        return _in_batches(network, data, place)

    def classes(shape: tuple[int, ...]) -> int:
        return classifies(network, torch.zeros(1, *shape[-3:], device=place)).shape[-1]

    info, source = from_dataset(data, classes, workers)
    return info, Loader(source, info, batch_size=batch_size, device=place, shuffle=False, seed=seed)


def _in_batches(network: nn.Module, data: Iterable[Any], place: torch.device) -> tuple[DataInfo, Batches]:
    """A loader's batches, which are read anew for every kind of noise; what can be read only once is kept."""
    batches = _Batches(list(data) if isinstance(data, Iterator) else data, place)
    first = next(batches.epoch(0), None)
    if first is None:
        raise UserError("there are no images to evaluate on")
    images = first[0]
    sequences = images.dim() == 5
    batches.classes = classifies(network, images[0, :1] if sequences else images[:1]).shape[-1]
    shape = tuple(images.shape[-3:])
    return as_they_come(batches.classes, (len(images), *shape) if sequences else shape), batches


@dataclass
class _Batches:
    """A loader of the caller's, its labels looked at."""

    data: Iterable[Any]
    place: torch.device
    classes: int = 2**31

    def __len__(self) -> int:
        return len(self.data)  # type: ignore[arg-type]

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for index, batch in enumerate(itertools.islice(self.data, start, None), start):
            if not (isinstance(batch, tuple | list) and len(batch) == 2 and all(isinstance(x, Tensor) for x in batch)):
                raise UserError(f"batch {index} of the data is no pair of tensors (images, labels)")
            images, labels = (part.to(self.place) for part in batch)
            if images.dim() not in (4, 5) or labels.shape != images.shape[-4:-3] or labels.is_floating_point():
                raise UserError(
                    f"batch {index} of the data has images {list(images.shape)} and labels {list(labels.shape)} of "
                    f"{labels.dtype}; wanted are [B, C, H, W] or [T, B, C, H, W], and class numbers [B]"
                )
            check_labels(labels, self.classes, f"batch {index} of the data")
            yield images.float() / 255 if images.dtype == torch.uint8 else images, labels
