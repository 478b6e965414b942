"""What stands between two convolutions, as one operation: BatchNorm, residual addition, neuron, 2x2 max pooling.

    x[t] = scale_1 * (y_1[t] - mean_1) + shift_1 + ...      one or two terms, each normalised or not
    s    = the recurrence over x                            (``recurrence``)
    p    = the maximum of s over 2x2 windows                (optional)

Forward reads the convolution's output and writes spikes; the normalised current and, where spikes are pooled, the spikes
themselves never reach memory. Backward computes both again from the convolution's output, which is all that is kept of
a layer beside its channel statistics (and, where spikes are pooled, one byte a pooled spike: which of the four got it).

Tensors are channels-last: ``[T, M, C]`` with M pixels a step, or ``[T, A, 2, W, 2, C]`` with A x W windows a step.
Statistics are over T and M together, as those of a time-folded ``nn.BatchNorm2d`` (Ioffe & Szegedy 2015).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spikedistill.spiking.fused import at_steps, charge, discharge
from spikedistill.spiking.recurrence import Dynamics


@dataclass(frozen=True)
class Plan:
    """The constants of a layer's kernels.

    Attributes:
        dynamics: threshold, reset, comparison, surrogate.
        timesteps: T.
        normalised: of each term, whether a mean, a scale and a shift ``[C]`` follow it among the tensors.
        decay: a number, or None for a tensor (0-d or ``[C]``) that follows the terms.
        pooled: whether spikes are pooled.
    """

    dynamics: Dynamics
    timesteps: int
    normalised: tuple[bool, ...]
    decay: float | None
    pooled: bool


Window = tuple[slice | int, ...]
WHOLE: Window = (slice(None),)
WINDOWS: tuple[Window, ...] = tuple((slice(None), slice(None), i, slice(None), j) for i in (0, 1) for j in (0, 1))


def _read(tensors: tuple[Tensor, ...], plan: Plan, window: Window) -> tuple[list[Tensor], list[Tensor], float | Tensor]:
    """T currents, the centred values of each normalised term (all T together), and the decay."""
    queue = list(tensors)
    currents: list[Tensor] = []
    centred: list[Tensor] = []
    for normalised in plan.normalised:
        value = queue.pop(0)[window]
        value = value.to(torch.promote_types(value.dtype, torch.float32))
        if normalised:
            mean, scale, shift = queue.pop(0), queue.pop(0), queue.pop(0)
            value = value - mean
            centred.append(value)
            value = value * scale + shift
        steps = at_steps(value, plan.timesteps)
        currents = [a + b for a, b in zip(currents, steps, strict=True)] if currents else steps
    return currents, centred, queue.pop(0) if plan.decay is None else plan.decay


def forward(*tensors: Tensor, plan: Plan, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """Terms and decay to spikes ``[T, M, C]``, or pooled ones ``[T, A, W, C]`` and the window's winner (uint8, 0 to 3).

    The winner is the first spike of the window in reading order, or its first element, as in ``nn.MaxPool2d``.
    """
    if not plan.pooled:
        currents, _, decay = _read(tensors, plan, WHOLE)
        return torch.stack([s.to(dtype) for s in charge(currents, decay, plan.dynamics)[1]]), None
    fired: list[Tensor] = []
    winner: list[Tensor] = []
    for place, window in reversed(list(enumerate(WINDOWS))):
        currents, _, decay = _read(tensors, plan, window)
        spikes = charge(currents, decay, plan.dynamics)[1]
        if not fired:
            fired, winner = spikes, [place * s for s in spikes]
        else:
            winner = [torch.where(s > 0, float(place), w) for s, w in zip(spikes, winner, strict=True)]
            fired = [torch.maximum(s, f) for s, f in zip(spikes, fired, strict=True)]
    return torch.stack([f.to(dtype) for f in fired]), torch.stack([w.to(torch.uint8) for w in winner])


def _unpool(grad: Tensor, winner: Tensor) -> Tensor:
    """The gradient of pooled spikes at the winners of their windows: ``[T, A, W, C]`` to ``[T, A, 2, W, 2, C]``."""
    two = torch.arange(2, device=grad.device, dtype=torch.uint8)
    place = 2 * two.view(2, 1, 1, 1) + two.view(2, 1)
    return torch.where(winner[:, :, None, :, None] == place, grad[:, :, None, :, None], 0.0)


def backward(*tensors: Tensor, plan: Plan, dtype: torch.dtype) -> tuple[Tensor | None, ...]:
    """Terms, decay, gradient of the spikes (and the winners) to what the terms' gradients are made of.

    Returns:
        The current's gradient ``[T, M, C]`` (or ``[T, A, 2, W, 2, C]``; one step, the sum, where the terms are constant),
        the decay's ``[C]`` (None for a number), the current's gradient summed over all but channels, and for each
        normalised term the sum of its product with the centred term.
    """
    if plan.pooled:
        *tensors, grad, winner = tensors
        grad = _unpool(grad, winner)
    else:
        *tensors, grad = tensors
    currents, centred, decay = _read(tuple(tensors), plan, WHOLE)
    potentials, spikes = charge(currents, decay, plan.dynamics)
    grads, grad_decay = discharge(potentials, spikes, at_steps(grad, plan.timesteps), decay, plan.dynamics)
    if tensors[0].shape[0] < plan.timesteps:
        grads = [_total(grads)]
    over = tuple(range(grads[0].dim() - 1))
    sums = []
    if centred:
        sums.append(_total(grads).sum(over))
    for value in centred:
        sums.append(_total([g * v for g, v in zip(grads, list(value), strict=True)]).sum(over))
    return (
        torch.stack([g.to(dtype) for g in grads]),
        None if grad_decay is None else grad_decay.sum(over),
        *sums,
    )


def _total(terms: list[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def through_norm(grad: Tensor, y: Tensor, mean: Tensor, scale: Tensor, offset: Tensor, slope: Tensor) -> Tensor:
    """The gradient of a normalised term: ``scale * grad + offset + slope * (y - mean)``, in y's dtype."""
    return (scale * grad + (offset + slope * (y - mean))).to(y.dtype)
