"""Where the membrane potentials lie, and how many of them the surrogate's window reaches.

A neuron whose potential is outside the window passes no gradient back: the share inside says how much of a layer can
learn.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spikedistill.errors import UserError
from spikedistill.evaluation.accuracy import inference
from spikedistill.models.activation import Spike, layers_of
from spikedistill.models.fuse import restore
from spikedistill.spiking import LIF
from spikedistill.spiking.recurrence import plain_step

BINS = 60


@dataclass(frozen=True)
class Potentials:
    """Membrane potentials of a layer before each spike, over images, neurons and timesteps.

    Attributes:
        edges: of the histogram's bins, in units of the membrane potential.
        density: share of the potentials in each bin, divided by its width; what lies outside is in the outermost bins.
        threshold: at which the neurons fire.
        surrogate: name and width.
        window: potentials between which the surrogate's derivative is at least a hundredth of its maximum.
        inside: share of the potentials within the window.
        derivative: of the surrogate at the middle of each bin.
    """

    edges: tuple[float, ...]
    density: tuple[float, ...]
    threshold: float
    surrogate: tuple[str, float]
    window: tuple[float, float]
    inside: float
    derivative: tuple[float, ...]


def membrane_potentials(network: nn.Module, images: Tensor, bins: int = BINS) -> dict[str, Potentials]:
    """Histograms of every layer's membrane potentials before the spike.

    Args:
        network: an SNN; it is left as it is.
        images: ``[B, ...]`` as it takes them.
        bins: of each histogram, which reaches from three thresholds below zero to four above.

    Raises:
        UserError: an ANN.
    """
    subject = restore(copy.deepcopy(network))
    layers = {path: layer for path, layer in layers_of(subject).items() if isinstance(layer.neuron, LIF)}
    if not layers:
        raise UserError("membrane potentials are a spiking network's; this one is an ANN")
    currents: dict[str, Tensor] = {}

    def keep(path: str) -> Any:
        def record(_neuron: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            currents[path] = inputs[0]

        return record

    for path, layer in layers.items():
        layer.neuron.register_forward_pre_hook(keep(path))
    with inference(subject):
        subject(images)
        return {path: _histogram(layer, currents[path], bins) for path, layer in layers.items() if path in currents}


def _histogram(layer: Spike, current: Tensor, bins: int) -> Potentials:
    neuron = layer.neuron
    potentials = charged(current, neuron).flatten().double().cpu()
    threshold, surrogate = neuron.threshold, neuron.surrogate
    edges = torch.linspace(-3.0 * threshold, 4.0 * threshold, bins + 1, dtype=torch.float64)
    counts = torch.histogram(potentials.clamp(edges[0], edges[-1]), edges).hist
    middles = (edges[1:] + edges[:-1]) / 2
    fine = torch.linspace(-8.0, 8.0, 16001, dtype=torch.float64) * max(threshold, surrogate.width)
    slopes = surrogate.derivative(fine)
    reached = fine[slopes >= 0.01 * slopes.max()] + threshold
    window = (float(reached.min()), float(reached.max()))
    return Potentials(
        edges=tuple(edges.tolist()),
        density=tuple((counts / counts.sum() / (edges[1] - edges[0])).tolist()),
        threshold=threshold,
        surrogate=(surrogate.name, surrogate.width),
        window=window,
        inside=float(((potentials >= window[0]) & (potentials <= window[1])).double().mean()),
        derivative=tuple(surrogate.derivative(middles - threshold).tolist()),
    )


@torch.no_grad()
def charged(current: Tensor, neuron: LIF) -> Tensor:
    """The membrane potential that each step's spike is decided on: currents ``[T, B, ...]`` to the same shape."""
    v = torch.zeros_like(current[0])
    decay, found = neuron.decay, []
    for step in current:
        found.append(decay * v + step)
        _, v = plain_step(step, v, decay, neuron.dynamics)
    return torch.stack(found)
