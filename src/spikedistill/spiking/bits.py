"""Spikes at one bit each: what a convolution's backward pass needs of its input, in 1/32 of float32's memory.

Bit k of byte m is element ``k * M + m`` of the flat tensor (M = size / 8), in the order of memory: packing and
unpacking then read and write eight straight runs, and go at the speed of a copy.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spikedistill.spiking import compiling
from spikedistill.spiking.joining import joined


@dataclass(frozen=True)
class Bits:
    """A packed tensor of zeros and ones.

    Attributes:
        packed: ``[M]`` uint8.
        shape, strides, dtype: the tensor's own.
    """

    packed: Tensor
    shape: torch.Size
    strides: tuple[int, ...]
    dtype: torch.dtype


def packable(x: Tensor) -> bool:
    """Whether the tensor is one run of memory of a multiple of eight elements (values are not looked at)."""
    dense = x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))
    return dense and x.numel() > 0 and x.numel() % 8 == 0


def pack(x: Tensor) -> Bits:
    """Packs a ``packable`` tensor that holds zeros and ones only."""
    flat = x.detach().as_strided((8, x.numel() // 8), (x.numel() // 8, 1))
    packed = compiling.call(pack_rows, [flat], {})
    assert isinstance(packed, Tensor)
    return Bits(packed, x.shape, x.stride(), x.dtype)


def unpack(bits: Bits) -> Tensor:
    """The tensor again, in its own layout."""
    flat = compiling.call(unpack_rows, [bits.packed], {"dtype": bits.dtype})
    assert isinstance(flat, Tensor)
    return flat.as_strided(bits.shape, bits.strides)


def pack_rows(rows: Tensor) -> Tensor:
    """``[8, M]`` zeros and ones to ``[M]`` bytes."""
    total = rows[0].to(torch.float32)
    for k in range(1, 8):
        total = total + rows[k].to(torch.float32) * float(2**k)
    return total.to(torch.uint8)


def unpack_rows(packed: Tensor, *, dtype: torch.dtype) -> Tensor:
    """``[M]`` bytes to ``[8, M]`` zeros and ones."""
    # By way of float32: Inductor converts bytes to bfloat16 one by one.
    return joined([((packed >> k) & 1).to(torch.float32).to(dtype) for k in range(8)])
