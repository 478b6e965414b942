"""The recurrence of a spiking layer over T steps: its definition, as plain differentiable torch.

``plain_step`` and ``plain_run`` are what everything faster is compared with; ``crosses`` and ``reset`` are the parts
that the faster twins share with them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from spikedistill.spiking.surrogate import Surrogate


@dataclass(frozen=True)
class Dynamics:
    """What a neuron does beside leaking.

    Attributes:
        threshold: firing threshold.
        soft_reset: subtract the threshold instead of resetting to zero.
        strict: fire on ``>`` instead of ``>=``.
        detach_reset: the spike in the reset carries no gradient.
        surrogate: stands in for ds/du.
    """

    threshold: float
    soft_reset: bool
    strict: bool
    detach_reset: bool
    surrogate: Surrogate


def crosses(x: Tensor, strict: bool) -> Tensor:
    """Whether the threshold is crossed (0 or 1, in the dtype of x), given the distance ``x = h - threshold``."""
    return (x > 0 if strict else x >= 0).to(x.dtype)


def reset(h: Tensor, s: Tensor, dynamics: Dynamics) -> Tensor:
    """The membrane potential after the reset, from the one before it and the spike."""
    return h - dynamics.threshold * s if dynamics.soft_reset else h * (1.0 - s)


class _Fire(torch.autograd.Function):
    """Heaviside step forward, surrogate backward."""

    @staticmethod
    def forward(ctx, x: Tensor, strict: bool, surrogate: Surrogate) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x)
        ctx.surrogate = surrogate
        return crosses(x, strict)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return grad * ctx.surrogate.derivative(x), None, None


def plain_step(x: Tensor, v: Tensor, decay: float | Tensor, dynamics: Dynamics) -> tuple[Tensor, Tensor]:
    """One step of the recurrence, differentiable through the surrogate.

    Args:
        x: input current of this step, ``[B, ...]``.
        v: membrane potential after the previous step's reset, same shape (zeros before the first step).
        decay: what is kept of the membrane potential, a number or a tensor that broadcasts with ``x``.
        dynamics: threshold, reset, comparison, surrogate.

    Returns:
        Spikes 0/1 and the membrane potential after the reset, both ``[B, ...]``.
    """
    h = decay * v + x
    s = _Fire.apply(h - dynamics.threshold, dynamics.strict, dynamics.surrogate)
    return s, reset(h, s.detach() if dynamics.detach_reset else s, dynamics)


def plain_run(x: Tensor, decay: float | Tensor, dynamics: Dynamics) -> Tensor:
    """The plain loop: currents ``[T, B, ...]`` to spikes of the same shape and dtype, membrane potential in float32."""
    v = torch.zeros_like(x[0], dtype=torch.promote_types(x.dtype, torch.float32))
    spikes = []
    for current in x.to(v.dtype):
        s, v = plain_step(current, v, decay, dynamics)
        spikes.append(s.to(x.dtype))
    return torch.stack(spikes)
