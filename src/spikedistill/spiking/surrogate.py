"""Surrogate gradients: what stands in for the derivative of the Heaviside step in the backward pass.

Each is a smooth (or piecewise) step ``primitive(x)`` of the distance ``x = u - threshold``, with its derivative.
All of them integrate to one, so that a width changes the window and not the total gradient; width 1 of ``triangle`` is
SAKD's equation 4, ``rectangle`` of width ``lens`` is IDSNN's equation 4, and both are the two lines of Joint A-SNN's
equation 5 for gamma = 1 / threshold (its triangle reaches from 0 to twice the threshold: width = threshold).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spikedistill.errors import UserError, unknown


def _triangle_primitive(x: Tensor, w: float) -> Tensor:
    z = (x / w).clamp(-1.0, 1.0)
    return 0.5 + z - 0.5 * z * z.abs()


def _triangle_derivative(x: Tensor, w: float) -> Tensor:
    return (1.0 - x.abs() / w).clamp_min(0.0) / w


def _rectangle_primitive(x: Tensor, w: float) -> Tensor:
    return (0.5 + x / (2.0 * w)).clamp(0.0, 1.0)


def _rectangle_derivative(x: Tensor, w: float) -> Tensor:
    return (x.abs() < w).to(x.dtype) / (2.0 * w)


def _sigmoid_primitive(x: Tensor, w: float) -> Tensor:
    return torch.sigmoid(x / w)


def _sigmoid_derivative(x: Tensor, w: float) -> Tensor:
    s = torch.sigmoid(x / w)
    return s * (1.0 - s) / w


def _arctan_primitive(x: Tensor, w: float) -> Tensor:
    return torch.atan(x * (math.pi / (2.0 * w))) / math.pi + 0.5


def _arctan_derivative(x: Tensor, w: float) -> Tensor:
    z = x * (math.pi / (2.0 * w))
    return (0.5 / w) / (1.0 + z * z)


def _exponential_primitive(x: Tensor, w: float) -> Tensor:
    tail = 0.5 * torch.exp(-x.abs() / w)
    return torch.where(x < 0, tail, 1.0 - tail)


def _exponential_derivative(x: Tensor, w: float) -> Tensor:
    return torch.exp(-x.abs() / w) * (0.5 / w)


@dataclass(frozen=True)
class Shape:
    """A family of surrogates.

    Attributes:
        primitive: ``(x, width) -> `` the step that the surrogate is the derivative of.
        derivative: ``(x, width) -> ds/du``.
        default_width: the width used where none is given.
    """

    primitive: Callable[[Tensor, float], Tensor]
    derivative: Callable[[Tensor, float], Tensor]
    default_width: float


SHAPES: dict[str, Shape] = {
    "triangle": Shape(_triangle_primitive, _triangle_derivative, 1.0),
    "rectangle": Shape(_rectangle_primitive, _rectangle_derivative, 0.5),
    "sigmoid": Shape(_sigmoid_primitive, _sigmoid_derivative, 0.25),
    "arctan": Shape(_arctan_primitive, _arctan_derivative, 0.5),
    "exponential": Shape(_exponential_primitive, _exponential_derivative, 1.0),
}


@dataclass(frozen=True)
class Surrogate:
    """One surrogate: a shape and its width, in units of the membrane potential.

    ``triangle``: half-width of the base; ``rectangle``: half-width of the window; ``sigmoid``, ``arctan`` and
    ``exponential``: the length over which they fall off (SpikingJelly's ``1 / alpha``; for its ``Rect``,
    ``0.5 / alpha``).
    """

    name: str
    width: float

    def primitive(self, x: Tensor) -> Tensor:
        """The step (values 0 to 1) whose derivative this surrogate is; ``x = u - threshold``, any shape."""
        return SHAPES[self.name].primitive(x, self.width)

    def derivative(self, x: Tensor) -> Tensor:
        """``ds/du`` at ``x = u - threshold``, any shape."""
        return SHAPES[self.name].derivative(x, self.width)


def is_number(value: Any) -> bool:
    """Whether a value is one finite number: Python's, numpy's or a tensor's."""
    if isinstance(value, str | bytes) or not hasattr(value, "__float__"):
        return False
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError, RuntimeError):  # several numbers
        return False


def make_surrogate(name: str, width: float | None = None) -> Surrogate:
    """Builds a surrogate by name.

    Raises:
        UserError: unknown name, or a width that is not positive.
    """
    if not isinstance(name, str) or name not in SHAPES:
        raise unknown("surrogate", str(name), list(SHAPES))
    width = SHAPES[name].default_width if width is None else width
    if not is_number(width):
        raise UserError(f"surrogate width must be a finite number, not {width!r}")
    if not width > 0:
        raise UserError(f"surrogate width must be positive, not {float(width)}")
    width = float(width)
    return Surrogate(name, width)
