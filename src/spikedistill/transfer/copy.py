"""Initialisation from a teacher of the same architecture: every tensor is copied (SAKD appendix A.2)."""

from __future__ import annotations

import torch
from torch import nn

from spikedistill.errors import UserError
from spikedistill.transfer.report import Entry


@torch.no_grad()
def copy_weights(teacher: nn.Module, student: nn.Module) -> list[Entry]:
    """Copies every parameter and buffer of ``teacher`` into ``student``; what the student alone has is left.

    Returns:
        One entry per tensor of the student.

    Raises:
        UserError: a tensor of another shape, or one of the teacher's that the student lacks.
    """
    theirs, ours = _tensors(teacher), _tensors(student)
    for name, value in theirs.items():
        if name not in ours or ours[name].shape != value.shape:
            there = f"{list(ours[name].shape)} there" if name in ours else "no such tensor there"
            raise UserError(
                f"init.kind=copy needs teacher and student of one architecture: '{name}' is {list(value.shape)} in the "
                f"teacher, {there}; init.kind=resample takes a larger teacher"
            )
    report = []
    for name, value in ours.items():
        shape = tuple(value.shape)
        if name in theirs:
            value.copy_(theirs[name])
            report.append(Entry(name, "copied", shape, name, shape))
        else:
            report.append(Entry(name, "left", shape, reason="the teacher has no such tensor (a neuron's parameter)"))
    return report


def _tensors(network: nn.Module) -> dict[str, torch.Tensor]:
    """A state dict without what modules keep beside tensors (``get_extra_state``)."""
    return {name: value for name, value in network.state_dict().items() if isinstance(value, torch.Tensor)}
