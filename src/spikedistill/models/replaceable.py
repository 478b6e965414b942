"""Which steps of a network are activations, and what is lost where a neuron takes an activation's place.

A neuron is a ReLU with steps: it is silent for what is negative and its rate grows with what is positive. What else an
activation does cannot be said by spikes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

NEGATIVE = "its negative values are lost: a spike is 0 or 1"
SMOOTH = "its small negative values and its smooth bend at zero are lost: a spike is 0 or 1"
CLIPPED = "its upper limit is lost: a neuron has its own, one spike a step"


def swish(x: Tensor, beta: float = 1.0) -> Tensor:
    """``x * sigmoid(beta * x)``; silu, and with 1.702 nearly GELU."""
    return x * torch.sigmoid(x if beta == 1.0 else beta * x)


@dataclass(frozen=True)
class Kind:
    """An activation.

    Attributes:
        function: it as a function of a tensor and, by name, its settings.
        settings: of a module, the attributes that are those settings.
        loss: what is lost where a neuron takes its place; None for nothing.
        order: of the function, the names of its positional settings.
    """

    function: Callable[..., Tensor]
    settings: tuple[str, ...] = ()
    loss: str | None = None
    order: tuple[str, ...] = ()


RELU = Kind(F.relu)
_HARDTANH = Kind(F.hardtanh, ("min_val", "max_val"), "its limits are lost: a neuron's are 0 and one spike a step")
_LEAKY = Kind(F.leaky_relu, ("negative_slope",), NEGATIVE)
_PRELU = Kind(F.prelu, (), f"{NEGATIVE}, and the learned slope is unused", ("weight",))

MODULES: dict[type[nn.Module], Kind] = {
    nn.ReLU: RELU,
    nn.ReLU6: Kind(F.relu6, (), CLIPPED),
    nn.LeakyReLU: _LEAKY,
    nn.PReLU: _PRELU,
    nn.GELU: Kind(F.gelu, ("approximate",), SMOOTH),
    nn.SiLU: Kind(F.silu, (), SMOOTH),
    nn.Mish: Kind(F.mish, (), SMOOTH),
    nn.Hardswish: Kind(F.hardswish, (), SMOOTH),
    nn.ELU: Kind(F.elu, ("alpha",), NEGATIVE),
    nn.CELU: Kind(F.celu, ("alpha",), NEGATIVE),
    nn.SELU: Kind(F.selu, (), NEGATIVE),
    nn.Softplus: Kind(F.softplus, ("beta", "threshold"), SMOOTH),
    nn.Hardtanh: _HARDTANH,
    nn.RReLU: Kind(F.rrelu, ("lower", "upper"), NEGATIVE),
}

_CLAMP = Kind(torch.clamp, (), None, ("min", "max"))
_THRESHOLD = Kind(F.threshold, (), None, ("threshold", "value"))
_CLAMP_MIN = Kind(torch.clamp_min, (), None, ("min",))

FUNCTIONS: dict[Any, Kind] = {kind.function: kind for kind in MODULES.values()} | {
    torch.relu: RELU,
    torch.relu_: RELU,
    F.relu_: RELU,
    F.leaky_relu: Kind(F.leaky_relu, (), NEGATIVE, ("negative_slope",)),
    F.leaky_relu_: Kind(F.leaky_relu, (), NEGATIVE, ("negative_slope",)),
    F.elu: Kind(F.elu, (), NEGATIVE, ("alpha",)),
    F.elu_: Kind(F.elu, (), NEGATIVE, ("alpha",)),
    F.celu: Kind(F.celu, (), NEGATIVE, ("alpha",)),
    F.celu_: Kind(F.celu, (), NEGATIVE, ("alpha",)),
    F.selu_: Kind(F.selu, (), NEGATIVE),
    torch.selu: Kind(F.selu, (), NEGATIVE),
    torch.selu_: Kind(F.selu, (), NEGATIVE),
    torch.celu: Kind(F.celu, (), NEGATIVE, ("alpha",)),
    F.prelu: _PRELU,
    F.softplus: Kind(F.softplus, (), SMOOTH, ("beta", "threshold")),
    F.hardtanh: Kind(F.hardtanh, (), _HARDTANH.loss, ("min_val", "max_val")),
    F.rrelu: Kind(F.rrelu, (), NEGATIVE, ("lower", "upper")),
    F.rrelu_: Kind(F.rrelu, (), NEGATIVE, ("lower", "upper")),
    F.hardtanh_: Kind(F.hardtanh, (), _HARDTANH.loss, ("min_val", "max_val")),
    swish: Kind(swish, (), SMOOTH, ("beta",)),
    F.threshold: _THRESHOLD,
    torch.threshold: _THRESHOLD,
    torch.threshold_: _THRESHOLD,
    torch.clamp: _CLAMP,
    torch.clip: _CLAMP,
    torch.clamp_min: _CLAMP_MIN,
}
METHODS: dict[str, Kind] = {
    "relu": RELU,
    "relu_": RELU,
    "clamp": _CLAMP,
    "clamp_": _CLAMP,
    "clip": _CLAMP,
    "clip_": _CLAMP,
    "clamp_min": _CLAMP_MIN,
    "clamp_min_": _CLAMP_MIN,
    "prelu": _PRELU,
}

_CLAMPINGS = frozenset(
    getattr(place, name)
    for place in (torch, torch.Tensor)
    for name in ("clamp", "clamp_", "clip", "clip_", "clamp_min", "clamp_min_")
)
_THRESHOLDS = (F.threshold, torch.threshold, torch.threshold_)

KEPT = ("sigmoid", "tanh", "softmax", "hardsigmoid", "logsigmoid")
"""Nonlinear steps that stay what they are: gates and attention weights."""

UNUSUAL = ("threshold", "_threshold", "softshrink", "hardshrink", "tanhshrink", "softsign", "glu", "maximum", "minimum")
"""Nonlinear steps that stay what they are too, though somebody may have meant them for activations."""


@dataclass(frozen=True)
class Found:
    """An activation found in a graph.

    Attributes:
        name: how it is written, such as ``nn.ReLU`` or ``F.gelu``.
        function: it as a function of one tensor (of nn.PReLU: of a tensor and the weight); None where its settings are
            computed by other steps.
        loss: what is lost where a neuron takes its place; None for nothing.
        slope: of ``F.prelu``, the network's own tensor that is its second argument.
    """

    name: str
    function: Callable[..., Tensor] | None
    loss: str | None
    slope: str | None = None


def is_activation(function: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> bool:
    """Whether a call of a function, or of a tensor's method, is an activation; clamping is one if it is a ReLU."""
    if function in (torch.Tensor.relu, torch.Tensor.relu_):
        return True
    if function in _CLAMPINGS:
        limits: dict[str, Any] = dict(zip(("min", "max"), args[1:], strict=False)) | (kwargs or {})
        return _is_zero(limits.get("min")) and limits.get("max") is None
    if function in _THRESHOLDS:
        settings = dict(zip(_THRESHOLD.order, args[1:], strict=False)) | (kwargs or {})
        return all(_is_zero(settings.get(name)) for name in _THRESHOLD.order)
    try:
        return FUNCTIONS.get(function, _CLAMP) not in (_CLAMP, _CLAMP_MIN, _THRESHOLD)
    except TypeError:  # not hashable
        return False


