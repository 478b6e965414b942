"""Quantities as people read them: accuracies with two decimals, energies and counts with three digits and a unit."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spikedistill.report.groups import Spread

EMPTY = "–"
"""Where there is no figure."""

_ENERGIES = (("J", 1e12), ("mJ", 1e9), ("µJ", 1e6), ("nJ", 1e3), ("pJ", 1.0))
_COUNTS = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 1.0))
_ROUNDS_UP = 0.9995
"""From here on three digits of a unit are 1000 of it."""


def scale(picojoules: float) -> tuple[str, float]:
    """The unit that suits an energy, and its size in pJ."""
    return _unit(picojoules, _ENERGIES)


def _unit(value: float, units: tuple[tuple[str, float], ...]) -> tuple[str, float]:
    return next(((unit, size) for unit, size in units if value >= _ROUNDS_UP * size), units[-1])


def joules(picojoules: float) -> str:
    """An energy: 0.9 pJ, 82.3 µJ."""
    unit, size = scale(picojoules)
    return f"{_digits(picojoules / size)} {unit}"


def _digits(value: float) -> str:
    """Three digits, and no power of ten for what is beyond the largest unit."""
    return f"{value:,.0f}" if value >= 999.5 else f"{value:.3g}"


def count(number: float) -> str:
    """A count: 0, 49.7k, 7.39M."""
    unit, size = _unit(number, _COUNTS)
    return f"{_digits(number / size)}{unit}"


def percent(value: float | None) -> str:
    """An accuracy with two decimals, or a dash."""
    return EMPTY if value is None else f"{value:.2f}"


def points(value: float | None) -> str:
    """A signed difference in percentage points, or a dash."""
    return EMPTY if value is None else f"{value:+.2f}".replace("-", "−").replace("−0.00", "±0.00")


def spread_text(value: Spread | None) -> str:
    """``mean ± sd`` in percent; the mean alone for a single run."""
    if value is None:
        return EMPTY
    return f"{value.mean:.2f}" if value.sd is None else f"{value.mean:.2f} ± {value.sd:.2f}"
