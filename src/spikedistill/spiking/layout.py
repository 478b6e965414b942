"""Sequences as ``[T, N]``: one run of memory a step, whatever the layout of an image.

A kernel that treats all elements alike then sees two dimensions only, is compiled once for all shapes, and neither
copies a channels-last sequence nor materialises one that is expanded over T.
"""

from __future__ import annotations

import torch
from torch import Tensor

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def _layout(step: Tensor) -> torch.memory_format | None:
    """The memory format in which a step ``[B, ...]`` is one run of memory, None if there is none."""
    if step.is_contiguous():
        return torch.contiguous_format
    channels_last = _CHANNELS_LAST.get(step.dim())
    return channels_last if channels_last and step.is_contiguous(memory_format=channels_last) else None


def _strides(step: Tensor) -> tuple[int, ...]:
    """The strides of a step's layout, contiguous where it is not dense."""
    if _layout(step) is not None:
        return step.stride()
    return torch.empty(step.shape, device="meta").stride()


def flatten(x: Tensor, like: Tensor) -> Tensor:
    """``[T, B, ...]`` to ``[T, N]`` in the order of ``like``'s layout; ``[1, N]`` if all steps are the same memory.

    A view where the layouts agree (detached), a copy where they do not. A step of ``like`` has the shape of one of x.
    Inside a network that is being compiled x itself: its compiler sees to layouts.
    """
    x = x.detach()
    if torch.compiler.is_compiling():
        return x
    steps, size, strides = x.shape[0], x[0].numel(), _strides(like[0])
    if x.stride(0) == 0:
        x, steps = x[:1], 1
    same = x[0].stride() == strides or (_layout(x[0]) is not None and _layout(x[0]) == _layout(like[0]))
    if not same or (steps > 1 and x.stride(0) != size):
        x = torch.empty_strided(x.shape, (size, *strides), dtype=x.dtype, device=x.device).copy_(x)
    return x.as_strided((steps, size), (size, 1))


def own(x: Tensor) -> Tensor:
    """The same memory as a tensor of its own.

    What an ``autograd.Function`` returns may be written over then; of a view that was made inside torch forbids it.
    """
    if torch.compiler.is_compiling():
        return x
    empty = torch.empty(0, dtype=x.dtype, device=x.device)
    return empty.set_(x.untyped_storage(), x.storage_offset(), x.shape, x.stride())


def unflatten(flat: Tensor, like: Tensor) -> Tensor:
    """``[T, N]`` back to ``[T, B, ...]`` in the layout of ``like``, which may have another T."""
    if torch.compiler.is_compiling():
        return flat
    return flat.as_strided((flat.shape[0], *like.shape[1:]), (flat.shape[1], *_strides(like[0])))
