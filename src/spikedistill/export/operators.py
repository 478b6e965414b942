"""Torch's operators by name, each with the function that says it in NIR's nodes.

Such a function takes the lowering and the step, and returns what the step has become (several values where torch
returns several tensors); it raises ``Inexpressible`` with the reason where NIR has no nodes for it.
"""

from __future__ import annotations

from spikedistill.errors import UserError
from spikedistill.export import layers, pooling, shaping
from spikedistill.export.lowering import Lowering, Operator
from spikedistill.export.record import Record
from spikedistill.export.sheet import Inexpressible, Sheet

_NAMES: list[tuple[Operator, str]] = [
    (layers.convolved, "convolution.default"),
    (layers.addmm, "addmm.default"),
    (layers.mm, "mm.default"),
    (layers.batch_norm, "native_batch_norm.default _native_batch_norm_legit_no_training.default"),
    (layers.add, "add.Tensor sub.Tensor"),
    (layers.multiply, "mul.Tensor div.Tensor"),
    (layers.negative, "neg.default"),
    (pooling.average, "avg_pool2d.default"),
    (pooling.adaptive, "_adaptive_avg_pool2d.default adaptive_max_pool2d.default"),
    (pooling.mean, "mean.dim sum.dim_IntList"),
    (pooling.maximum, "max_pool2d_with_indices.default"),
    (shaping.reshaped, "view.default _unsafe_view.default squeeze.dim squeeze.dims squeeze.default unsqueeze.default"),
    (shaping.unchanged, "alias.default clone.default detach.default _to_copy.default expand.default"),
    (shaping.zero_padded, "constant_pad_nd.default"),
    (shaping.part, "slice.Tensor"),
    (shaping.parts, "split.Tensor split_with_sizes.default"),
    (shaping.concatenated, "cat.default"),
]

OPERATORS: dict[str, Operator] = {name: operator for operator, names in _NAMES for name in names.split()}


def lower(record: Record, dt: float) -> Sheet:
    """The graph of one timestep.

    Args:
        record: of the network.
        dt: seconds a timestep.

    Raises:
        UserError: a step that NIR cannot express, with its path and the reason.
    """
    lowering = Lowering(record, dt, OPERATORS)
    for step in lowering.steps:
        try:
            lowering.take(step)
        except Inexpressible as error:
            raise UserError(f"NIR cannot hold the network at {step.where}: {error}") from None
    return lowering.finish()
