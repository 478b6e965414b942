"""Spiking neurons, their surrogate gradients and the handling of time. Needs torch only."""

from spikedistill.spiking.neuron import IF, LIF, PLIF
from spikedistill.spiking.surrogate import SHAPES, Surrogate, make_surrogate

__all__ = ["IF", "LIF", "PLIF", "SHAPES", "Surrogate", "make_surrogate"]
