"""BatchNorm whose statistics are those of the batches of all processes together (Ioffe & Szegedy 2015).

``synchronise`` changes the class of BatchNorm modules in place and nothing else, as ``fuse.optimise`` does: a run on
two processes is the run on one with the same global batch. torch's own ``SyncBatchNorm`` computes on GPUs only; this
one runs on any device and any process group.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from spikedistill.errors import UserError


class _Shared(torch.autograd.Function):
    """``apply(x, weight, bias, eps)``: the normalised ``x``, and the global mean, variance and count."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float):  # type: ignore[override]
        dtype = torch.promote_types(x.dtype, torch.float32)
        pixels = [0, *range(2, x.dim())]
        var, mean = torch.var_mean(x.to(dtype), dim=pixels, correction=0)
        own = torch.cat([mean, var, mean.new_full((1,), x.numel() // x.shape[1])])
        parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, own)
        everyone = torch.stack(parts)
        channels = x.shape[1]
        means, variances, counts = everyone[:, :channels], everyone[:, channels:-1], everyone[:, -1:]
        total = counts.sum()
        mean = (means * counts).sum(0) / total
        # Chan et al. 1979: exact where a sum of squares would cancel.
        var = ((variances + (means - mean).square()) * counts).sum(0) / total
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(var + eps), total)
        ctx.set_materialize_grads(False)
        out = torch.nn.functional.batch_norm(x, mean, var, weight, bias, False, 0.0, eps)
        ctx.mark_non_differentiable(mean, var, total)
        return out, mean, var, total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor, *_statistics):  # type: ignore[override]
        x, weight, mean, scale, total = ctx.saved_tensors
        pixels = [0, *range(2, x.dim())]
        shape = [1, -1, *[1] * (x.dim() - 2)]
        wide = grad.to(mean.dtype)
        normalised = (x.to(mean.dtype) - mean.view(shape)) * scale.view(shape)
        grad_weight, grad_bias = (wide * normalised).sum(pixels), wide.sum(pixels)
        both = torch.stack([grad_weight, grad_bias])
        dist.all_reduce(both)  # parameters' own gradients are averaged over processes by whoever trains
        along, through = (both / total).unbind()
        factor = scale if weight is None else scale * weight.to(mean.dtype)
        grad_x = (wide - through.view(shape) - normalised * along.view(shape)) * factor.view(shape)
        if weight is None:
            return grad_x.to(x.dtype), None, None, None
        return grad_x.to(x.dtype), grad_weight.to(weight.dtype), grad_bias.to(weight.dtype), None


class _SyncMixin(nn.modules.batchnorm._BatchNorm):
    """Normalises with the statistics of all processes while training; as its base class otherwise."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(input)
        out, mean, var, total = _Shared.apply(input, self.weight, self.bias, self.eps)
        if self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                momentum = self.momentum
                if self.num_batches_tracked is not None:
                    self.num_batches_tracked.add_(1)
                    if momentum is None:
                        momentum = 1.0 / float(self.num_batches_tracked)
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum or 0.0)
                unbiased = var * (total / (total - 1))
                self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum or 0.0)
        return out


class SyncBatchNorm1d(_SyncMixin, nn.BatchNorm1d):
    """``nn.BatchNorm1d`` over all processes."""


class SyncBatchNorm2d(_SyncMixin, nn.BatchNorm2d):
    """``nn.BatchNorm2d`` over all processes."""


_TWINS: dict[type[nn.Module], type[nn.Module]] = {nn.BatchNorm1d: SyncBatchNorm1d, nn.BatchNorm2d: SyncBatchNorm2d}
_ORIGINALS = {twin: original for original, twin in _TWINS.items()}


def synchronise(module: nn.Module) -> nn.Module:
    """Lets every BatchNorm of a module use the statistics of all processes, in place, and returns the module.

    Raises:
        UserError: a BatchNorm of another kind, whose statistics cannot be shared.
    """
    for path, child in module.named_modules():
        if isinstance(child, nn.modules.batchnorm._BatchNorm) and type(child) not in (*_TWINS, *_ORIGINALS):
            raise UserError(
                f"'{path}' is a {type(child).__name__}, whose statistics cannot be shared between processes; "
                "train on one device (devices=1)"
            )
        child.__class__ = _TWINS.get(type(child), type(child))  # type: ignore[assignment]
    return module


def separate(module: nn.Module) -> nn.Module:
    """Undoes ``synchronise``; returns the module."""
    for child in module.modules():
        child.__class__ = _ORIGINALS.get(type(child), type(child))
    return module
