"""Making a spiking network fast: its layers exchanged, in place, for twins that run together.

``optimise`` changes the class of BatchNorm, spiking, pooling and convolution modules and nothing else: parameters,
buffers, hooks, state-dict keys and the network's own code stay. What the network computes stays too (BatchNorm and
neuron to float32 rounding, the neuron exactly); ``restore`` undoes it.

    fast    kept for the backward pass: the convolutions' outputs and the spikes
    lean    the spikes at one bit each: half of fast's memory (a quarter of what separate layers keep), for a few per
            cent of time
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spikedistill.errors import unknown
from spikedistill.models.activation import Spike
from spikedistill.models.folded import TwinSpike
from spikedistill.models.modes import in_eval_mode
from spikedistill.spiking import LIF, compiling
from spikedistill.spiking.bits import Bits, unpack
from spikedistill.spiking.deferred import Currents, Deferred, Spikes, settle
from spikedistill.spiking.fused_layer import Norm, Term

# Of a layer's value. A training step needs about ten kernels of layers, which take half a minute to compile once.
SMALL = 2**18


def _pays(x: Tensor) -> bool:
    """Whether layers should wait for each other here, if the layout is theirs."""
    return not torch.compiler.is_compiling() and x.dim() == 4 and compiling.pays(x, SMALL)


def _defers(x: Tensor) -> bool:
    """Whether layers should wait for each other here."""
    return _pays(x) and x.is_contiguous(memory_format=torch.channels_last)


class FusedBatchNorm(nn.BatchNorm2d):
    """A BatchNorm that leaves the normalising to the neuron behind it, if there is one."""

    def forward(self, input: Tensor) -> Tensor:
        x = settle(input)
        if self.running_mean is None or self.running_var is None or not self.affine or not _pays(x):
            return super().forward(x)
        # Only behind the first convolution, and where its weight is not its own parameter: outputs follow inputs.
        x = x.contiguous(memory_format=torch.channels_last)
        mean, variance = self._statistics(x) if self.training else (self.running_mean, self.running_var)
        return Currents.of((Term(x, Norm(self.weight, self.bias, mean, variance, self.eps, self.training)),))

    @torch.no_grad()
    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance over rows and pixels; the running ones move on, as in the base class."""
        momentum = self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if momentum is None:
                momentum = 1.0 / float(self.num_batches_tracked)
        return torch.batch_norm_update_stats(x, self.running_mean, self.running_var, momentum or 0.0)


class _Firing(Spike):
    """A spiking activation that takes its BatchNorm and residual along, and lets a pooling follow."""

    keep_bits = False

    def forward(self, x: Tensor, constant: bool = False) -> Tensor:
        if (isinstance(x, Currents) or _defers(x)) and self._is_plain():
            neuron = self.neuron
            return Spikes.fired(
                x, neuron.decay, neuron.dynamics, self.clock.timesteps, constant=constant, keep_bits=self.keep_bits
            )
        return super().forward(x, constant)

    def _is_plain(self) -> bool:
        """Whether there is nothing but the neuron (a twin's may be calibrated, or not have its batch first)."""
        return getattr(self, "balance", None) is None and getattr(self, "dim", 0) == 0


class FusedSpike(_Firing):
    """``Spike``."""


class FusedTwinSpike(_Firing, TwinSpike):
    """``TwinSpike``."""


class LeanSpike(_Firing):
    """``Spike``, for spikes that are kept packed."""

    keep_bits = True


class LeanTwinSpike(_Firing, TwinSpike):
    """``TwinSpike``, for spikes that are kept packed."""

    keep_bits = True


class FusedPool(nn.MaxPool2d):
    """A max pooling of spikes that happens in the neuron's kernel where its windows are 2x2."""

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        if not isinstance(input, Spikes) or self.return_indices:
            return super().forward(settle(input))
        pooled = input.pooled() if self._is_halving() else None
        if pooled is None:
            value = super().forward(settle(input))
            assert isinstance(value, Tensor)
            pooled = Spikes.known(value, input.keep_bits)
        return pooled

    def _is_halving(self) -> bool:
        settings = (self.kernel_size, self.stride, self.padding, self.dilation)
        return all(value in (number, (number, number)) for value, number in zip(settings, (2, 2, 0, 1), strict=True))


class LeanConv(nn.Conv2d):
    """A convolution that keeps its input packed where that is spikes."""

    def forward(self, input: Tensor) -> Tensor:
        x = settle(input)
        numeric = self.padding_mode == "zeros" and not isinstance(self.padding, str)
        bits = None
        if isinstance(input, Spikes) and input.keep_bits and numeric and torch.is_grad_enabled():
            bits = input.bits()
        if bits is None:
            return super().forward(x)
        weight, bias, device = self.weight, self.bias, x.device.type
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
            x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        return _PackedConv.apply(x, bits, weight, bias, self.stride, self.padding, self.dilation, self.groups)


