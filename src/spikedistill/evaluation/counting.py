"""Counts what a network computes: operations, the values that enter them, activations and spikes.

Counting happens below Python, at torch's own operators, so it does not matter whether a convolution is a module or a
function call, and a network of anybody's is counted to the last product. Modules only give the names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from spikedistill.evaluation.inputs import Inputs, cheapest, kind_of
from spikedistill.models.activation import Spike
from spikedistill.models.adopt import RESETS, Adopted
from spikedistill.spiking import LIF

CONVOLUTION, LINEAR, PRODUCT = "convolution", "linear", "product"
NORMALISATION, POOLING, ACTIVATION, NEURONS, OTHER = "normalisation", "pooling", "activation", "neurons", "other"
NETWORK = "(network)"
"""The name of what a network does outside its modules."""
WEIGHTED = (CONVOLUTION, LINEAR, PRODUCT)
"""The kinds of rows that multiply and accumulate."""


@dataclass
class Count:
    """What one row of the count has seen, over all images.

    Attributes:
        kind: ``convolution``, ``linear``, ``product`` (of two activations, as in attention), ``normalisation``,
            ``pooling``, ``activation``, ``neurons`` or ``other``.
        macs: multiply-accumulates, as if no input were zero.
        elements: values that came out.
        inputs: what entered (of a product: how many of its multiplications had two factors that were not zero).
        spikes: how many left (neurons only).
    """

    kind: str
    macs: int = 0
    elements: int = 0
    inputs: Inputs = field(default_factory=Inputs)
    spikes: int = 0


Work = tuple[str, int, tuple[Tensor, Tensor]]
"""Kind, multiply-accumulates, and the factors."""


def _convolution(args: tuple[Any, ...], out: Tensor) -> Work:
    x, weight, transposed = args[0], args[1], args[6]
    return CONVOLUTION, (x if transposed else out).numel() * weight[0].numel(), (x, weight)


def _sum_of_products(args: tuple[Any, ...], out: Tensor) -> Work:
    x, weight = args[-2], args[-1]
    return LINEAR, out.numel() * x.shape[-1], (x, weight)


def _bilinear(args: tuple[Any, ...], out: Tensor) -> Work:
    x, weight, y = args[:3]
    binary = not x.is_meta and bool(((x == 0) | (x == 1)).all())
    return LINEAR, out.numel() * x.shape[-1] * y.shape[-1], (y if binary else x, weight)


_aten = torch.ops.aten
_WORK: dict[Any, Callable[[tuple[Any, ...], Tensor], Work]] = {
    _aten.convolution: _convolution,
    _aten.addmm: _sum_of_products,
    _aten.mm: _sum_of_products,
    _aten.addmv: _sum_of_products,
    _aten.mv: _sum_of_products,
    _aten.bmm: _sum_of_products,
    _aten.baddbmm: _sum_of_products,
    _aten._trilinear: _bilinear,
}
_NORMALISATIONS = (
    _aten.native_batch_norm,
    _aten._native_batch_norm_legit_no_training,
    _aten._batch_norm_no_update,
    _aten.cudnn_batch_norm,
    _aten.native_layer_norm,
    _aten.native_group_norm,
)
_POOLINGS = (_aten.avg_pool1d, _aten.avg_pool2d, _aten.avg_pool3d)
_ADAPTIVE = (_aten._adaptive_avg_pool2d, _aten._adaptive_avg_pool3d)
_IN_PLACE_TOO = (
    *("relu", "gelu", "silu", "hardtanh", "leaky_relu", "elu", "hardswish", "mish", "sigmoid", "tanh"),
    *("celu", "threshold", "rrelu_with_noise"),
)
_CLAMPS = (_aten.clamp, _aten.clamp_, _aten.clamp_min, _aten.clamp_min_)
LARGEST_WINDOW = 1024
"""Beyond, fractions lie so close that any value is one."""
_ACTIVATIONS = (
    *(getattr(_aten, name + suffix) for name in _IN_PLACE_TOO for suffix in ("", "_")),
    _aten.softplus,
    _aten._prelu_kernel,
)


class Counter(TorchDispatchMode):
    """Counts inside a ``with`` block while a network runs. Use it on a copy: the hooks that tell it names stay.

    Args:
        network: in eval mode.

    Attributes:
        neurons: path -> the network's neurons; where there are none, activation functions are counted instead.
        timesteps: how many steps the last pass took, as its neurons saw it; 1 for an ANN.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        spikes = {path: module for path, module in network.named_modules() if isinstance(module, Spike)}
        alone = {
            path: module
            for path, module in network.named_modules()
            if isinstance(module, LIF) and path.rpartition(".")[0] not in {**spikes, **_adopted(network)}
        }
        self.neurons: dict[str, nn.Module] = {**spikes, **alone, **_adopted(network)}
        self._weights = {x.untyped_storage().data_ptr() for x in [*network.parameters(), *network.buffers()]} - {0}
        self._rows: dict[str, Count] = {}
        self._stack: list[tuple[str, dict[str, int]]] = []
        self._fired = False
        self._windows: set[int] = set()
        self._heights = {1.0} | {float(balance) for balance in map(_balance, spikes.values()) if balance is not None}
        for path, module in network.named_modules():
            module.register_forward_pre_hook(self._enter(path))
            module.register_forward_hook(self._leave(path))

    def take(self) -> dict[str, Count]:
        """What was counted since the last time, row by row in order of execution."""
        rows, self._rows = self._rows, {}
        return rows

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        if packet in _WORK:
            self._work(*_WORK[packet](args, out), out)
        elif packet in _NORMALISATIONS:
            self._row(NORMALISATION).elements += out[0].numel()
        elif packet in _POOLINGS:
            size = args[1] if isinstance(args[1], Sequence) else (args[1],)
            self._pool(math.prod(size) ** (1 if len(size) > 1 else out.dim() - 2))
            self._row(POOLING).elements += out.numel()
        elif packet == _aten.mean and out.numel():
            self._pool(args[0].numel() // out.numel())
        elif packet in _ADAPTIVE:
            sides = zip(args[0].shape[-len(args[1]) :], args[1], strict=True)
            self._pool(math.prod(_common_window(*side) for side in sides))
        elif not self.neurons and (packet in _ACTIVATIONS or (packet in _CLAMPS and _is_relu(args, kwargs or {}))):
            self._row(ACTIVATION).elements += out.numel()
        return out

    def _work(self, kind: str, macs: int, factors: tuple[Tensor, Tensor], out: Tensor) -> None:
        x, weight = factors
        if self._is_weight(x):
            x, weight = weight, x
        both = out.dim() == 3 and kind == LINEAR and not self._is_weight(weight)
        row = self._row(PRODUCT if both else kind)
        row.macs += macs
        row.elements += out.numel()
        if out.is_meta:  # shapes without values: enough to count an ANN
            return
        if not both:
            row.inputs.see(x, not self._fired, self._windows, self._heights)
            return
        # Where one factor is a spike, the product is the other factor or nothing: the cheaper factor decides.
        kinds = [kind_of(factor, not self._fired, self._windows, self._heights) for factor in factors]
        nonzero = ((factors[0] != 0).float() @ (factors[1] != 0).float()).sum(dtype=torch.float64)
        row.inputs.add(cheapest(kinds), macs, round(float(nonzero)))

    def _pool(self, window: int) -> None:
        """Averages of ``window`` values, perhaps of what had been averaged before."""
        self._windows |= {window} | {window * other for other in self._windows if window * other <= LARGEST_WINDOW}

    def _is_weight(self, x: Tensor) -> bool:
        return x.untyped_storage().data_ptr() in self._weights

    def _row(self, kind: str) -> Count:
        """The row of what the module in progress does just now; it may do several things, one after the other."""
        path, done = self._stack[-1] if self._stack else ("", {})
        done[kind] = done.get(kind, 0) + 1
        name = path or NETWORK
        if done[kind] > 1 or self._rows.get(name, Count(kind)).kind != kind:
            name = f"{name}:{kind}{done[kind] if done[kind] > 1 else ''}"
        return self._rows.setdefault(name, Count(kind))

    def _enter(self, path: str) -> Callable[..., None]:
        def enter(_module: nn.Module, _inputs: Any) -> None:
            if not path:
                self._fired, self._stack = False, []
            self._stack.append((path, {}))

        return enter

    def _leave(self, path: str) -> Callable[..., None]:
        def leave(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self._stack.pop()
            if path in self.neurons:
                self._fired = True
                output = output[0] if isinstance(output, tuple) else output  # snnTorch: spikes and potentials
                row = self._rows.setdefault(path, Count(NEURONS))
                row.elements += output.numel()
                row.spikes += 0 if output.is_meta else int(output.count_nonzero())

        return leave


def _is_relu(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a clamping keeps what is positive, up to a limit or not."""
    x, *limits = args
    low = limits[0] if limits else kwargs.get("min")
    return isinstance(low, int | float) and low == 0 and x.is_floating_point()


def _common_window(inside: int, outside: int) -> int:
    """The number of values of which an adaptive pooling's averages are all fractions, along one dimension.

    Output ``i`` of ``outside`` averages the inputs from ``floor(i * inside / outside)`` up to
    ``ceil((i + 1) * inside / outside)``, so the windows may differ in size.
    """
    return math.lcm(*(-(-(i + 1) * inside // outside) - i * inside // outside for i in range(outside)))


def _adopted(network: nn.Module) -> dict[str, nn.Module]:
    """The neurons of another library's network: its modules with a state, but for dropout (which has a ``p``)."""
    if not isinstance(network, Adopted):
        return {}
    return {
        path: module
        for path, module in network.named_modules()
        if any(callable(getattr(module, name, None)) for name in RESETS) and not hasattr(module, "p")
    }


def _balance(spike: nn.Module) -> Tensor | None:
    return getattr(spike, "balance", None)
