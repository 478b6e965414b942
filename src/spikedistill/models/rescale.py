"""A network that sees its images as it was trained to see them, whatever they were normalised with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

Normalisation = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation of each channel, in units of [0, 1]."""


class Rescale:
    """A forward pre-hook: images normalised in one way, to the same images normalised in another.

    Args:
        given: what the images come normalised with.
        wanted: what the network was trained on.
    """

    def __init__(self, given: Normalisation, wanted: Normalisation) -> None:
        (mean, std), (own_mean, own_std) = (
            [torch.tensor(part, dtype=torch.float64) for part in normalisation] for normalisation in (given, wanted)
        )
        self.factor = (std / own_std).view(-1, 1, 1)
        self.shift = ((mean - own_mean) / own_std).view(-1, 1, 1)

    def __call__(self, _network: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x, *others = inputs
        factor, shift = self.factor.to(x.device, x.dtype), self.shift.to(x.device, x.dtype)
        return (x * factor + shift, *others)


def see_as(network: nn.Module, given: Normalisation, wanted: Normalisation) -> nn.Module:
    """Lets a network take images normalised with ``given`` for what it knows as ``wanted``, in place; returns it."""
    if [tuple(part) for part in given] != [tuple(part) for part in wanted]:
        network.register_forward_pre_hook(Rescale(given, wanted))
    return network
