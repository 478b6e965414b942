"""The contents of evaluation.json, checked once at the door so that the plots can trust them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from spikedistill.errors import UserError

LARGEST = 1e100
"""Beyond this a number is a mistake, and its sums and squares would be infinite."""


@dataclass(frozen=True)
class Example:
    """One test image and the spikes it causes.

    ``image`` is [H][W][C] in 0..255 with C 1 (grey), 2 (event polarities) or 3 (RGB); ``raster`` maps a layer to
    [neurons][T] of 0 and 1.
    """

    image: list[list[list[int]]]
    label: int | None
    prediction: int | None
    raster: dict[str, list[list[int]]]


@dataclass(frozen=True)
class Evaluation:
    """What was measured on the test set. Accuracies in percent, firing rates in spikes per neuron and timestep.

    ``confusion`` counts images: rows are the true classes, columns the predicted ones. Layers are ordered by depth.
    """

    accuracy_per_timestep: dict[int, float] = field(default_factory=dict)
    firing_rate: dict[str, float] = field(default_factory=dict)
    confusion: list[list[int]] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    example: Example | None = None


def parse_evaluation(content: dict[str, Any], where: str) -> Evaluation:
    """Checks and types the contents of evaluation.json; every part may be absent.

    Raises:
        UserError: a part has another form than it should; the message names the file and the part.
    """
    confusion, classes = _confusion(content, where)
    return Evaluation(
        accuracy_per_timestep=parse_per_timestep(content, where),
        firing_rate=_numbers(content.get("firing_rate"), "firing_rate", where),
        confusion=confusion,
        classes=classes,
        example=_example(content.get("example"), where),
    )


def parse_per_timestep(content: dict[str, Any], where: str) -> dict[int, float]:
    """Accuracy in percent after each number of timesteps; empty where the content does not tell it.

    Raises:
        UserError: it is told in another form; the message names the file.
    """
    per_timestep = _numbers(content.get("accuracy_per_timestep"), "accuracy_per_timestep", where)
    try:
        accuracy = {int(step): value for step, value in per_timestep.items()}
    except ValueError as fault:
        raise UserError(f"{where}: 'accuracy_per_timestep' must be keyed by timesteps 1, 2, ...") from fault
    return dict(sorted(accuracy.items()))


def _numbers(value: Any, key: str, where: str) -> dict[str, float]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(_is_number(number) for number in value.values()):
        raise UserError(f"{where}: '{key}' must map names to numbers")
    return {str(name): float(number) for name, number in value.items() if within_reason(number)}


def _confusion(content: dict[str, Any], where: str) -> tuple[list[list[int]], list[str]]:
    rows = content.get("confusion") or []
    if not _is_matrix(rows) or any(len(row) != len(rows) for row in rows):
        raise UserError(f"{where}: 'confusion' must be a square matrix of counts")
    classes = content.get("classes") or list(range(len(rows)))
    if not isinstance(classes, list) or (rows and len(classes) != len(rows)):
        raise UserError(f"{where}: 'classes' must list the {len(rows)} classes of 'confusion'")
    return [[int(count) for count in row] for row in rows], [str(name) for name in classes]


def _example(value: Any, where: str) -> Example | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise UserError(f"{where}: 'example' must be an object")
    raster = value.get("raster") or {}
    if not isinstance(raster, dict) or not all(_is_matrix(rows) for rows in raster.values()):
        raise UserError(f"{where}: 'example.raster' must map each layer to neurons x timesteps of 0 and 1")
    image = value.get("image") or []
    if not _is_image(image):
        raise UserError(f"{where}: 'example.image' must be height x width x channels (1 to 3) of 0 to 255")
    classes = [value.get(key) for key in ("label", "prediction")]
    if not all(number is None or isinstance(number, int) for number in classes):
        raise UserError(f"{where}: 'example.label' and 'example.prediction' must be class indices")
    return Example(image, classes[0], classes[1], {str(name): rows for name, rows in raster.items()})


def _is_matrix(rows: Any) -> bool:
    """A list of equally long lists of numbers."""
    return (
        isinstance(rows, list)
        and all(isinstance(row, list) and len(row) == len(rows[0]) for row in rows)
        and all(_is_number(value) and within_reason(value) for row in rows for value in row)
    )


def _is_image(rows: Any) -> bool:
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == len(rows[0]) for row in rows):
        return False
    pixels = [pixel for row in rows for pixel in row]
    if rows and not pixels:
        return False
    return all(
        isinstance(pixel, list) and len(pixel) in (1, 2, 3) and len(pixel) == len(pixels[0]) for pixel in pixels
    ) and all(isinstance(value, int) and 0 <= value <= 255 for pixel in pixels for value in pixel)


def reasonable(value: Any) -> float:
    """The number that a value is.

    Raises:
        TypeError, ValueError: it is none, or none that could be drawn and averaged.
    """
    number = float(value)
    if not within_reason(number):
        raise ValueError(f"{number} is beyond reason")
    return number


def within_reason(value: float) -> bool:
    """Whether a number may be drawn and averaged: not NaN, not infinite, nor so large that its sums would be."""
    return -LARGEST <= value <= LARGEST


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
