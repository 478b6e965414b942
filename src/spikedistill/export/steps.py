"""NIR's nodes as torch modules that make one timestep; ``STEPS`` has them by the node's class name.

Neurons take their potential and return it; the others have none. A batch stands in front of the node's own shape.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Map(nn.Module):
    """A node without a state.

    Args:
        function: of the input and the weights.
        weights: by order, None where there is none.
    """

    def __init__(self, function: Callable[..., Tensor], *weights: np.ndarray | None) -> None:
        super().__init__()
        self.function = function
        for i, weight in enumerate(weights):
            self.register_buffer(f"weight{i}", None if weight is None else _tensor(weight))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self._buffers.values())


class Neurons(nn.Module):
    """LIF, IF and their kin, by forward Euler: ``v += dt / tau * (v_leak - v) + gain * x``.

    Args:
        node: the NIR node.
        dt: seconds a timestep.
        fires: whether it has a threshold; else the potential is what it gives.
    """

    decay: Tensor
    gain: Tensor | None
    leak: Tensor | None
    initial: Tensor
    threshold: Tensor
    back: Tensor

    def __init__(self, node: Any, dt: float, fires: bool) -> None:
        super().__init__()
        self.leaky = hasattr(node, "tau")
        share = dt / np.asarray(node.tau, dtype=np.float64) if self.leaky else np.asarray(dt)
        gain = share * np.asarray(node.r, dtype=np.float64)
        rest = share * np.asarray(node.v_leak, dtype=np.float64) if self.leaky else np.zeros(1)
        self.register_buffer("decay", _tensor(1.0 - share if self.leaky else np.ones(1)))
        self.register_buffer("gain", _tensor(gain) if not np.allclose(gain, 1.0, rtol=1e-6, atol=0.0) else None)
        self.register_buffer("leak", _tensor(rest) if np.any(rest) else None)
        self.fires = fires
        notes = node.metadata
        self.subtracts = str(notes.get("reset", "")) == "subtract"
        self.register_buffer("initial", _tensor(np.asarray(notes.get("v_initial", 0.0))))
        if fires:
            self.register_buffer("threshold", _tensor(node.v_threshold))
            self.register_buffer("back", _tensor(notes["subtract"] if self.subtracts else node.v_reset))

    def forward(self, x: Tensor, v: Tensor | None) -> tuple[Tensor, Tensor]:
        if v is None:
            v = self.initial.expand_as(x)
        h = self.decay * v + (x if self.gain is None else self.gain * x)
        if self.leak is not None:
            h = h + self.leak
        if not self.fires:
            return h, h
        spikes = h > self.threshold
        fired = spikes.to(h.dtype)
        return fired, h - self.back * fired if self.subtracts else torch.where(spikes, self.back, h)


def _tensor(value: Any) -> Tensor:
    return torch.from_numpy(np.array(value, dtype=np.float32))


def _whole(value: Any) -> Any:
    """A number or a pair as torch takes it."""
    if isinstance(value, str):
        return value
    numbers = tuple(int(each) for each in np.asarray(value).reshape(-1))
    return numbers[0] if len(numbers) == 1 else numbers


def _convolution(function: Callable[..., Tensor], node: Any) -> Map:
    stride, padding, dilation = (_whole(each) for each in (node.stride, node.padding, node.dilation))
    groups = int(node.groups)
    return Map(lambda x, w, b: function(x, w, b, stride, padding, dilation, groups), node.weight, node.bias)


def _pooling(node: Any, divides: bool) -> Map:
    kernel, stride, padding = (_whole(each) for each in (node.kernel_size, node.stride, node.padding))
    return Map(lambda x: F.avg_pool2d(x, kernel, stride, padding, divisor_override=None if divides else 1))


def _flatten(node: Any) -> Map:
    # NIR's shapes have no batch.
    start, end = (d + 1 if d >= 0 else d for d in (int(node.start_dim), int(node.end_dim)))
    return Map(lambda x: x.flatten(start, end))


STEPS: dict[str, Callable[[Any, float], nn.Module]] = {
    "Affine": lambda node, dt: Map(F.linear, node.weight, node.bias),
    "Linear": lambda node, dt: Map(F.linear, node.weight),
    "Scale": lambda node, dt: Map(torch.mul, node.scale),
    "Threshold": lambda node, dt: Map(lambda x, threshold: (x > threshold).to(x.dtype), node.threshold),
    "Conv1d": lambda node, dt: _convolution(F.conv1d, node),
    "Conv2d": lambda node, dt: _convolution(F.conv2d, node),
    "AvgPool2d": lambda node, dt: _pooling(node, True),
    "SumPool2d": lambda node, dt: _pooling(node, False),
    "Flatten": lambda node, dt: _flatten(node),
    "LIF": lambda node, dt: Neurons(node, dt, True),
    "IF": lambda node, dt: Neurons(node, dt, True),
    "LI": lambda node, dt: Neurons(node, dt, False),
    "I": lambda node, dt: Neurons(node, dt, False),
    "Input": lambda node, dt: Map(lambda x: x),
    "Output": lambda node, dt: Map(lambda x: x),
}
