"""Quantities as people read them: three digits and a unit."""

from __future__ import annotations

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