def _is_zero(value: Any) -> bool:
    return isinstance(value, int | float) and value == 0


def find(node: fx.Node, module: nn.Module | None) -> Found | None:
    """The activation that a node is, if it is one.

    Args:
        node: of a traced graph.
        module: the module that it calls, if it does.
    """
    if module is not None:
        if isinstance(module, nn.Threshold) and module.threshold == module.value == 0:
            return Found("nn.Threshold", partial(F.relu), None)
        kind = MODULES.get(type(module))
        if kind is None:
            return None
        settings = {name: getattr(module, name) for name in kind.settings}
        return Found(f"nn.{type(module).__name__}", partial(kind.function, **settings), kind.loss)
    if node.op == "call_method":
        kind, name = METHODS.get(str(node.target)), f"x.{node.target}()"
    elif node.op == "call_function":
        kind, name = FUNCTIONS.get(node.target), node.meta.get("written") or written(node.target)
    else:
        return None
    return None if kind is None else _called(node, kind, name)


def written(function: Any) -> str:
    """How a function is written."""
    name = getattr(function, "__name__", str(function)).removeprefix("_")  # F._threshold
    return f"torch.{name}" if getattr(torch, name, None) is function else f"F.{name}"


def _called(node: fx.Node, kind: Kind, name: str) -> Found | None:
    """An activation called as a function or method, with its settings; some are one with zeros alone."""
    settings: dict[str, Any] = dict(zip(kind.order, node.args[1:], strict=False))
    settings |= {key: value for key, value in node.kwargs.items() if key not in ("inplace", "input")}
    if kind is _CLAMP or kind is _CLAMP_MIN:
        low, high = settings.get("min"), settings.get("max")
        if isinstance(low, fx.Node) or isinstance(high, fx.Node) or low is None or low != 0:
            return None
        return Found(name, partial(torch.clamp, min=low, max=high), None if high is None else CLIPPED)
    if kind is _THRESHOLD:
        return Found(name, F.relu, None) if settings.get("threshold") == settings.get("value") == 0 else None
    if kind.function is F.prelu:
        slope = settings.get("weight")
        if not isinstance(slope, fx.Node) or slope.op != "get_attr":
            return Found(name, None, kind.loss)
        return Found(name, F.prelu, kind.loss, str(slope.target))
    if any(isinstance(value, fx.Node) for value in settings.values()):
        return Found(name, None, kind.loss)
    return Found(name, partial(kind.function, **settings) if settings else kind.function, kind.loss)
