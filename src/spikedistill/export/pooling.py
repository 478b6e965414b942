"""Poolings in NIR's nodes.

NIR has average and sum pooling. A max pooling of spikes is an average pooling and a neuron that fires if there is any
spike (every reader knows average pooling, not every one sum pooling).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from spikedistill.export.lowering import Lowering
from spikedistill.export.neurons import any_spike
from spikedistill.export.record import Step, pair
from spikedistill.export.selection import padded
from spikedistill.export.shaping import flattened
from spikedistill.export.sheet import Inexpressible, Value


def average(low: Lowering, step: Step) -> Value:
    """``avg_pool2d``, whatever it counts at the edges."""
    x, kernel, stride, padding, ceil, counted, divisor = step.arguments(..., ..., [], 0, False, True, None)
    value, kernel, padding = _picture(low, x), pair(kernel), pair(padding)
    stride = pair(stride) if stride else kernel
    ones = torch.ones(1, 1, *value.shape[-2:], dtype=torch.float64)
    geometry = (kernel, stride, padding, ceil, counted)
    shares = F.avg_pool2d(ones, *geometry, divisor) / F.avg_pool2d(ones, *geometry, 1)
    value, out = _padded_for(low, value, kernel, stride, padding, step.shape)
    if padding == (0, 0) and bool((shares == 1.0 / (kernel[0] * kernel[1])).all()):
        return _pool(low, step.label, "AvgPool2d", value, kernel, stride, padding, out)
    sums = _pool(low, f"{step.label}.sum", "SumPool2d", value, kernel, stride, padding, out)
    same = bool((shares == shares.flatten()[0]).all())
    share = shares.flatten()[0] if same else shares[0]
    return low.sheet.placewise(sums, share.numpy(), step.label)


def adaptive(low: Lowering, step: Step) -> Value:
    """Adaptive poolings whose windows are all of one size."""
    value, out = _picture(low, step.args[0]), step.shape
    kernel = _evenly(value.shape, out)
    if step.name.startswith("adaptive_max"):
        return _any(low, step, value, kernel, kernel, (0, 0))
    return _pool(low, step.label, "AvgPool2d", value, kernel, kernel, (0, 0), out)


def _picture(low: Lowering, argument: Any) -> Value:
    value = low.value(argument)
    if len(value.shape) != 3:
        raise Inexpressible(f"NIR pools pictures [C, H, W], not {list(value.shape)}")
    return value


def _evenly(shape: tuple[int, ...], out: tuple[int, ...]) -> tuple[int, int]:
    if any(size % target for size, target in zip(shape[-2:], out[-2:], strict=True)):
        raise Inexpressible(f"its windows differ in size ({shape[-2:]} places to {out[-2:]}); choose a divisor")
    return shape[-2] // out[-2], shape[-1] // out[-1]


def mean(low: Lowering, step: Step) -> Value:
    """Global pooling, and sums."""
    x, dims, keep = step.arguments(..., ..., False)
    value = low.value(x)
    if len(value.shape) != 3 or sorted(d % 4 for d in dims or ()) != [2, 3]:
        raise Inexpressible("NIR pools over both dimensions of a picture, and over nothing else")
    kind, size = "AvgPool2d" if step.name.startswith("mean") else "SumPool2d", (value.shape[1], value.shape[2])
    pooled = _pool(low, step.label, kind, value, size, size, (0, 0), (value.shape[0], 1, 1))
    return pooled if keep else flattened(low, pooled, f"{step.label}.flatten")


def maximum(low: Lowering, step: Step) -> Value:
    """``max_pool2d``, of spikes."""
    x, kernel, stride, padding, dilation, _ = step.arguments(..., ..., [], 0, 1, False)
    if pair(dilation) != (1, 1):
        raise Inexpressible("NIR's poolings have no dilation")
    kernel = pair(kernel)
    return _any(low, step, _picture(low, x), kernel, pair(stride) if stride else kernel, pair(padding))


def _any(low: Lowering, step: Step, value: Value, kernel: Any, stride: Any, padding: Any) -> Value:
    """A max pooling, of spikes: whether any spike is in the window."""
    if not value.binary:
        raise Inexpressible("it is a max pooling of values that are not spikes; average them, or pool after the neuron")
    height = value.terms[0][1]
    ones = replace(value, terms=tuple((name, 1.0) for name, _ in value.terms))
    ones, out = _padded_for(low, ones, kernel, stride, padding, step.shape)
    means = _pool(low, f"{step.label}.mean", "AvgPool2d", ones, kernel, stride, padding, out)
    neuron = any_spike(out, kernel[0] * kernel[1], low.dt)
    name = low.sheet.add(step.label, neuron.kind, neuron.fields, low.sheet.plain_sources(means), neuron.metadata)
    return Value(out, ((name, height),), binary=True)


def _padded_for(
    low: Lowering, value: Value, kernel: Any, stride: Any, padding: Any, out: tuple[int, ...]
) -> tuple[Value, tuple[int, ...]]:
    """Zeros at the end for windows that reach out of the map (``ceil_mode``), which NIR's poolings leave out."""
    for dim in (1, 2):
        reach = (out[dim] - 1) * stride[dim - 1] + kernel[dim - 1] - 2 * padding[dim - 1]
        missing = reach - value.shape[dim]
        if missing > 0:
            value = low.sheet.select(value, dim, padded(value.shape[dim], 0, missing))
    return value, out


def _pool(
    low: Lowering, name: str, kind: str, value: Value, kernel: Any, stride: Any, padding: Any, out: tuple[int, ...]
) -> Value:
    fields = {"kernel_size": np.array(kernel), "stride": np.array(stride), "padding": np.array(padding)}
    return low.sheet.apply(name, kind, fields, value, out)
