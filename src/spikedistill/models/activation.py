"""What makes a network an ANN or an SNN: the activation it is built with."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from spikedistill.errors import UserError
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
    neuron = checked_neuron(neuron)
    # Not a lambda: a copied network must make activations that listen to its own clock, and partial is copied deeply.
    return partial(_spike, neuron, clock)


def checked_neuron(given: Any) -> LIF:
    """Returns ``given`` if it is a neuron; raises UserError otherwise."""
    if isinstance(given, LIF):
        return given
    name = getattr(given, "__name__", None)
    told = f"'{name}' itself; call it: sd.{name}()" if name else f"{given!r:.60}"
    raise UserError(f"neuron must be a neuron such as sd.LIF(), not {told}")


def _spike(neuron: LIF, clock: Clock) -> Spike:
    return Spike(neuron.copy(), clock)


def layers_of(network: nn.Module) -> dict[str, Spike]:
    """The spiking activations of a network by module path, in order of definition."""
    return {path: module for path, module in network.named_modules() if isinstance(module, Spike)}