class _PackedConv(torch.autograd.Function):
    """A convolution of spikes that saves them packed."""

    @staticmethod
    def forward(ctx, x: Tensor, bits: Bits, weight: Tensor, bias: Tensor | None, *geometry):  # type: ignore[override]
        ctx.was, ctx.geometry = (bits.shape, bits.strides, x.dtype), geometry
        ctx.save_for_backward(bits.packed, weight)
        with torch.autocast(x.device.type, enabled=False):
            return torch.nn.functional.conv2d(x, weight, bias, *geometry)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        packed, weight = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.geometry
        needs_x, _, needs_weight, needs_bias = ctx.needs_input_grad[:4]
        x = unpack(Bits(packed, *ctx.was))
        grad_x, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
            grad,
            x,
            weight,
            [weight.shape[0]],
            stride,
            padding,
            dilation,
            False,
            [0, 0],
            groups,
            [needs_x, needs_weight, needs_bias],
        )
        return grad_x, None, grad_weight, grad_bias, None, None, None, None


_FAST: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm2d: FusedBatchNorm,
    Spike: FusedSpike,
    TwinSpike: FusedTwinSpike,
    nn.MaxPool2d: FusedPool,
}
TWINS = {"fast": _FAST, "lean": _FAST | {Spike: LeanSpike, TwinSpike: LeanTwinSpike, nn.Conv2d: LeanConv}}
_ORIGINALS = {twin: original for twins in TWINS.values() for original, twin in twins.items()}


def optimise(network: nn.Module, memory: str = "fast", *, norms: bool = True) -> nn.Module:
    """Exchanges the layers of a spiking network for twins that run together, in place, and returns the network.

    Convolutions' weights become channels-last, with which the layers between them are, and so are images on their way
    through. A network without spiking activations is left alone; one that is optimised already changes its setting.

    Args:
        network: built by ``create_model`` (or holding ``Spike`` modules of its own).
        memory: ``fast`` or ``lean``.
        norms: whether BatchNorms are among them; False where their statistics come from several processes.

    Raises:
        UserError: another setting.
    """
    if memory not in TWINS:
        raise unknown("memory", memory, list(TWINS))
    restore(network)
    if not any(isinstance(module, Spike) and not _is_own(module) for module in network.modules()):
        return network
    for module in network.modules():
        twin = TWINS[memory].get(type(module))
        if twin is FusedBatchNorm and not norms:
            continue
        if twin is not None and not _is_own(module):
            module.__class__ = twin
    return channels_last(network)


def channels_last(network: nn.Module) -> nn.Module:
    """Lays a network's convolution weights out channels-last, in place: its feature maps follow them."""
    for module in network.modules():
        if type(module) is nn.Conv2d or isinstance(module, LeanConv):
            _channels_last(module.weight)
    return network


@torch.no_grad()
def channels_last_if_taken(network: nn.Module, example: Tensor) -> None:
    """``channels_last``, taken back where the network then fails: its code may ask for a layout, as ``x.view`` does.

    Args:
        network: as somebody wrote it.
        example: images that it takes.
    """
    channels_last(network)
    try:
        with in_eval_mode(network):
            network(example)
    except RuntimeError:
        for module in network.modules():
            if type(module) is nn.Conv2d:
                module.weight.data = module.weight.data.clone(memory_format=torch.contiguous_format)


def channels_last_inputs(network: nn.Module) -> nn.Module:
    """Has convolutions lay their input out channels-last, for weights that cannot be; returns the network."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(_lay_out)
    return network


def _lay_out(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    x = inputs[0]
    if isinstance(x, Deferred) or x.dim() != 4:
        return None
    x = x.contiguous(memory_format=torch.channels_last)
    if x.shape[1] == 1 and not x.requires_grad:  # both layouts at once, and convolutions would take it for the other
        x = x.as_strided(x.shape, (x.shape[2] * x.shape[3], 1, x.shape[3], 1))
    return (x, *inputs[1:])


def _is_own(module: nn.Module) -> bool:
    """Whether this is a spiking activation around somebody's own neuron, which the kernels know nothing of."""
    return isinstance(module, Spike) and type(module.neuron).forward is not LIF.forward


def restore(network: nn.Module) -> nn.Module:
    """Undoes ``optimise``, but for the layout of the weights; returns the network."""
    for module in network.modules():
        original = _ORIGINALS.get(type(module))
        if original is not None:
            module.__class__ = original
    return network


@torch.no_grad()
def _channels_last(weight: Tensor) -> None:
    """Gives a weight channels-last strides, also where one input channel leaves them open: outputs follow them."""
    _, channels, height, width = weight.shape
    data = weight.data.contiguous(memory_format=torch.channels_last)
    weight.data = data.as_strided(data.shape, (channels * height * width, 1, channels * width, channels))
