"""``spikify``: the spiking twin of a network that nobody here wrote."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from spikedistill.errors import UserError, shortened
from spikedistill.models.activation import checked_neuron
from spikedistill.models.adopt import Adopted
from spikedistill.models.assemble import Parts, assemble
from spikedistill.models.calibrate import calibrate
from spikedistill.models.folded import Analogue, OneMask, TwinSpike
from spikedistill.models.modes import modes_of, set_modes
from spikedistill.models.network import checked_network, checked_timesteps
from spikedistill.models.probe import check_steady, example_rows, refusal
from spikedistill.models.replaceable import is_activation
from spikedistill.models.tracing import trace
from spikedistill.models.witness import check_traceable, compare, copied, held_modes
from spikedistill.spiking import LIF
from spikedistill.spiking.time import fold, readout, unfold


@dataclass(frozen=True)
class Replacement:
    """An activation and the neuron in its place.

    Attributes:
        path: of the neuron's module in the twin.
        activation: how the activation is written, such as ``nn.ReLU`` or ``F.gelu``.
        shape: of one image's activations.
        neuron: its settings, the threshold in units of the ANN's activation; None in an ANN.
        loss: what is lost by it, None for nothing.
    """

    path: str
    activation: str
    shape: tuple[int, ...]
    neuron: dict[str, object] | None
    loss: str | None


class Twin(nn.Module):
    """A network rebuilt from its trace: an SNN, or (``to_ann``) the ANN with every activation a module of its own.

    It has the sub-modules, parameters and buffers of the network, under the same names, and obeys the contract of
    ``Network``. ``stages`` and ``blocks`` name its features (unless the network has sub-modules of these names; then
    ``points`` has them alone).
    """

    points: dict[str, dict[str, str]]

    def __init__(self, parts: Parts, held: dict[bool, tuple[str, ...]], dims: int) -> None:
        super().__init__()
        body = parts.body
        own = ("points", "_clock", "_programs", "_sites", "_held", "_dims", "_origin", "_analogue")
        for name in [*body._modules, *body._parameters, *body._buffers]:
            if name in vars(Twin) or name in own:
                raise refusal(f"'{name}'", "the spiking twin uses this name itself; rename the network's")
        self._modules, self._parameters, self._buffers = body._modules, body._parameters, body._buffers
        self._non_persistent_buffers_set = body._non_persistent_buffers_set
        self.training = body.training
        tensors = {name: value for name, value in vars(body).items() if isinstance(value, Tensor)}
        self.__dict__.update(tensors)
        self._timesteps: int | None = None
        self._clock, self._programs, self._sites = parts.clock, parts.programs, parts.sites
        self._held, self._dims = held, dims
        self._origin, self._analogue = type(body).__name__, parts.analogue
        self.points = parts.points

    def __getattr__(self, name: str) -> Any:
        if name in ("stages", "blocks") and name not in self._modules and name not in self._parameters:
            return self.__dict__["points"][name]
        return super().__getattr__(name)

    @property
    def timesteps(self) -> int | None:
        """T of the SNN (may be set at any time), None for an ANN."""
        return self._timesteps

    @timesteps.setter
    def timesteps(self, value: int) -> None:
        if self._timesteps is None:
            raise UserError("an ANN has no timesteps to set")
        self._timesteps = checked_timesteps(value)

    @property
    def replacements(self) -> tuple[Replacement, ...]:
        """What was replaced, in the order in which it is computed."""
        return tuple(
            Replacement(site.path, site.found.name, site.shape, self._neuron(site.path), site.found.loss)
            for site in self._sites
        )

    def _neuron(self, path: str) -> dict[str, object] | None:
        spike = self.get_submodule(path)
        return spike.neuron.settings() | {"threshold": spike.threshold} if isinstance(spike, TwinSpike) else None

    def train(self, mode: bool = True) -> Twin:
        """Puts it into training or evaluation mode; what the network itself holds in the other mode stays there."""
        super().train(mode)
        for path in self._held[mode]:
            self.get_submodule(path).training = not mode
        return self

    def forward(self, x: Tensor, per_step: bool = False) -> Tensor:
        """Logits of images or sequences.

        Args:
            x: a batch like the example ``[B, ...]`` (direct coding: the same current at every step) or a sequence
                ``[T, B, ...]``, whose own length then is T. An ANN averages a sequence over time first.
            per_step: return the logits of every step instead of their mean.

        Returns:
            ``[B, K]``, or ``[T, B, K]`` with ``per_step`` (an ANN's has T = 1).

        Raises:
            UserError: a tensor of another number of dimensions.
        """
        if x.dim() not in (self._dims, self._dims + 1):
            raise UserError(
                f"the network takes images with {self._dims} dimensions [B, ...] or sequences with {self._dims + 1}, "
                f"[T, B, ...], not {list(x.shape)}"
            )
        direct = x.dim() == self._dims
        if self._timesteps is None:
            self._clock.timesteps = 1
            logits = self._programs[self.training, False].run(self, x if direct else readout(x), 1)
            return logits.unsqueeze(0) if per_step else logits
        steps = self._timesteps if direct else x.shape[0]
        self._clock.timesteps = steps
        program = self._programs[self.training, direct]
        logits = unfold(program.run(self, x if direct else fold(x), steps), steps)
        return logits if per_step else readout(logits)

    def to_ann(self) -> Twin:
        """A copy with every neuron turned back into the activation: the ANN, whose activations can be tapped."""
        ann = copy.deepcopy(self)
        ann._timesteps = None
        ann._mask_time(False)
        for site in ann._sites:
            spike = ann.get_submodule(site.path)
            if isinstance(spike, TwinSpike):
                site.put(ann, Analogue(spike.function, spike.slope, site.dim))
        return ann

    def to_snn(self, timesteps: int, neuron: LIF) -> Twin:
        """A copy with every activation turned into a neuron of its own."""
        return copy.deepcopy(self)._with_neurons(timesteps, neuron)

    def _with_neurons(self, timesteps: int, neuron: LIF) -> Twin:
        self._timesteps, neuron = checked_timesteps(timesteps), checked_neuron(neuron)
        self._mask_time(True)
        for site in self._sites:
            activation = self.get_submodule(site.path)
            if isinstance(activation, Analogue):
                spike = TwinSpike(neuron.copy(), self._clock, activation.function, site.dim, activation.slope)
                site.put(self, spike.train(activation.training))
        return self

    def _mask_time(self, over_time: bool) -> None:
        for module in self.modules():
            if isinstance(module, OneMask):
                module.over_time = over_time

    @property
    def graph(self) -> fx.Graph:
        """The graph in evaluation mode, of a sequence in folded time (for exporters; not to be changed)."""
        return self._programs[False, False].graph


def spikify(
    network: nn.Module,
    timesteps: int = 4,
    neuron: LIF | None = None,
    *,
    example_input: Tensor,
    calibration: Tensor | Iterable[Any] | None = None,
) -> Twin:
    """The spiking twin of any network: a copy with a neuron in the place of every activation.

    The network is traced (``torch.fx``) in evaluation and in training mode, so it does not matter how an activation is
    written: a module, a function or a method, in place or not. A module used at several places becomes a neuron for
    each. Everything else stays: parameters and their names, BatchNorm, pooling, attention (which each step does by
    itself), sigmoid and softmax. Dropout has one mask over T. What precedes the first neuron is computed once for an
    image that is the same at every step.

    Activations that do more than a ReLU (LeakyReLU, GELU, SiLU, ReLU6 and their kin) are replaced, too; a warning says
    what is lost. One that is written out (``x * torch.sigmoid(x)``, ``torch.where(x > 0, x, 0)``) is known by its
    values. A sigmoid, tanh or other curve that a layer takes stays what it is, and a warning names it; gates and
    attention weights stay without a word.

    Args:
        network: the ANN, from a batch ``[B, ...]`` to one tensor ``[B, K]``. It is copied and stays as it is.
        timesteps: T.
        neuron: the neuron that every layer copies; None takes ``LIF()``.
        example_input: a batch ``[B, ...]`` of the size and kind that the network takes, on its device. B may be 1.
        calibration: images (a tensor, or an iterable of batches) from which to set the thresholds; see ``calibrate``.

    Returns:
        The twin, in the network's mode. ``twin.replacements`` tells what was replaced, ``twin.to_ann()`` is the ANN
        again, ``twin.load_state_dict(network.state_dict())`` fits.

    Raises:
        UserError: what cannot be made spiking, with the path of the module and the reason.
    """
    neuron = checked_neuron(neuron) if neuron is not None else LIF()
    network = checked_network(network)
    ann = retrace(network, example_input)
    lost: dict[str, list[str]] = {}
    for site in ann.replacements:
        if site.loss is not None:
            lost.setdefault(f"{site.activation}: {site.loss}", []).append(site.path)
    for loss, paths in lost.items():
        warnings.warn(f"neurons take the place of {loss} ({shortened(paths)})", UserWarning, stacklevel=2)
    if ann._analogue:
        told = f"{shortened(list(ann._analogue))}: no neuron takes their place"
        warnings.warn(f"these steps stay analogue, {told}; use nn.ReLU for what shall spike", UserWarning, stacklevel=2)
    snn = ann._with_neurons(timesteps, neuron)
    if calibration is not None:
        calibrate(snn, calibration)
    return snn


def name_of(network: nn.Module) -> str:
    """What to call a network: by its class, a spikified or adopted one by that of the network it was made from."""
    if isinstance(network, Adopted):
        return network.name
    if not isinstance(network, Twin):
        return type(network).__name__
    return f"{network._origin} (spikified)" if network.timesteps is not None else network._origin


def retrace(network: nn.Module, example_input: Tensor) -> Twin:
    """The network again, as an ANN with every activation a module of its own, and with ``stages`` and ``blocks``.

    Arguments and errors as in ``spikify``.
    """
    if isinstance(network, Twin) and network.timesteps is None:
        return copy.deepcopy(network)
    check_traceable(network, example_input)
    rows = example_rows(example_input)
    with torch.random.fork_rng(devices=[rows.device] if rows.is_cuda else []):
        # What a network keeps in an attribute from its first call on (a table of positions) is there from here on.
        network = copied(network)
        modes = modes_of(network)
        check_steady(network.eval(), example_input)
        set_modes(modes)
        witness, work = copied(network).eval(), copied(network).requires_grad_(False)
        graphs, held = {}, {}
        for training in (False, True):
            held[training] = held_modes(work, training)
            graphs[training] = trace(work, rows, is_activation)
        parts = assemble(network, graphs, work)
        ann = Twin(parts, held, rows.dim())
        compare(witness, ann, rows)
    return ann
