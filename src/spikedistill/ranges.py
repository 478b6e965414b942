"""Refusing a setting of a recipe that is out of its range."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from spikedistill.errors import UserError

RANGES: dict[str, Callable[[float], bool]] = {
    "above 0": lambda value: value > 0,
    "at least 0": lambda value: value >= 0,
    "between 0 and 1": lambda value: 0 <= value <= 1,
    "at least 0 and below 1": lambda value: 0 <= value < 1,
}


def check_ranges(settings: object, ranges: Mapping[str, Iterable[str]], section: str = "method") -> None:
    """Checks numbers among a section's settings; one that is None passes.

    Args:
        settings: an instance of a section's class, such as a method's ``Settings``.
        ranges: a key of ``RANGES`` to the fields it holds for.
        section: the recipe's, for the message.

    Raises:
        UserError: the first field that is out of its range (NaN is out of every range).
    """
    for wanted, names in ranges.items():
        for name in names:
            value = getattr(settings, name)
            if value is not None and not RANGES[wanted](value):
                raise UserError(f"{section}.{name} must be {wanted}, not {value!r}")
