"""The kernels of what stands between two convolutions: BatchNorm, residual addition, neuron, 2x2 max pooling.

    x[t] = scale * (y[t] - mean) + shift  (+ a second term, normalised or not)
    s    = the recurrence over x                            (``recurrence``)
    p    = the maximum of s over 2x2 windows                (optional)

Forward reads the convolution's output and writes spikes: the normalised current never reaches memory. Backward computes
it again from the convolution's output. Where spikes are pooled they do not reach memory either, but as a history: one
byte that holds a neuron's T spikes (T <= 8), from which pooling and its gradient are logic on bytes.

Tensors are channels-last, ``[T, M, C]`` with M pixels a step, or ``[T, A, 2, W, 2, C]`` with A x W windows a step;
T = 1 where a current is the same at every step. The functions are plain torch and compiled one by one (``compiling``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spikedistill.spiking.fused import at_steps, charge, discharge
from spikedistill.spiking.joining import joined
from spikedistill.spiking.recurrence import Dynamics

MOST_STEPS = 8  # of a history: one byte


@dataclass(frozen=True)
class Plan:
    """The constants of a layer's kernels.

    Attributes:
        dynamics: threshold, reset, comparison, surrogate.
        timesteps: T.
        normalised: of each term, whether a mean, a scale and a shift ``[C]`` follow it among the tensors.
        decay: a number, or None for a tensor (0-d or ``[C]``) that follows the terms.
        dtype: of spikes and gradients.
    """

    dynamics: Dynamics
    timesteps: int
    normalised: tuple[bool, ...]
    decay: float | None
    dtype: torch.dtype


def forward(*tensors: Tensor, plan: Plan) -> Tensor:
    """Terms and decay to spikes ``[T, M, C]``."""
    currents, decay = _read(tensors, plan)
    return joined([s.to(plan.dtype) for s in charge(currents, decay, plan.dynamics)[1]])


def backward(*tensors: Tensor, plan: Plan) -> tuple[Tensor, Tensor | None]:
    """Terms, decay and the spikes' gradient to the current's gradient, and the decay's per neuron (None for a number).

    The gradient of a current that is the same at every step is summed over T.
    """
    *terms, grad = tensors
    currents, decay = _read(terms, plan)
    potentials, spikes = charge(currents, decay, plan.dynamics)
    grads, grad_decay = discharge(potentials, spikes, at_steps(grad, plan.timesteps), decay, plan.dynamics)
    return _gathered(grads, terms[0].shape[0], plan), grad_decay


def history(*tensors: Tensor, plan: Plan) -> Tensor:
    """Terms and decay to the neurons' histories, uint8: bit t is the spike of step t. Any shape ``[T, ...]``."""
    currents, decay = _read(tensors, plan)
    total = torch.zeros_like(currents[0])
    for t, s in enumerate(charge(currents, decay, plan.dynamics)[1]):
        total = total + s * float(2**t)
    return total.to(torch.uint8)


def pool(windows: Tensor, *, plan: Plan) -> Tensor:
    """Histories ``[A, 2, W, 2, C]`` to pooled spikes ``[T, A, W, C]``."""
    first, second, third, fourth = _corners(windows)
    fired = first | second | third | fourth
    return joined([_spike(fired, t).to(plan.dtype) for t in range(plan.timesteps)])


def winners(windows: Tensor) -> Tensor:
    """Histories ``[A, 2, W, 2, C]`` to bytes ``[4, A, W, C]``: bit t where a window's gradient of step t goes.

    That is to its first spike in reading order, or to its first element, as in ``nn.MaxPool2d``.
    """
    first, second, third, fourth = _corners(windows)
    two = first | second
    three = two | third
    return joined([first | ~(three | fourth), second & ~first, third & ~two, fourth & ~three])


def backward_pooled(*tensors: Tensor, plan: Plan) -> tuple[Tensor, Tensor | None]:
    """As ``backward``, for terms ``[T, A, 2, W, 2, C]`` and, after the decay, their winners and the pooled gradient.

    Winners are ``[2, 2, A, W, C]``, the gradient ``[T, A, W, C]``.
    """
    *terms, won, grad = tensors
    currents, decay = _read(terms, plan)
    potentials, spikes = charge(currents, decay, plan.dynamics)
    bits = won.permute(2, 0, 3, 1, 4).to(torch.int32, memory_format=torch.contiguous_format)
    zero = torch.zeros((), dtype=potentials[0].dtype, device=grad.device)
    # By comparison, not by shifting bits into numbers: on a CPU the whole kernel takes 0.6 to 0.8 of the time.
    routed = [
        torch.where((bits & 2**t) != 0, g[:, None, :, None].to(potentials[0].dtype), zero) for t, g in enumerate(grad)
    ]
    grads, grad_decay = discharge(potentials, spikes, routed, decay, plan.dynamics)
    return _gathered(grads, terms[0].shape[0], plan), grad_decay


def _read(tensors: Sequence[Tensor], plan: Plan) -> tuple[list[Tensor], float | Tensor]:
    """T currents and the decay."""
    queue = list(tensors)
    currents: list[Tensor] = []
    for normalised in plan.normalised:
        value = queue.pop(0)
        value = value.to(torch.promote_types(value.dtype, torch.float32))
        if normalised:
            value = (value - queue.pop(0)) * queue.pop(0) + queue.pop(0)
        steps = at_steps(value, plan.timesteps)
        currents = [a + b for a, b in zip(currents, steps, strict=True)] if currents else steps
    return currents, queue.pop(0) if plan.decay is None else plan.decay


def _gathered(grads: list[Tensor], steps: int, plan: Plan) -> Tensor:
    if steps < plan.timesteps:
        total = grads[0]
        for grad in grads[1:]:
            total = total + grad
        grads = [total]
    return joined([g.to(plan.dtype) for g in grads])


def _corners(windows: Tensor) -> list[Tensor]:
    """The four elements of each window in reading order, ``[A, W, C]`` each."""
    return [windows[:, i, :, j] for i in (0, 1) for j in (0, 1)]


def _spike(past: Tensor, t: int) -> Tensor:
    return ((past >> t) & 1).to(torch.float32)
