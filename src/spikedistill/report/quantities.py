"""Quantities as people read them: accuracies with two decimals, energies and counts with three digits and a unit."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spikedistill.report.groups import Spread

EMPTY = "–"
"""Where there is no figure."""

_ENERGIES = (("mJ", 1e9), ("µJ", 1e6), ("nJ", 1e3))
_COUNTS = (("G", 1e9), ("M", 1e6), ("k", 1e3))


def scale(picojoules: float) -> tuple[str, float]:
    """The unit that suits an energy, and its size in pJ."""
    return next(((unit, size) for unit, size in _ENERGIES if picojoules >= size), ("pJ", 1.0))


def joules(picojoules: float) -> str:
    """An energy: 0.9 pJ, 82.3 µJ."""
    unit, size = scale(picojoules)
    return f"{picojoules / size:.3g} {unit}"


def count(number: float) -> str:
    """A count: 0, 49.7k, 7.39M."""
    for unit, size in _COUNTS:
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


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
