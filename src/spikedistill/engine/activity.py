"""Spiking layers that say nothing: none of their neurons fires, or all of them always do."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from spikedistill.models.activation import layers_of
from spikedistill.models.features import taps
from spikedistill.models.modes import in_eval_mode
from spikedistill.spiking import compiling

IMAGES = 32
"""Images that are looked at: enough that a layer of thousands of neurons without one spike is dead."""


class Activity:
    """Tells of layers that have become dead or saturated, once each."""

    def __init__(self) -> None:
        self.known: dict[str, float] = {}

    def tell(self, network: nn.Module, images: Tensor, say: Callable[[str], None]) -> None:
        """Looks at a batch of training images (see ``unvarying_layers``) and says what has changed since."""
        found = unvarying_layers(network, images)
        for path, rate in found.items():
            if self.known.get(path) != rate:
                state = "saturated: all its neurons always fire" if rate else "dead: none of its neurons fires"
                say(f"layer '{path}' is {state} (on a few training images)")
        self.known = found


def unvarying_layers(network: nn.Module, images: Tensor) -> dict[str, float]:
    """The spiking layers whose firing rate is exactly 0 or exactly 1.

    One forward pass in eval mode on a few images; it leaves no trace on the network nor on the random numbers.

    Args:
        network: the student; an ANN has no such layers.
        images: ``[B, C, H, W]`` or ``[T, B, C, H, W]``.

    Returns:
        The layer's path to its rate, 0.0 or 1.0.
    """
    points = {path: path for path in layers_of(network)}
    if not points:
        return {}
    few = images[:, :IMAGES] if images.dim() == 5 else images[:IMAGES]
    with (
        in_eval_mode(network),
        torch.inference_mode(),
        compiling.choose("plain"),  # a few images an epoch, in float32: kernels of their own are not worth it
        torch.random.fork_rng(devices=[few.device] if few.is_cuda else []),
        taps(network, points, "after") as tap,
    ):
        network(few)
        spikes = {name: value.detach().float().mean() for name, value in tap.take().items()}
        rates = torch.stack(list(spikes.values())).tolist() if spikes else []
    return {name: rate for name, rate in zip(spikes, rates, strict=True) if rate in (0.0, 1.0)}
