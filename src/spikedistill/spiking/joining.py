"""The T steps of a sequence as one tensor ``[T, ...]``, each written where it belongs by the loop that makes it.

``torch.stack`` means the same, and on a CPU Inductor compiles it so. Elsewhere it makes one more loop of up to eight
steps, over all T * N elements, which has to ask of each one what step it is of (``pointwise_cat``, torch 2.11). That
loop does not run together with those over N that make the membrane potentials: they go through memory in float32, two
or three times what a kernel has to read and write. An operation of our own says which of the two ways it shall be.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

_LIBRARY = torch.library.Library("spikedistill", "FRAGMENT")
_LIBRARY.define("end_to_end(Tensor[] steps) -> Tensor")
_LIBRARY.impl("end_to_end", lambda steps: torch.cat(steps), "CompositeExplicitAutograd")


def joined(steps: Sequence[Tensor]) -> Tensor:
    """T tensors of one shape and dtype as ``[T, ...]``; for kernels, that is without a gradient of its own."""
    if len(steps) == 1:
        return steps[0].unsqueeze(0)
    # End to end and not stacked: Inductor's loops then are over the steps' own shape, and run together with theirs.
    whole = torch.ops.spikedistill.end_to_end(list(steps))
    return whole.view(len(steps), *steps[0].shape)


def stacked_on(device: torch.device) -> bool:
    """Whether Inductor's own way of stacking is the one wanted."""
    return device.type == "cpu"


@cache
def teach_inductor() -> None:
    """Says to Inductor how ``joined`` is compiled; not at import, as Inductor takes a second to load."""
    from torch._inductor import ir, lowering

    register: Any = lowering.register_lowering

    @register(torch.ops.spikedistill.end_to_end, type_promotion_kind=None)
    def lower(steps: list[Any]) -> Any:
        if stacked_on(steps[0].get_device()):
            return lowering.lowerings[torch.ops.aten.cat.default](steps)
        return ir.TensorBox(ir.ConcatKernel.create(steps, 0))
