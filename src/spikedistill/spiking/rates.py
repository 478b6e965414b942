"""A spiking feature and its mean over T, for a loss on rates: one operation forward, one backward."""

from __future__ import annotations

import torch
from torch import Tensor

from spikedistill.spiking import compiling
from spikedistill.spiking.layout import flatten, unflatten
from spikedistill.spiking.time import direct_encode, fold, readout, unfold


def with_rate(folded: Tensor, timesteps: int) -> tuple[Tensor, Tensor]:
    """A folded feature, to go on with, and its mean over T: ``[T*B, ...]`` to ``[T*B, ...]`` and ``[B, ...]``.

    The two gradients are added in one pass; autograd alone would write the mean's T times and read it again.
    """
    if torch.compiler.is_compiling():
        return folded, readout(unfold(folded, timesteps))
    return _WithRate.apply(folded, timesteps)


def _mean(x: Tensor) -> Tensor:
    """``[T, N]`` to ``[1, N]``."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return wide.mean(0, keepdim=True).to(x.dtype)


def _sum(grad: Tensor, grad_rate: Tensor) -> Tensor:
    """``[T, N]`` and the mean's gradient ``[1, N]`` to the feature's ``[T, N]``."""
    wide = torch.promote_types(grad.dtype, torch.float32)
    return (grad.to(wide) + grad_rate.to(wide) / grad.shape[0]).to(grad.dtype)


class _WithRate(torch.autograd.Function):
    """``apply(folded, timesteps)``."""

    @staticmethod
    def forward(ctx, folded: Tensor, timesteps: int) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        ctx.timesteps = timesteps
        ctx.set_materialize_grads(False)
        steps = unfold(folded, timesteps)
        if not compiling.pays(folded):
            return folded, readout(steps)
        mean = compiling.call(_mean, [flatten(steps, steps)], {})
        assert isinstance(mean, Tensor)
        return folded, unflatten(mean, steps)[0]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor | None, grad_rate: Tensor | None):  # type: ignore[override]
        timesteps = ctx.timesteps
        if grad is None and grad_rate is not None:
            return fold(direct_encode(grad_rate / timesteps, timesteps)), None
        if grad is None or grad_rate is None:
            return grad, None
        steps, rate = unfold(grad, timesteps), grad_rate.unsqueeze(0)
        if not compiling.pays(grad) or steps.stride(0) == 0:  # the same gradient at every step has no steps to go over
            return fold(steps + rate / timesteps), None
        total = compiling.call(_sum, [flatten(steps, steps), flatten(rate, steps)], {})
        assert isinstance(total, Tensor)
        return fold(unflatten(total, steps)), None
