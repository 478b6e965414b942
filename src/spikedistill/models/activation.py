"""What makes a network an ANN or an SNN: the activation it is built with."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from spikedistill.spiking import LIF
from spikedistill.spiking.time import direct_encode, fold, unfold

Activation = Callable[[], nn.Module]


class Clock:
    """The number of timesteps of the call in progress, shared by the activations of one network."""

    def __init__(self, timesteps: int) -> None:
        self.timesteps = timesteps


class Spike(nn.Module):
    """A spiking activation for folded tensors: ``[T*B, ...]`` currents to spikes of the same shape."""

    def __init__(self, neuron: LIF, clock: Clock) -> None:
        super().__init__()
        self.neuron = neuron
        self.clock = clock

    def forward(self, x: Tensor, constant: bool = False) -> Tensor:
        """Currents to spikes; ``constant`` says that they are ``[B, ...]``, the same at every step."""
        steps = self.clock.timesteps
        return fold(self.neuron(direct_encode(x, steps) if constant else unfold(x, steps)))

    def encode(self, x: Tensor) -> Tensor:
        """Direct coding: currents ``[B, ...]`` that are the same at every step, to spikes ``[T*B, ...]``.

        What precedes the first neuron is computed once instead of T times, and read once.
        """
        return self(x, constant=True)


def relu() -> nn.Module:
    """The ANN's activation. Not in place: a feature before the activation must stay what it was."""
    return nn.ReLU()


def spiking(neuron: LIF, clock: Clock) -> Activation:
    """The SNN's activation factory: every layer gets a copy of ``neuron`` (its own learnable decay, if any)."""
    # Not a lambda: a copied network must make activations that listen to its own clock, and partial is copied deeply.
    return partial(_spike, neuron, clock)


def _spike(neuron: LIF, clock: Clock) -> Spike:
    return Spike(neuron.copy(), clock)


def layers_of(network: nn.Module) -> dict[str, Spike]:
    """The spiking activations of a network by module path, in order of definition."""
    return {path: module for path, module in network.named_modules() if isinstance(module, Spike)}
