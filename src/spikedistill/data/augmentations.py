"""The augmentations a recipe can name, and how a name with a value is read."""

import math

from spikedistill.data.augment import Augmentation, Cutout, Erase, Flip, ResizedCrop, Rotate, Shift
from spikedistill.data.autoaugment import AutoAugment
from spikedistill.errors import UserError, unknown

AUGMENTATIONS: dict[str, type[Augmentation]] = {
    "crop": Shift,
    "shift": Shift,
    "flip": Flip,
    "rotate": Rotate,
    "resizedcrop": ResizedCrop,
    "cutout": Cutout,
    "erase": Erase,
    "autoaugment": AutoAugment,
}


def parse_augmentation(text: str) -> tuple[type[Augmentation], float]:
    """Reads ``name`` or ``name:value``.

    Raises:
        UserError: unknown name, or a value that is no number, out of range, or not taken.
    """
    name, colon, given = text.partition(":")
    if name not in AUGMENTATIONS:
        raise unknown("augmentation", name, tuple(AUGMENTATIONS))
    kind = AUGMENTATIONS[name]
    if not colon:
        return kind, kind.default or 0.0
    if kind.default is None:
        raise UserError(f"augmentation '{text}': {name} takes no value; write '{name}'")
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if not kind.low <= value <= kind.high or value == math.inf or (kind.whole and value != int(value)):
        limits = f"{kind.low:g} to {kind.high:g}" if kind.high < math.inf else f"at least {kind.low:g}"
        number = "a whole number" if kind.whole else "a number"
        raise UserError(f"augmentation '{text}': the value must be {number}, {limits}, such as {name}:{kind.default:g}")
    return kind, value


def check_augmentations(names: tuple[str, ...]) -> None:
    """Refuses names or values that do not exist."""
    for text in names:
        parse_augmentation(text)
