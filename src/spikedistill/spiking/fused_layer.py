"""BatchNorm, residual addition, neuron and 2x2 max pooling as one operation with a backward pass of its own.

Kept for the backward pass: the convolution's output, its channel statistics, a residual (one bit a spike, if wished)
and, where spikes are pooled, one byte a neuron. BatchNorm is that of Ioffe & Szegedy 2015 with statistics over T, batch
and pixels; its own backward pass is torch's. Between convolution and spike everything is float32, so that under
bfloat16 the current is not rounded once more, as it is between separate layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spikedistill.spiking import compiling
from spikedistill.spiking.bits import Bits, unpack
from spikedistill.spiking.fused import inlined
from spikedistill.spiking.layer_kernels import (
    MOST_STEPS,
    Plan,
    backward,
    backward_pooled,
    forward,
    history,
    pool,
    winners,
)
from spikedistill.spiking.recurrence import Dynamics

VECTOR = 32  # numbers, in bfloat16
ROW = 256  # numbers that a kernel's loop over channels should have to run over


@dataclass(frozen=True)
class Norm:
    """A BatchNorm on its way into the kernel.

    Attributes:
        weight, bias: its parameters, ``[C]``.
        mean, variance: what it normalises with, ``[C]`` float32, without gradient.
        eps: added to the variance.
        of_batch: whether these are the value's own statistics (training), through which its gradient passes.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    variance: Tensor
    eps: float
    of_batch: bool


@dataclass(frozen=True)
class Term:
    """A summand of the current: folded, ``[T*B, C, H, W]`` channels-last or ``[T*B, C]``; B rows where it is constant.

    Attributes:
        value: the convolution's output, or a residual.
        norm: the BatchNorm that it goes through, if any.
        bits: the value packed, to be kept instead of it (a residual of spikes).
    """

    value: Tensor
    norm: Norm | None = None
    bits: Bits | None = None


@dataclass(frozen=True)
class Setting:
    """What a layer is beside its tensors.

    Attributes:
        dynamics: threshold, reset, comparison, surrogate.
        timesteps: T.
        constant: the terms have B rows, which hold for every step.
        pooled: a 2x2 max pooling of stride 2 follows.
    """

    dynamics: Dynamics
    timesteps: int
    constant: bool
    pooled: bool


def poolable(value: Tensor, timesteps: int) -> bool:
    """Whether ``run`` can pool spikes of this folded shape."""
    return value.dim() == 4 and value.shape[2] % 2 == 0 and value.shape[3] % 2 == 0 and timesteps <= MOST_STEPS


def run(terms: Sequence[Term], decay: float | Tensor, setting: Setting) -> Tensor:
    """The sum of one or two terms as a current, to spikes ``[T*B, C, H, W]``; pooled, ``[T*B, C, H/2, W/2]``.

    The decay is a number, or a tensor of one element or one a channel (``[C, 1, 1]``, ``[C]``).
    """
    flat: list[object] = []
    for term in terms:
        norm = term.norm
        flat += [term.value, *([norm.weight, norm.bias, norm.mean, norm.variance] if norm else [None] * 4)]
    norms = tuple((term.norm.eps, term.norm.of_batch) if term.norm else None for term in terms)
    return _Layer.apply(setting, norms, tuple(term.bits for term in terms), decay, *flat)


