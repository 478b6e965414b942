"""From settings to a data set ready for loaders."""

from torch import Tensor

from spikedistill.data.cache import Decoded
from spikedistill.data.catalogue import DIGITS, HUB, Known
from spikedistill.data.digits import CLASSES, read_digits
from spikedistill.data.images import Opened, choose, open_images
from spikedistill.data.normalise import normalisation
from spikedistill.data.sets import Data, DataInfo, ImageSet, Source, select
from spikedistill.data.settings import DataSettings, check_settings
from spikedistill.data.split import stratified_split
from spikedistill.errors import UserError


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
    # Digits have no folder form: with a path, the default name says nothing about the data.
    if settings.path is None and settings.name == "digits":
        known: Known | None = DIGITS
        opened = choose("digits", Decoded(CLASSES, *read_digits(settings.size, settings.channels)), settings, seed)
    else:
        known = HUB.get(settings.name)
        opened = open_images(settings, seed)
    _check_known(settings, known, opened)
    shape = _shape(opened.train)
    mean, std = normalisation((settings.mean, settings.std), known, opened.train, shape[0])
    info = DataInfo(opened.name, opened.classes, shape, mean, std)
    train, validation = held_out(opened.train, opened.labels, settings.validation, seed)
    return Data(info, train, validation, opened.test, settings.augment)


def nominal_shape(settings: DataSettings) -> tuple[int, int]:
    """Returns the channels and the side in pixels that the settings lead to, without opening anything.

    What the settings leave open comes from the catalogue; a data set that is not in it counts as colour of 32 x 32.
    """
    known = DIGITS if settings.name == "digits" and settings.path is None else HUB.get(settings.name)
    channels, side = (len(known.mean), known.side) if known else (3, 32)
    return settings.channels or channels, settings.size or side


def held_out(train: Source, labels: Tensor, share: float, seed: int) -> tuple[Source, Source | None]:
    """Splits the validation part off the training part; ``labels`` ``[N]`` are the training part's."""
    if share == 0:
        return train, None
    stays, held = stratified_split(labels, share, seed)
    if len(held) == 0:
        raise UserError(
            f"data.validation of {share} leaves no image of {len(labels)} for validation; enlarge it, or set it to 0"
        )
    return select(train, stays), select(train, held)


def _shape(source: Source) -> tuple[int, int, int]:
    if isinstance(source, ImageSet):
        channels, height, width = source.images.shape[1:]
        return channels, height, width
    return source.shape


def _check_known(settings: DataSettings, known: Known | None, opened: Opened) -> None:
    """Refuses a folder that cannot be what the name says, whose constants would then be wrong for it."""
    if known and len(opened.classes) > known.classes:
        raise UserError(
            f"data.path '{settings.path}' has {len(opened.classes)} classes where data.name '{settings.name}' has "
            f"{known.classes}; set data.name to the data set that lies there"
        )
