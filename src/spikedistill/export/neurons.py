"""Neurons as NIR knows them: LIF and IF with a hard reset, firing on >, in continuous time.

Integrated with forward Euler at step dt, NIR's ``tau dv/dt = (v_leak - v) + r I`` is the recurrence of ``spiking`` when
``tau = dt / (1 - decay)`` and ``r = tau / dt``; decay 1 is NIR's IF with ``r = 1 / dt``. What NIR does not know:

* firing on >=: v_threshold is the float32 number below the threshold, so that > gives the same spikes;
* a potential V before the first step (calibration's ``start``): with a hard reset the origin is moved there, that is
  v_leak = v_reset = -V and v_threshold = threshold - V; with a soft one it is noted (``v_initial``);
* a soft reset: noted in the node's metadata (``reset: subtract``, and what is subtracted), which readers must heed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from spikedistill.models.activation import Spike
from spikedistill.models.folded import TwinSpike

DT = 1e-4
"""Seconds a timestep, unless told otherwise: what snnTorch and SpikingJelly take for granted when they read a file."""


@dataclass(frozen=True)
class Neuron:
    """A layer of neurons for a file.

    Attributes:
        kind: of the NIR node.
        fields: its arrays, all of the layer's shape.
        amplitude: what a spike stands for; NIR's are 1, so the weights behind it must contain this factor.
        metadata: of the node.
    """

    kind: str
    fields: dict[str, np.ndarray]
    amplitude: np.ndarray
    metadata: dict[str, Any] = field(default_factory=dict)


def neuron_of(spike: Spike, shape: tuple[int, ...], dt: float) -> Neuron:
    """A spiking activation's neurons.

    Args:
        spike: the activation.
        shape: of one image's neurons.
        dt: seconds a timestep.
    """
    neuron = spike.neuron
    decay = float(torch.as_tensor(neuron.decay).detach())
    balance = spike.balance if isinstance(spike, TwinSpike) else None
    start = spike.start if isinstance(spike, TwinSpike) and balance is not None else None
    threshold = np.asarray(neuron.threshold if balance is None else balance.cpu(), dtype=np.float64)
    before = np.asarray(0.0 if start is None else start.cpu(), dtype=np.float64) * threshold / decay
    soft, strict = neuron.dynamics.soft_reset, neuron.dynamics.strict
    origin = np.zeros(()) if soft else before
    limit = np.broadcast_to(threshold - origin, shape).astype(np.float32)
    if not strict:
        limit = np.nextafter(limit, np.float32(-np.inf))
    metadata: dict[str, Any] = {"fires_on": ">" if strict else ">="}
    if soft:
        # In single precision, for that is what the network subtracts.
        metadata |= {"reset": "subtract", "subtract": np.float32(threshold), "v_initial": np.float32(before)}
    fields = {"v_threshold": limit, "v_reset": _filled(-origin, shape)}
    if decay == 1.0:
        kind, fields["r"] = "IF", _filled(1.0 / dt, shape)
    else:
        kind, tau = "LIF", dt / (1.0 - decay)
        fields |= {"tau": _filled(tau, shape), "r": _filled(tau / dt, shape), "v_leak": _filled(-origin, shape)}
    return Neuron(kind, fields, np.asarray(1.0) if balance is None else threshold, metadata)


def any_spike(shape: tuple[int, ...], window: int, dt: float) -> Neuron:
    """Neurons that answer the mean of ``window`` spikes: 1 if there is any. What stays in them is always zero."""
    fields = {
        "v_threshold": _filled(0.5 / window, shape),
        "v_reset": _filled(0.0, shape),
        "r": _filled(1.0 / dt, shape),
    }
    return Neuron("IF", fields, np.asarray(1.0), {"role": "max pooling of spikes"})


def _filled(value: Any, shape: tuple[int, ...]) -> np.ndarray:
    # -0.0 would be read as a leak towards something.
    return np.broadcast_to(np.asarray(value, dtype=np.float64) + 0.0, shape).astype(np.float32)
