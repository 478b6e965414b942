"""From settings to a data set ready for loaders."""

from collections.abc import Callable

import torch
from torch import Tensor

from spikedistill.data.cache import Decoded
from spikedistill.data.catalogue import DIGITS, HUB, VARIATIONS, Known
from spikedistill.data.cropping import cropped_when_read
from spikedistill.data.digits import CLASSES, read_digits
from spikedistill.data.events import POLARITIES
from spikedistill.data.images import Opened, choose, open_images
from spikedistill.data.normalise import normalisation
from spikedistill.data.recordings import RECORDINGS, Recorded, open_recordings
from spikedistill.data.sets import Data, DataInfo, Source, item_shape, select
from spikedistill.data.settings import DataSettings, check_settings
from spikedistill.data.shards import ShardSet
from spikedistill.data.simulated import simulated
from spikedistill.data.split import stratified_split
from spikedistill.data.streaming import open_stream
from spikedistill.data.variations import open_variation
from spikedistill.errors import UserError, unknown


def open_data(settings: DataSettings, seed: int) -> Data:
    """Opens a data set: reads it, takes subsets, holds out the validation part, decides on normalisation.

    Args:
        settings: the recipe's ``data:`` section.
        seed: of the run; decides on the subset and the validation part.

    Returns:
        The data set; its parts go into ``Loader``.

    Raises:
        UserError: a setting out of range, a folder or name that cannot be read, columns or splits that are missing,
            a class without images, images of different sizes, labels out of range, an unreadable image.
    """
    check_settings(settings)
    _check_name(settings)
    _check_kind(settings)
    known = _known(settings)
    opened = _opener(settings)(settings, seed)
    _check_known(settings, known, opened)
    if settings.simulator is not None:
        opened = simulated(opened, settings)
    *steps, channels, height, width = item_shape(opened.train)
    mean, std = normalisation((settings.mean, settings.std), known, opened.train, channels)
    timesteps = steps[0] if steps else None
    info = DataInfo(opened.name, opened.classes, (channels, height, width), mean, std, timesteps)
    train, validation = held_out(opened.train, opened.labels, settings.validation, seed)
    train, augment = cropped_when_read(train, settings.augment)
    return Data(info, train, validation, opened.test, augment)


def list_data() -> dict[str, str]:
    """Returns every data set known by name with one line about it."""
    known: dict[str, Known | Recorded] = {"digits": DIGITS, **VARIATIONS, **HUB, **RECORDINGS}
    return {name: entry.line for name, entry in known.items()}


def nominal_shape(settings: DataSettings) -> tuple[int, int]:
    """Returns the channels and the side in pixels that the settings lead to, without opening anything.

    What the settings leave open comes from the catalogue; a data set that is not in it counts as colour of 32 x 32.
    """
    if settings.name in RECORDINGS:
        return POLARITIES, settings.size or RECORDINGS[settings.name].side
    known = _known(settings)
    channels, side = (len(known.mean), known.side) if known else (3, 32)
    if settings.simulator is not None:
        return POLARITIES, settings.simulator.side or settings.size or side
    return settings.channels or channels, settings.size or side


def holds_events(settings: DataSettings) -> bool:
    """Whether the settings lead to sequences of event frames."""
    return settings.simulator is not None or settings.name in RECORDINGS


def held_out(train: Source, labels: Tensor, share: float, seed: int) -> tuple[Source, Source | None]:
    """Splits the validation part off the training part; ``labels`` ``[N]`` are the training part's."""
    if share == 0 or isinstance(train, ShardSet):
        return train, None
    stays, held = stratified_split(labels, share, seed)
    if len(held) == 0:
        raise UserError(
            f"data.validation of {share} leaves no image of {len(labels)} for validation; enlarge it, or set it to 0"
        )
    return select(train, stays), select(train, held)


def _known(settings: DataSettings) -> Known | None:
    # Digits have no folder form: with a path, the default name says nothing about the data.
    if settings.name == "digits":
        return DIGITS if settings.path is None else None
    return VARIATIONS.get(settings.name) or HUB.get(settings.name)


def _opener(settings: DataSettings) -> Callable[[DataSettings, int], Opened]:
    """What opens a data set of this name."""
    if settings.name in RECORDINGS:
        return open_recordings
    if settings.name in VARIATIONS:
        return open_variation
    if settings.name == "digits" and settings.path is None:
        return _open_digits
    return _open_stream if settings.streaming else open_images


def _open_stream(settings: DataSettings, seed: int) -> Opened:
    name, classes, train, test = open_stream(settings)
    return Opened(name, classes, train, torch.empty(0, dtype=torch.int64), test)


def _open_digits(settings: DataSettings, seed: int) -> Opened:
    return choose("digits", Decoded(CLASSES, *read_digits(settings.size, settings.channels)), settings, seed)


def _check_name(settings: DataSettings) -> None:
    """Refuses a name that is neither known nor one of the hub's, which have an owner."""
    name, accepted = settings.name, tuple(list_data())
    if settings.path is not None or "/" in name or name in accepted:
        return
    if meant := [known for known in accepted if known.rpartition("/")[2] == name]:
        raise UserError(f"unknown data set '{name}'; did you mean '{meant[0]}'? (accepted: {', '.join(accepted)})")
    raise unknown("data set", name, accepted)


def _check_kind(settings: DataSettings) -> None:
    """Refuses settings that are not for this kind of data set."""
    if settings.streaming and _opener(settings) is not _open_stream:
        raise UserError(f"data.streaming is for images on disk or on the hub, not for '{settings.name}'; leave it out")
    if settings.resize is not None and _opener(settings) not in (_open_stream, open_images):
        raise UserError(f"data.resize is for images on disk or on the hub, not for '{settings.name}'; leave it out")
    if settings.name not in RECORDINGS:
        return
    for key in ("channels", "simulator"):
        if getattr(settings, key) is not None:
            raise UserError(f"data.{key} is for images, and '{settings.name}' holds recorded events; leave it out")


def _check_known(settings: DataSettings, known: Known | None, opened: Opened) -> None:
    """Refuses a folder that cannot be what the name says, whose constants would then be wrong for it."""
    if known and len(opened.classes) > known.classes:
        raise UserError(
            f"data.path '{settings.path}' has {len(opened.classes)} classes where data.name '{settings.name}' has "
            f"{known.classes}; set data.name to the data set that lies there"
        )
