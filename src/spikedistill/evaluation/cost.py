"""The bill of a network: one row a layer, and what they add up to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from spikedistill.evaluation.inputs import SPARSE
from spikedistill.evaluation.prices import FORMULAS, Prices

BITS = 32
"""Of an activation and of a membrane potential; a spike is one."""


@dataclass(frozen=True)
class Layer:
    """One layer's share, per image.

    Attributes:
        name: the module's path; ``:product2`` and the like where a module does several things.
        kind: ``convolution``, ``linear``, ``product``, ``normalisation``, ``activation`` (ANN), ``neurons`` (SNN), or
            ``other`` (parameters alone).
        parameters: of this module.
        macs: multiply-accumulates of one pass, as if no input were zero.
        passes: how often it is computed: T, or once where the input is the same at every step.
        input: what enters (``inputs.KINDS``), None in an ANN.
        input_rate: share of the input that is not zero: of spikes, the firing rate.
        accumulates, multiply_accumulates: what remains to be done over all passes.
        neurons: activations or neurons.
        spikes: how many leave, over all passes.
        firing_rate: spikes per neuron and step, None where nothing fires.
        computation: pJ.
        bits: moved.
        movement: pJ, with the cheapest and with the dearest memory.
    """

    name: str
    kind: str
    parameters: int
    macs: int
    passes: int
    input: str | None
    input_rate: float | None
    accumulates: float
    multiply_accumulates: float
    neurons: int
    spikes: float
    firing_rate: float | None
    computation: float
    bits: float
    movement: tuple[float, float]


@dataclass(frozen=True)
class Energy:
    """What a network costs, per image. Energies in pJ.

    Attributes:
        timesteps: T, None for an ANN.
        images: how many were measured.
        prices: the constants.
        layers: in order of execution.
        flops: KDSNN's count, for an ANN.
    """

    timesteps: int | None
    images: int
    prices: Prices
    layers: tuple[Layer, ...]
    flops: int | None

    @property
    def parameters(self) -> int:
        """Of the whole network."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one pass, as if no input were zero."""
        return sum(layer.macs for layer in self.layers)

    @property
    def accumulates(self) -> float:
        """Over all timesteps."""
        return sum(layer.accumulates for layer in self.layers)

    @property
    def multiply_accumulates(self) -> float:
        """Over all timesteps."""
        return sum(layer.multiply_accumulates for layer in self.layers)

    @property
    def synops(self) -> float:
        """Synaptic operations: what spikes (and sums and averages of spikes) set off, over all timesteps."""
        return sum(one.accumulates + one.multiply_accumulates for one in self.layers if one.input in SPARSE)

    @property
    def neurons(self) -> int:
        """Neurons, or an ANN's activations."""
        return sum(layer.neurons for layer in self.layers)

    @property
    def spikes(self) -> float:
        """Over all timesteps."""
        return sum(layer.spikes for layer in self.layers)

    @property
    def firing_rate(self) -> float | None:
        """Spikes per neuron and step over the whole network; None for an ANN."""
        return self.spikes / (self.neurons * self.timesteps) if self.timesteps and self.neurons else None

    @property
    def computation(self) -> float:
        """Energy of computation in pJ."""
        return sum(layer.computation for layer in self.layers)

    @property
    def bits(self) -> float:
        """Moved."""
        return sum(layer.bits for layer in self.layers)

    @property
    def movement(self) -> tuple[float, float]:
        """Energy of data movement in pJ, with the cheapest and with the dearest memory."""
        return self.prices.movement(self.bits)

    @property
    def first_layer_every_step(self) -> float:
        """Energy of computation in pJ if what is computed once were computed at every timestep."""
        return sum(one.computation * ((self.timesteps or 1) if one.passes == 1 else 1) for one in self.layers)

    @property
    def membrane_moved_once(self) -> float:
        """Bits moved if a membrane potential were moved once a step instead of read and written."""
        return self.bits - (self.timesteps or 0) * self.neurons * BITS

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON has it, with the formulas; energies in pJ."""
        totals = (
            "parameters macs flops accumulates multiply_accumulates synops neurons spikes firing_rate computation bits "
            "movement first_layer_every_step membrane_moved_once"
        )
        return {
            "timesteps": self.timesteps,
            "images": self.images,
            "prices": asdict(self.prices),
            "formulas": FORMULAS,
            "total": {name: getattr(self, name) for name in totals.split()},
            "layers": [asdict(layer) for layer in self.layers],
        }
