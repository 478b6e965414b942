"""Layers with weights, and arithmetic, in NIR's nodes.

NIR has no addition and no BatchNorm: an addition is edges that meet in a node; a BatchNorm is part of the layer before
it, or a convolution of 1x1 where there is none.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from spikedistill.export.lowering import Lowering
from spikedistill.export.record import Ref, Step, pair
from spikedistill.export.selection import convolution, padded, squared, ungrouped
from spikedistill.export.sheet import WEIGHTED, Inexpressible, Value


def convolved(low: Lowering, step: Step) -> Value:
    """Convolutions of one and two dimensions."""
    x, w, b, stride, padding, dilation, transposed, _, groups = step.args
    weight, value = low.constant(w), low.value(x)
    if transposed:
        raise Inexpressible("there is no NIR node for a transposed convolution")
    if weight.ndim not in (3, 4):
        raise Inexpressible("NIR's convolutions have one or two dimensions")
    bias, weight = np.zeros(weight.shape[0]) if b is None else low.constant(b), ungrouped(weight, groups)
    if weight.ndim == 3:
        sources, scale = low.sheet.sources(value)
        kind, geometry = "Conv1d", {"stride": stride[0], "padding": padding[0], "dilation": dilation[0]}
        fields = {"weight": weight * scale, "bias": bias, "groups": 1, "input_shape": value.shape[1], **geometry}
    else:
        kind, (stride, padding, dilation) = "Conv2d", (pair(each) for each in (stride, padding, dilation))
        weight, padding, behind = squared(weight, padding, dilation)
        for dim, zeros in enumerate(behind, 1):
            value = low.sheet.select(value, dim, padded(value.shape[dim], 0, zeros))
        sources, scale = low.sheet.sources(value)
        fields = convolution(weight * scale, bias, value.shape[1:], stride=stride, padding=padding, dilation=dilation)
    return Value(step.shape, ((low.sheet.add(step.label, kind, fields, sources), 1.0),))


def _linear(low: Lowering, step: Step, x: Any, weight: np.ndarray, b: Any) -> Value:
    value = low.value(x)
    if len(value.shape) != 1:
        raise Inexpressible(f"NIR's dense layers take one row of numbers, not {list(value.shape)}")
    sources, scale = low.sheet.sources(value)
    fields = {"weight": weight * scale} | ({} if b is None else {"bias": low.constant(b)})
    kind = "Linear" if b is None else "Affine"
    return Value(step.shape, ((low.sheet.add(step.label, kind, fields, sources), 1.0),))


def addmm(low: Lowering, step: Step) -> Value:
    """A linear layer with a bias."""
    b, x, w = step.args
    if step.kwargs:
        raise Inexpressible("it scales what it multiplies")
    return _linear(low, step, x, low.constant(w).T, b)


def mm(low: Lowering, step: Step) -> Value:
    """A linear layer without one."""
    return _linear(low, step, step.args[0], low.constant(step.args[1]).T, None)


def batch_norm(low: Lowering, step: Step) -> Value:
    """A BatchNorm by its running statistics."""
    x, w, b, mean, var = step.args[:5]
    if mean is None:
        raise Inexpressible("it normalises by the batch; give it running statistics")
    deviation = np.sqrt(low.constant(var) + step.args[-1])
    weight = (np.ones(1) if w is None else low.constant(w)) / deviation
    bias = (np.zeros(1) if b is None else low.constant(b)) - low.constant(mean) * weight
    return _channelwise(low, step, low.value(x), weight, bias)


def _channelwise(low: Lowering, step: Step, value: Value, weight: np.ndarray, bias: np.ndarray) -> Value:
    """A factor and a constant a channel: in the layer before where nothing else reads that one."""
    weight, bias = (np.broadcast_to(each, value.shape[:1]) for each in (weight, bias))
    if len(value.terms) == 1 and value.terms[0][1] == 1.0 and value.selection is None:
        source = value.terms[0][0]
        if low.sheet.nodes[source].kind in WEIGHTED and low.is_read_once(source):
            return low.sheet.fold(value, weight, bias)
    return low.sheet.channelwise(value, weight, bias, step.label)


def add(low: Lowering, step: Step) -> Value:
    """Sums and differences, of signals and with constants."""
    a, b = step.args
    alpha = float(step.kwargs.get("alpha", 1.0)) * (-1.0 if step.name.startswith("sub") else 1.0)
    if isinstance(a, Ref) and isinstance(b, Ref):
        values = low.value(a), low.value(b).times(alpha)
        if values[0].shape != values[1].shape:
            raise Inexpressible(f"it adds {list(values[1].shape)} to {list(values[0].shape)} by broadcasting")
        return low.sheet.sum(values)
    value, constant = (low.value(a), alpha * low.constant(b)) if isinstance(a, Ref) else (low.value(b), low.constant(a))
    if not isinstance(a, Ref):
        value = value.times(alpha)
    return _channelwise(low, step, value, np.ones(1), _per_channel(constant, value.shape))


def multiply(low: Lowering, step: Step) -> Value:
    """Products and quotients with constants."""
    a, b = step.args
    if not isinstance(a, Ref) and step.name.startswith("div"):
        raise Inexpressible("it divides by a signal")
    x, factor = (low.value(a), low.constant(b)) if isinstance(a, Ref) else (low.value(b), low.constant(a))
    if factor.ndim > len(x.shape) and factor.shape[0] == 1:
        factor = factor[0]
    if step.shape != x.shape or factor.ndim > len(x.shape):
        raise Inexpressible("its constant is larger than what it multiplies")
    return low.sheet.placewise(x, 1.0 / factor if step.name.startswith("div") else factor, step.label)


def negative(low: Lowering, step: Step) -> Value:
    """A change of sign."""
    return low.value(step.args[0]).times(-1.0)


def _per_channel(constant: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A constant that broadcasts with ``[B, *shape]``, as one number a channel."""
    wide = constant.reshape([1] * (len(shape) + 1 - constant.ndim) + list(constant.shape))
    if wide.shape[0] != 1 or any(size != 1 for size in wide.shape[2:]):
        raise Inexpressible("it adds another constant at each place, and NIR's biases are one for each channel")
    return wide.reshape(-1)
