"""Any image set as event frames: what a simulated camera sees of it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spikedistill.data.cache import Decoded, cache_file, read_cache, write_cache
from spikedistill.data.decode import progress
from spikedistill.data.events import POLARITIES, to_frames
from spikedistill.data.images import Opened
from spikedistill.data.sets import ImageSet, Items, Source, StreamSet, item_shape
from spikedistill.data.shards import ShardSet
from spikedistill.data.simulator import SimulatorSettings, record, sensor_of

if TYPE_CHECKING:
    from spikedistill.data.settings import DataSettings

BATCH = 64
CACHED_FROM = 1000
"""Sets with fewer images are simulated anew each time: a smoke run must not fill the cache."""


@dataclass(frozen=True)
class Recorder:
    """From images to event frames: the camera, and how its events are counted."""

    simulator: SimulatorSettings
    frames: int
    slicing: str

    def __call__(self, images: Tensor, part: str, indices: list[int]) -> Tensor:
        """Records images ``[B, C, H, W]``; the part and their indices decide on their noise.

        Returns:
            ``[B, T, 2, H', W']`` uint8.
        """
        sensor = sensor_of(images, self.simulator)
        recordings = record(images, self.simulator, part, indices)
        return torch.stack([to_frames(events, sensor, self.frames, self.slicing) for events in recordings])

    def shape(self, images: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the frames of an image ``(C, H, W)``."""
        return (self.frames, POLARITIES, *sensor_of(torch.empty(images), self.simulator))


@dataclass(frozen=True)
class SimulatedItems:
    """Items of an image part as (frames ``[T, 2, H, W]``, label), recorded when asked for."""

    items: Items
    recorder: Recorder
    part: str

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.items[index]
        return self.recorder(image[None], self.part, [index])[0], label


def simulated(opened: Opened, settings: DataSettings) -> Opened:
    """Plays a data set to a simulated event camera.

    The training and the test part each have one recording an image, whose noise follows from the simulator's seed and
    the image's number among those in use. In memory they are made once and kept in the cache.

    Args:
        opened: images.
        settings: with ``simulator``, ``frames`` and ``slicing``.
    """
    assert settings.simulator is not None
    recorder = Recorder(settings.simulator, settings.frames, settings.slicing)
    parts = {"train": opened.train, "test": opened.test}
    file = None
    if all(isinstance(part, ImageSet) for part in parts.values()) and sum(map(len, parts.values())) >= CACHED_FROM:
        file = cache_file(f"{opened.name}-events", _stamp(parts, recorder), None, None)
        kept = read_cache(file)
        if kept is not None:
            return Opened(opened.name, opened.classes, kept.train, opened.labels, kept.test)
    train, test = (_simulated(source, recorder, part) for part, source in parts.items())
    if file is not None and isinstance(train, ImageSet) and isinstance(test, ImageSet):
        write_cache(file, Decoded(opened.classes, train, test))
    return Opened(opened.name, opened.classes, train, opened.labels, test)


def _simulated(source: Source, recorder: Recorder, part: str) -> Source:
    assert not isinstance(source, ShardSet)
    shape = recorder.shape(item_shape(source))
    if isinstance(source, StreamSet):
        items = SimulatedItems(source.items, recorder, part)
        return StreamSet(items, source.indices, source.workers, source.random, shape, source.classes)
    frames = torch.empty(len(source), *shape, dtype=torch.uint8)
    batches = torch.arange(len(source)).split(BATCH)
    for batch in progress(batches, f"recording {part} images", len(batches)):
        frames[batch] = recorder(source.images[batch], part, batch.tolist())
    return ImageSet(frames, source.labels)


def _stamp(parts: dict[str, Source], recorder: Recorder) -> list[str]:
    """What the recordings depend on: the pixels themselves, camera and movement."""
    pixels = sha256()
    for part in parts.values():
        assert isinstance(part, ImageSet)
        pixels.update(f"{tuple(part.images.shape)} {part.images.dtype}".encode())
        pixels.update(part.images.contiguous().numpy().data)
        pixels.update(part.labels.contiguous().numpy().data)
    return [json.dumps(asdict(recorder)), pixels.hexdigest()]
