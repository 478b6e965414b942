"""What a layer takes: an image, spikes, small whole numbers, averages of these, or analogue values.

The kind decides what an operation costs. It is read from the values, not from the architecture, so that a network
which nobody here wrote is priced by what flows through it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

SPIKES, INTEGERS, AVERAGED, ANALOGUE, IMAGE = "spikes", "integers", "averaged", "analogue", "image"
KINDS = {
    SPIKES: "binary spikes: accumulates where a spike is",
    INTEGERS: "small whole numbers (sums of spikes, as in SEW-ResNet): multiply-accumulates where they are not zero",
    AVERAGED: "averages of spikes (after average pooling): multiply-accumulates where they are not zero",
    ANALOGUE: "analogue values: multiply-accumulates for all of them",
    IMAGE: "the image or what was computed from it before the first neuron: multiply-accumulates for all of it",
}
"""From the cheapest to the dearest; a layer that takes several kinds is priced by the last of them."""
SPARSE = (SPIKES, INTEGERS, AVERAGED)
"""What costs nothing where it is zero."""
_ORDER = list(KINDS)
_TOLERANCE = 1e-4


@dataclass
class Inputs:
    """What has entered a layer so far.

    Attributes:
        kind: the dearest kind seen.
        elements, nonzero: how many values, and how many of them were not zero.
        height: of the spikes (one, but for calibrated networks); None while there were none.
    """

    kind: str = SPIKES
    elements: int = 0
    nonzero: int = 0
    height: float | None = None

    @property
    def rate(self) -> float:
        """Share of values that are not zero: of spikes, their firing rate."""
        return self.nonzero / self.elements if self.elements else 0.0

    def add(self, kind: str, elements: int, nonzero: int) -> None:
        """Takes in what was counted elsewhere."""
        self.kind = max(self.kind, kind, key=_ORDER.index)
        self.elements += elements
        self.nonzero += nonzero

    def see(self, x: Tensor, before_neurons: bool, windows: Iterable[int], heights: Iterable[float]) -> None:
        """Takes in one more tensor; arguments as in ``kind_of``."""
        kind = kind_of(x, before_neurons, windows, heights)
        if kind == SPIKES:
            height = float(x.max())
            if height and self.height not in (None, height):  # of two heights, one must be multiplied
                kind = ANALOGUE
            self.height = height or self.height
        self.add(kind, x.numel(), int(x.count_nonzero()))


def cheapest(kinds: Iterable[str]) -> str:
    """The kind that costs least."""
    return min(kinds, key=_ORDER.index)


def kind_of(x: Tensor, before_neurons: bool, windows: Iterable[int], heights: Iterable[float]) -> str:
    """The kind of a tensor.

    Args:
        x: any shape, not empty.
        before_neurons: whether no neuron has fired yet on the way here.
        windows: how many values the average poolings so far have averaged.
        heights: of the neurons' spikes.
    """
    lowest, highest = (float(value) for value in torch.aminmax(x))
    if lowest == 0.0 and bool(((x == 0) | (x == highest)).all()):
        return SPIKES
    if lowest == highest and not before_neurons and highest in heights:  # every neuron has fired
        return SPIKES
    if lowest >= 0.0 and bool((x == x.round()).all()):
        return INTEGERS
    if before_neurons:
        return IMAGE
    averaged = lowest >= 0.0 and any(_multiples(x, height / window) for window in windows for height in heights)
    return AVERAGED if averaged else ANALOGUE


def _multiples(x: Tensor, unit: float) -> bool:
    counts = x.double() / unit
    return bool(((counts - counts.round()).abs() <= _TOLERANCE * counts.clamp_min(1.0)).all())
