"""The T steps of a spiking layer as one operation, forward and backward.

The backward pass keeps the input current and nothing else: the membrane potential is computed again from it, exactly,
where it is needed. So a layer reads T currents and writes T spikes on the way forward, and reads currents and gradients
and writes gradients on the way back. Nothing less can be had without fusing it with its neighbours.

``forward`` and ``backward`` are plain torch on ``[T, N]`` tensors, compiled into one kernel each (``compiling``);
inside a network that is itself being compiled they are traced as they stand.
"""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor

from spikedistill.spiking import compiling
from spikedistill.spiking.joining import joined
from spikedistill.spiking.layout import flatten, own, unflatten
from spikedistill.spiking.recurrence import Dynamics, crosses, reset


def at_steps(x: Tensor, timesteps: int) -> list[Tensor]:
    """The T steps of ``[T, N]``, or of ``[1, N]`` that is the same at every step."""
    return [x[t if x.shape[0] > 1 else 0] for t in range(timesteps)]


def charge(currents: list[Tensor], decay: float | Tensor, dynamics: Dynamics) -> tuple[list[Tensor], list[Tensor]]:
    """The recurrence: T membrane potentials before the spike, and T spikes, both at the membrane's precision.

    Args:
        currents: T tensors.
        decay: a number, or a tensor that broadcasts with them.
        dynamics: threshold, reset, comparison, surrogate.
    """
    potentials: list[Tensor] = []
    fired: list[Tensor] = []
    for t, current in enumerate(currents):
        h = current.to(torch.promote_types(current.dtype, torch.float32))
        if t:
            h = decay * reset(potentials[-1], fired[-1], dynamics) + h
        potentials.append(h)
        fired.append(crosses(h - dynamics.threshold, dynamics.strict))
    return potentials, fired


def discharge(
    potentials: list[Tensor], spikes: list[Tensor], grad: list[Tensor], decay: float | Tensor, dynamics: Dynamics
) -> tuple[list[Tensor], Tensor | None]:
    """The recurrence backwards: gradients of the T currents, and of the decay per neuron (a tensor's only)."""
    currents: list[Tensor] = []
    grad_decay = None
    grad_v = None
    for t in reversed(range(len(potentials))):
        h, s = potentials[t], spikes[t]
        ds_dh = dynamics.surrogate.derivative(h - dynamics.threshold)
        grad_h = grad[t].to(h.dtype) * ds_dh
        if grad_v is not None:
            grad_h = grad_h + grad_v * _dv_dh(h, s, ds_dh, dynamics)
        currents.append(grad_h)
        if t:
            grad_v = decay * grad_h
            if isinstance(decay, Tensor):
                term = grad_h * reset(potentials[t - 1], spikes[t - 1], dynamics)
                grad_decay = term if grad_decay is None else grad_decay + term
    if isinstance(decay, Tensor) and grad_decay is None:
        grad_decay = torch.zeros_like(potentials[0])
    return currents[::-1], grad_decay


def _dv_dh(h: Tensor, s: Tensor, ds_dh: Tensor, dynamics: Dynamics) -> Tensor | float:
    """What the reset lets through, from the membrane potential after it to the one before."""
    if dynamics.soft_reset:
        return 1.0 if dynamics.detach_reset else 1.0 - dynamics.threshold * ds_dh
    return 1.0 - s if dynamics.detach_reset else 1.0 - s - h * ds_dh


def forward(x: Tensor, decay: float | Tensor, *, dynamics: Dynamics, timesteps: int) -> Tensor:
    """Currents ``[T, N]`` or ``[1, N]`` to spikes ``[T, N]`` in the currents' dtype."""
    _, spikes = charge(at_steps(x, timesteps), decay, dynamics)
    return joined([s.to(x.dtype) for s in spikes])


def backward(
    x: Tensor, grad: Tensor, decay: float | Tensor, *, dynamics: Dynamics, timesteps: int
) -> tuple[Tensor, Tensor | None]:
    """Gradients of the currents (``[T, N]``) and of the decay per neuron (``[N]``)."""
    potentials, spikes = charge(at_steps(x, timesteps), decay, dynamics)
    currents, grad_decay = discharge(potentials, spikes, at_steps(grad, timesteps), decay, dynamics)
    return joined([c.to(x.dtype) for c in currents]), grad_decay


def inlined(x: Tensor, timesteps: int) -> bool:
    """Whether a backward kernel is compiled without intermediate results.

    With them it falls into two loops from three steps on, between which the potentials go through memory. So on a GPU,
    where a kernel takes as long as its memory traffic; on a CPU it does not.
    """
    return x.device.type != "cpu" and timesteps <= compiling.INLINE_STEPS


class _Fused(torch.autograd.Function):
    """``apply(x, decay, dynamics)``, as in ``run``."""

    @staticmethod
    def forward(ctx, x: Tensor, decay: float | Tensor, dynamics: Dynamics) -> Tensor:  # type: ignore[override]
        ctx.dynamics, ctx.fixed_decay = dynamics, None if isinstance(decay, Tensor) else decay
        ctx.save_for_backward(x, *((decay,) if isinstance(decay, Tensor) else ()))
        tensors, constants = _arguments((x,), decay, x)
        out = compiling.call(forward, tensors, {**constants, "dynamics": dynamics, "timesteps": x.shape[0]})
        assert isinstance(out, Tensor)
        return own(unflatten(out, x))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        x, *decay = ctx.saved_tensors
        tensors, constants = _arguments((x, grad), decay[0] if decay else ctx.fixed_decay, x)
        constants |= {"dynamics": ctx.dynamics, "timesteps": grad.shape[0]}
        grad_x, grad_decay = compiling.call(backward, tensors, constants, inline=inlined(x, grad.shape[0]))
        assert isinstance(grad_x, Tensor)
        if decay and grad_decay is not None:
            grad_decay = unflatten(grad_decay.unsqueeze(0), x)[0].sum_to_size(decay[0].shape).to(decay[0].dtype)
        return unflatten(grad_x, x), grad_decay, None


def _arguments(
    sequences: tuple[Tensor, ...], decay: float | Tensor, like: Tensor
) -> tuple[list[Tensor], dict[str, Hashable]]:
    """The tensors of a kernel, flattened, and its constants: a decay is one or the other."""
    tensors = [flatten(x, like) for x in sequences]
    if not isinstance(decay, Tensor):
        return tensors, {"decay": decay}
    decay = decay.detach()
    if decay.numel() == 1:
        return [*tensors, decay.reshape(())], {}
    return [*tensors, flatten(decay.expand(like.shape[1:]).unsqueeze(0), like)[0]], {}


def run(x: Tensor, decay: float | Tensor, dynamics: Dynamics) -> Tensor:
    """Currents ``[T, B, ...]`` to spikes of the same shape.

    Memory layout is kept (contiguous or channels-last), and a current that is expanded over T is not copied.
    """
    return _Fused.apply(x, decay, dynamics)
