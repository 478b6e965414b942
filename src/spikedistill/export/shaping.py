"""Flattening, slices, zero padding and concatenation in NIR's nodes.

NIR can only flatten. A slice or zero padding is a convolution of zeros and ones (``selection``), a concatenation the
sum of padded parts.
"""

from __future__ import annotations

import numpy as np

from spikedistill.export.lowering import Lowering
from spikedistill.export.record import Step
from spikedistill.export.selection import padded, sliced
from spikedistill.export.sheet import Inexpressible, Value


def reshaped(low: Lowering, step: Step) -> Value:
    """Reshapes, of which only those that flatten an image are said."""
    value, shape = low.value(step.args[0]), step.shape
    if shape == value.shape:
        return value
    if len(shape) != 1:
        pooling = len(value.shape) == 2 and shape == (value.shape[0], 1, value.shape[1])  # torch's, of a sequence
        hint = "; it has poolings of pictures, none of sequences" if pooling else ""
        raise Inexpressible(f"NIR only flattens, and this makes {list(shape)} of {list(value.shape)}{hint}")
    return flattened(low, value, step.label if step.path else "flatten")


def flattened(low: Lowering, value: Value, name: str) -> Value:
    """A value as one row of numbers."""
    size = int(np.prod(value.shape))
    # Counted from the end it is the same to readers whose shapes have a batch in front (snnTorch, Norse) and to others.
    fields = {"input_type": value.shape, "start_dim": -len(value.shape), "end_dim": -1}
    flat = low.sheet.apply(name, "Flatten", fields, value, (size,))
    return Value(flat.shape, flat.terms, value.binary)


def unchanged(low: Lowering, step: Step) -> Value:
    """What only copies."""
    value = low.value(step.args[0])
    if value.shape != step.shape:
        raise Inexpressible("it repeats what it takes")
    wanted = step.kwargs.get("dtype")
    if wanted is not None and not wanted.is_floating_point:
        raise Inexpressible("it rounds to whole numbers")
    return value


def zero_padded(low: Lowering, step: Step) -> Value:
    """``pad`` with zeros."""
    x, amounts, constant = step.arguments(..., ..., 0)
    value = low.value(x)
    if constant != 0:
        raise Inexpressible("it pads with another number than zero")
    for i, (before, after) in enumerate(zip(amounts[::2], amounts[1::2], strict=True)):
        dim = len(value.shape) - 1 - i
        if dim < 0:
            raise Inexpressible("it pads the batch")
        value = low.sheet.select(value, dim, padded(value.shape[dim], before, after))
    return value


def part(low: Lowering, step: Step) -> Value:
    """A slice."""
    x, dim, start, end, stride = step.arguments(..., 0, None, None, 1)
    value, dim = low.value(x), _dim(low.value(x), dim)
    return low.sheet.select(value, dim, sliced(value.shape[dim], start, end, stride))


def parts(low: Lowering, step: Step) -> list[Value]:
    """``split`` and ``chunk``."""
    x, sizes, dim = step.arguments(..., ..., 0)
    value, dim = low.value(x), _dim(low.value(x), dim)
    if isinstance(sizes, int):
        sizes = [sizes] * -(-value.shape[dim] // sizes)
    ends = np.cumsum(sizes)
    return [
        low.sheet.select(value, dim, sliced(value.shape[dim], int(end - size), int(end), 1))
        for size, end in zip(sizes, ends, strict=True)
    ]


def concatenated(low: Lowering, step: Step) -> Value:
    """``cat``."""
    tensors, dim = step.arguments(..., 0)
    values = [low.value(tensor) for tensor in tensors]
    dim, before = _dim(values[0], dim), 0
    total = sum(value.shape[dim] for value in values)
    placed = []
    for value in values:
        size = value.shape[dim]
        placed.append(low.sheet.select(value, dim, padded(size, before, total - before - size)))
        before += size
    heights = {scale for value in values for _, scale in value.terms}
    # Each place has spikes of one part only, so together they are spikes still.
    return low.sheet.sum(placed, binary=len(heights) == 1 and all(value.binary for value in values))


def _dim(value: Value, dim: int) -> int:
    """Of one image, from that of the batch."""
    if dim % (len(value.shape) + 1) == 0:
        raise Inexpressible("it takes the batch apart")
    return dim % (len(value.shape) + 1) - 1
