"""A spiking layer over T steps, by the fastest twin that runs here.

``plain_step`` and ``plain_run`` (``recurrence``) are the definition. The fused twin (``fused``) is one operation
forward and one backward; its spikes are the plain ones bit for bit on a CPU, its gradients are the plain ones to 1e-6.
Which of the two runs is decided in ``compiling``.
"""

from __future__ import annotations

from torch import Tensor

from spikedistill.spiking import compiling, fused
from spikedistill.spiking.recurrence import Dynamics, plain_run, plain_step

__all__ = ["Dynamics", "plain_run", "plain_step", "run"]


def run(x: Tensor, decay: float | Tensor, dynamics: Dynamics) -> Tensor:
    """Currents to spikes of the same shape, dtype and memory layout; the membrane potential is float32 (or float64).

    Args:
        x: currents ``[T, B, ...]``. A view that repeats one step T times (``direct_encode``) is not written out.
        decay: a number, or a tensor that broadcasts with ``[B, ...]`` (per layer, per channel), which gets a gradient.
        dynamics: threshold, reset, comparison, surrogate.
    """
    if compiling.pays(x):
        return fused.run(x, decay, dynamics)
    return plain_run(x, decay, dynamics)
