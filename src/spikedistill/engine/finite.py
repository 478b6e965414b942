"""Notices a loss or a gradient that is NaN or infinite, within one step, and names where it came from.

On a CPU the check comes before the optimiser's step. On a GPU that would make the processor wait for the device in each
step; there the verdict travels beside the next step and is read when that one has been queued, so nothing waits and at
most one more step is taken, which no checkpoint will hold. The policy ``skip`` has to know before the step and so does
wait.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spikedistill.engine.processes import own_part

POLICIES = ("stop", "skip")


@dataclass(frozen=True)
class Found:
    """What was not finite.

    Attributes:
        what: for people, such as ``loss term 'task' is nan``.
        epoch, batch: where, from 0.
        inputs: the arguments of that step.
    """

    what: str
    epoch: int
    batch: int
    inputs: tuple[Any, ...]


@dataclass(frozen=True)
class _Verdict:
    """A step's losses and largest gradients on their way to the processor."""

    names: tuple[str, ...]
    values: Tensor
    arrived: torch.cuda.Event | None
    epoch: int
    batch: int
    inputs: tuple[Any, ...]

    def read(self) -> Found | None:
        if self.arrived is not None:
            self.arrived.synchronize()
        if bool(self.values.isfinite().all()):
            return None
        values = self.values.tolist()
        found = [(name, value) for name, value in zip(self.names, values, strict=True) if not math.isfinite(value)]
        return Found(_told(found), self.epoch, self.batch, self.inputs)


class Watch:
    """Looks at every step's losses and gradients.

    Args:
        method: what is trained.
        skip: leave bad steps out (``on_bad_numbers: skip``).
        waits: whether to know at once; False reads a step's verdict during the next one.
        gradients: whether to look at gradients too; with a loss scaler infinite ones are usual, and its own affair.
        known_to_all: has every process see what is not finite in any of them, where each has a part of the gradients.
    """

    def __init__(
        self,
        method: nn.Module,
        *,
        skip: bool,
        waits: bool,
        gradients: bool,
        known_to_all: Callable[[Tensor], Tensor] = torch.clone,
    ) -> None:
        self.method, self.skip, self.waits, self.gradients = method, skip, waits or skip, gradients
        self.pending: _Verdict | None = None
        self.known_to_all = known_to_all
        self.buffers: list[tuple[Tensor, Tensor]] = []
        # Looked up once: walking through all modules and naming each gradient takes a millisecond in every step.
        self.parameters = [(f"the gradient of '{plain(name)}'", p) for name, p in method.named_parameters()]
        # Such as a mask of minus infinities.
        self.meant = {name for name, value in method.named_buffers() if not _finite(value)}

    def before(self) -> None:
        """Before a step: remembers what a bad forward pass would spoil (BatchNorm's statistics)."""
        if self.skip:
            self.buffers = [(buffer, buffer.clone()) for buffer in self.method.buffers()]

    @torch.no_grad()
    def undo(self) -> None:
        """Puts back what the step has changed."""
        for buffer, value in self.buffers:
            buffer.copy_(value)

    @torch.no_grad()
    def after(
        self, losses: dict[str, Tensor], update: bool, epoch: int, batch: int, inputs: tuple[Any, ...]
    ) -> Found | None:
        """After a backward pass, before the optimiser's step.

        Args:
            losses: the named terms.
            update: whether the optimiser's step follows, so that the gradients are whole.
            epoch, batch: which step.
            inputs: its arguments, kept until the verdict is read.

        Returns:
            What was not finite in this step (where it waits) or in the one before it.
        """
        names = [f"loss term '{name}'" for name in losses]
        values = torch.stack([loss.detach().float() for loss in losses.values()])
        looks = update and self.gradients
        owned = [(name, own_part(p.grad)) for name, p in self.parameters if p.grad is not None] if looks else []
        if owned:
            names += [name for name, _ in owned]
            values = torch.cat([values, largest([grad for _, grad in owned])])
        verdict = self._sent(tuple(names), self.known_to_all(values), epoch, batch, inputs)
        if self.waits:
            return verdict.read()
        before, self.pending = self.pending, verdict
        return before.read() if before is not None else None

    def settle(self) -> Found | None:
        """Reads a verdict that is still on its way: before a checkpoint and at an epoch's end."""
        pending, self.pending = self.pending, None
        return pending.read() if pending is not None else None

    @torch.no_grad()
    def state(self, optimizer: Any, epoch: int, batch: int) -> Found | None:
        """Before a checkpoint: what of the weights, buffers and the optimiser's state is not finite.

        A finite gradient can make them so, by a learning rate or a square that is too large.
        """
        names = {parameter: name for name, parameter in self.method.named_parameters()}
        held = [(f"'{plain(name)}'", value) for value, name in names.items()]
        held += [(f"'{plain(name)}'", b) for name, b in self.method.named_buffers() if name not in self.meant]
        for parameter, state in optimizer.state.items():
            of = plain(names.get(parameter, "a parameter"))
            held += [(f"the optimiser's {key} of '{of}'", value) for key, value in state.items()]
        for name, value in held:
            if isinstance(value, Tensor) and not _finite(own_part(value)):
                return Found(f"{name} is no longer finite", epoch, batch, ())
        return None

    def _sent(
        self, names: tuple[str, ...], values: Tensor, epoch: int, batch: int, inputs: tuple[Any, ...]
    ) -> _Verdict:
        if not values.is_cuda or self.waits:
            return _Verdict(names, values.cpu() if self.waits else values.clone(), None, epoch, batch, inputs)
        copy = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        copy.copy_(values, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        return _Verdict(names, copy, arrived, epoch, batch, inputs)


def largest(tensors: list[Tensor]) -> Tensor:
    """The largest absolute value of each: unlike a sum of squares it is infinite only where an element is."""
    held = [x if x.numel() else x.new_zeros(1) for x in tensors]
    if held[0].device.type == "cpu":  # where torch's maximum norm takes fifteen times as long as this
        least, most = zip(*(torch.aminmax(x) for x in held), strict=True)
        return torch.maximum(_stacked(most), -_stacked(least))
    return _stacked(torch._foreach_norm(held, math.inf))  # pyright: ignore[reportPrivateImportUsage]


def _stacked(numbers: Iterable[Tensor]) -> Tensor:
    return torch.stack([x.float() for x in numbers])


def _finite(value: Tensor) -> bool:
    return not value.is_floating_point() or bool(value.isfinite().all())


def plain(name: str) -> str:
    """A parameter's or module's name without the method's own prefix: what it is called in the student."""
    return name.removeprefix("student.")


def _told(found: list[tuple[str, float]]) -> str:
    """The first loss terms, or else the gradient where the backward pass met it first: the last layer's."""
    terms = [entry for entry in found if entry[0].startswith("loss")]
    shown = terms or found[-1:]
    return ", ".join(f"{name} is {value}" for name, value in shown)
