"""What a recipe says about data: the section ``data:``."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from spikedistill.data.augmentations import check_augmentations
from spikedistill.data.events import SLICERS
from spikedistill.data.simulator import SimulatorSettings
from spikedistill.errors import UserError, unknown


@dataclass(frozen=True)
class DataSettings:
    """Which images, how much of them, and how they are prepared.

    Attributes:
        name: ``digits``, a variation of MNIST such as ``mnist-rotated`` (``digits-rotated`` is made of the digits), a
            set of recordings of an event camera such as ``cifar10-dvs``, or a name on the Hugging Face hub such as
            ``ylecun/mnist``. It also chooses the normalisation constants.
        path: a local folder that is read in place of the name: the hub's layout (parquet), a folder written by
            ``Dataset.save_to_disk``, or an image folder (``train/<class>/*.png`` beside ``test/``, ``validation/``,
            ``val/`` or ``valid/``). A variation takes MNIST from there, recordings are the set's own files.
        validation: share of the training images held out, drawn per class by the run's seed; 0 holds out none.
        subset: how many training images to use, drawn per class by the run's seed before the validation part is
            taken off; None uses all.
        test_subset: how many test images to use; the same ones whatever the seed, so that runs compare.
        size: side in pixels: the shorter side is resized to it and the middle cut out. None leaves the images as
            they are, and then they must all be equally large. Of recordings: the side of the frames, events of a
            coarser pixel counted together.
        resize: what the shorter side is resized to before the middle square of ``size`` is cut out; None is ``size``
            itself. The field tests on ImageNet with 256 and 224.
        mean: normalisation per channel in units of [0, 1], in place of the known or computed constants.
        std: the same for the standard deviation.
        augment: augmentations of the training images in the order they happen, ``name`` or ``name:value``
            (``crop:4``, ``flip``, ``cutout:8``, ...; ``AUGMENTATIONS`` in ``augmentations.py`` has them all).
            ``resizedcrop`` cuts the picture itself where images are read one by one, before all others, and the image
            as ``size`` leaves it where they are in memory.
        channels: 1 or 3 converts every image to grey or to colour; None takes what the images have.
        workers: processes that read images of a set too large for memory.
        in_memory: whether the images are kept decoded; None decides by size (up to 2 GiB).
        streaming: reads the set from its beginning, shard by shard, without downloading or converting it first; for
            sets such as ImageNet. Order and batches then depend on the number of processes, too, and ``subset``,
            ``test_subset`` and ``validation`` cannot be had.
        buffer: of a stream: how many encoded images the next one is drawn from.
        frames: T of event data: how many frames a recording becomes. A recipe's ``timesteps`` must be the same.
        slicing: how a recording is cut into frames: ``time`` (of equal length) or ``count`` (equally many events).
        simulator: makes events of any image set: a simulated camera looks at the images, which move
            (``simulator: {}`` for its defaults, see ``SimulatorSettings``).
    """

    name: str = "digits"
    path: str | None = None
    validation: float = 0.05
    subset: int | None = None
    test_subset: int | None = None
    size: int | None = None
    resize: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    augment: tuple[str, ...] = ()
    channels: int | None = None
    workers: int = 0
    in_memory: bool | None = None
    streaming: bool = False
    buffer: int = 4096
    frames: int = 4
    slicing: Literal["time", "count"] = "time"
    simulator: SimulatorSettings | None = None

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}


def check_settings(settings: DataSettings) -> None:
    """Refuses settings that no data set could meet.

    Raises:
        UserError: a value out of its range, or an augmentation that does not exist.
    """
    check_share(settings.validation)
    for key in ("subset", "test_subset", "size"):
        value = getattr(settings, key)
        if value is not None and value < 1:
            raise UserError(f"data.{key} is {value}; it must be at least 1, or left out")
    if settings.resize is not None and settings.resize < (settings.size or math.inf):
        least = f"at least data.size ({settings.size})" if settings.size else "beside a data.size, which is left out"
        raise UserError(f"data.resize is {settings.resize}; it must be {least}")
    if settings.channels not in (None, 1, 3):
        raise UserError(f"data.channels is {settings.channels}; it must be 1 (grey), 3 (colour), or left out")
    if settings.workers < 0:
        raise UserError(f"data.workers is {settings.workers}; it must be 0 or more")
    for key in ("frames", "buffer"):
        if getattr(settings, key) < 1:
            raise UserError(f"data.{key} is {getattr(settings, key)}; it must be at least 1")
    if settings.slicing not in SLICERS:
        raise unknown("data.slicing", settings.slicing, tuple(SLICERS))
    if any(not math.isfinite(value) for value in settings.mean or ()):
        raise UserError(f"data.mean is {settings.mean}; its values must be finite")
    if any(not (math.isfinite(value) and value > 0) for value in settings.std or ()):
        raise UserError(f"data.std is {settings.std}; its values must be positive")
    check_augmentations(settings.augment)


def check_share(validation: float) -> None:
    """Refuses a validation share outside [0, 1)."""
    if not 0 <= validation < 1:
        raise UserError(f"data.validation is {validation}; it is a share of the training set, at least 0 and below 1")