class _Layer(torch.autograd.Function):
    """``apply(setting, norms, bits, decay, value, weight, bias, mean, variance, ...)``.

    One (eps, of_batch) or None, one Bits or None, and the last five for each term.
    """

    @staticmethod
    def forward(ctx, setting: Setting, norms, bits, decay, *flat):  # type: ignore[override]
        values = flat[::5]
        dtype = values[0].dtype
        for value in values[1:]:
            dtype = torch.promote_types(dtype, value.dtype)
        number = None if isinstance(decay, Tensor) else decay
        plan = Plan(setting.dynamics, setting.timesteps, tuple(norm is not None for norm in norms), number, dtype)
        ctx.setting, ctx.norms, ctx.plan = setting, norms, plan
        ctx.packed = [None if b is None else (b.shape, b.strides, b.dtype) for b in bits]
        tensors = _tensors(flat, norms, decay, plan, setting, _abreast(values[0], setting))
        kept = list(flat)
        for i, b in enumerate(bits):
            kept[5 * i] = kept[5 * i] if b is None else b.packed
        rows, *rest = values[0].shape
        rows *= setting.timesteps if setting.constant else 1
        if not setting.pooled:
            ctx.save_for_backward(decay if number is None else None, None, *kept)
            return _folded(compiling.call(forward, tensors, {"plan": plan}), (rows, *rest))
        past = compiling.call(history, tensors, {"plan": plan})
        assert isinstance(past, Tensor)
        channels, height, width = rest
        windows = past.view(-1, 2, width // 2, 2, channels)
        ctx.save_for_backward(decay if number is None else None, windows, *kept)
        return _folded(compiling.call(pool, [windows], {"plan": plan}), (rows, channels, height // 2, width // 2))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        decay, windows, *flat = ctx.saved_tensors
        setting, plan = ctx.setting, ctx.plan
        for i, was in enumerate(ctx.packed):
            if was is not None:
                flat[5 * i] = unpack(Bits(flat[5 * i], *was))
        side = _abreast(flat[0], setting)
        tensors = _tensors(flat, ctx.norms, plan.decay if decay is None else decay, plan, setting, side)
        if windows is None:
            tensors.append(_steps(grad, plan.timesteps, side))
            inline = inlined(grad, plan.timesteps)
            grad_x, grad_decay = compiling.call(backward, tensors, {"plan": plan}, inline=inline)
        else:
            won = compiling.call(winners, [windows], {})
            assert isinstance(won, Tensor)
            tensors = [_windows(t, windows.shape) for t in tensors]
            tensors += [won.unflatten(0, (2, 2)), _steps(grad, plan.timesteps).view(plan.timesteps, *won.shape[1:])]
            inline = plan.timesteps <= compiling.INLINE_STEPS
            grad_x, grad_decay = compiling.call(backward_pooled, tensors, {"plan": plan}, inline=inline)
        assert isinstance(grad_x, Tensor)
        grad_x = _folded(grad_x, flat[0].shape)
        grads: list[Tensor | None] = []
        for i, norm in enumerate(ctx.norms):
            grads += [*_through(grad_x, norm, flat[5 * i : 5 * i + 5], ctx.needs_input_grad[4 + 5 * i :]), None, None]
        if decay is not None and grad_decay is not None:
            grad_decay = grad_decay.reshape(-1, grad_x.shape[1]).sum(0)
            grad_decay = (grad_decay.sum() if decay.numel() == 1 else grad_decay).reshape(decay.shape).to(decay.dtype)
        return None, None, None, grad_decay, *grads


def _through(grad: Tensor, norm: tuple[float, bool] | None, term: Sequence[Tensor], needed: Sequence[bool]):
    """The gradients of a term's value, weight and bias, from the current's."""
    value, weight, _, mean, variance = term
    if norm is None:
        return [grad.to(value.dtype) if needed[0] else None, None, None]
    eps, of_batch = norm
    # On CUDA the saved statistics are asked for though eval mode has none of its own, and one dtype for both.
    used = (mean, variance, mean, torch.rsqrt(variance + eps))
    grad = grad.to(value.dtype)
    return torch.ops.aten.native_batch_norm_backward(grad, value, weight, *used, of_batch, eps, list(needed[:3]))


def _abreast(value: Tensor, setting: Setting) -> int:
    """How many pixels a kernel reads as one, so that vectors are full where channels are few.

    A kernel's inner loop runs over the channels of one pixel: with 8 of them it takes four times as long as it must on
    a CPU. A power of two that divides the pixels of a step; 1 where channels fill vectors, or are pooled (pixels must
    stay apart).
    """
    channels = value.shape[1]
    if setting.pooled or value.device.type != "cpu" or channels % VECTOR == 0 or channels > ROW:
        return 1
    pixels = value.numel() // channels // (1 if setting.constant else setting.timesteps)
    return math.gcd(pixels, 2 ** int(math.log2(ROW / channels)))


def _tensors(
    flat: Sequence[Tensor], norms, decay: float | Tensor, plan: Plan, setting: Setting, side: int
) -> list[Tensor]:
    """The kernels' tensors: each term with its mean, scale and shift, and a decay that is a tensor.

    ``side`` pixels are read as one, for which what is per channel is repeated.
    """
    tensors: list[Tensor] = []
    for i, norm in enumerate(norms):
        value, weight, bias, mean, variance = flat[5 * i : 5 * i + 5]
        tensors.append(_steps(value, 1 if setting.constant else plan.timesteps, side))
        if norm is not None:
            scale = weight.detach() * torch.rsqrt(variance + norm[0])
            tensors += [x.repeat(side) if side > 1 else x for x in (mean, scale, bias.detach())]
    if isinstance(decay, Tensor):
        tensors.append(decay.detach().reshape(()) if decay.numel() == 1 else decay.detach().reshape(-1).repeat(side))
    return tensors


def _steps(folded: Tensor, steps: int, side: int = 1) -> Tensor:
    """``[steps * B, C, ...]`` to ``[steps, B * ... / side, side * C]``: a view if the tensor is channels-last."""
    folded = folded.detach()
    if folded.dim() == 4:
        folded = folded.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
    return folded.contiguous().view(steps, -1, side * folded.shape[-1])


def _folded(x: Tensor | tuple, shape: Sequence[int]) -> Tensor:
    """Anything channels-last (``[..., C]``) to a folded ``[T*B, C, ...]``, a view."""
    assert isinstance(x, Tensor)
    rows, channels, *pixels = shape
    return x.view(rows, *pixels, channels).movedim(-1, 1)


def _windows(x: Tensor, shape: Sequence[int]) -> Tensor:
    """``[steps, M, C]`` to ``[steps, A, 2, W, 2, C]``; what is per channel stays."""
    return x.view(x.shape[0], *shape) if x.dim() == 3 else x
