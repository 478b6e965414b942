"""Optimisers and learning-rate schedules: settings, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from spikedistill.engine.processes import own_part
from spikedistill.errors import UserError, unknown
from spikedistill.ranges import check_ranges


@dataclass(frozen=True)
class OptimizerSettings:
    """The recipe's ``optimizer`` section.

    Attributes:
        name: ``sgd``, ``adam`` or ``adamw``.
        lr: peak learning rate.
        momentum, nesterov: of SGD.
        betas: of Adam and AdamW.
        weight_decay: L2 penalty (SGD, Adam) or decoupled decay (AdamW).
        decay_norm: whether BatchNorm weights, biases and neuron parameters are decayed too.

    A module with a true attribute ``undecayed`` has a decay of its own, and none of its parameters is decayed here.

    Raises:
        UserError: an unknown name, or a number out of its range.
    """

    name: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 5e-4
    decay_norm: bool = True
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        # Here and not where it is built: a teacher may be trained for hours before the student's is.
        if self.name not in OPTIMIZERS:
            raise unknown("optimizer", self.name, list(OPTIMIZERS))
        ranges = {"above 0": ["lr"], "at least 0": ["weight_decay"], "at least 0 and below 1": ["momentum"]}
        check_ranges(self, ranges, "optimizer")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"optimizer.betas must be two numbers of at least 0 and below 1, not {list(self.betas)}")
        if self.name == "sgd" and self.nesterov and self.momentum == 0:
            raise UserError("optimizer.nesterov needs a momentum; set optimizer.momentum=0.9, or leave it out")


@dataclass(frozen=True)
class ScheduleSettings:
    """The recipe's ``schedule`` section.

    Attributes:
        name: ``constant``, ``cosine``, ``multistep`` or ``onecycle``.
        warmup: epochs of linear warm-up from zero (before the schedule proper; for ``onecycle`` its rising part:
            30 % of the run where 0). A run that is no longer than its warm-up rises throughout.
        milestones: epochs at which ``multistep`` multiplies the rate by ``gamma``.
        gamma: that factor.
        min_lr: where ``cosine`` and ``onecycle`` end.

    Raises:
        UserError: an unknown name, or a number out of its range.
    """

    name: str = "cosine"
    warmup: float = 0.0
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    min_lr: float = 0.0
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if self.name not in SCHEDULES:
            raise unknown("schedule", self.name, list(SCHEDULES))
        check_ranges(self, {"at least 0": ["warmup", "gamma", "min_lr"]}, "schedule")


Groups = Iterable[dict[str, Any]]


def _sgd(groups: Groups, s: OptimizerSettings, fused: bool | None) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=s.lr, momentum=s.momentum, nesterov=s.nesterov, fused=fused)


def _adam(groups: Groups, s: OptimizerSettings, fused: bool | None) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, lr=s.lr, betas=s.betas, fused=fused)


def _adamw(groups: Groups, s: OptimizerSettings, fused: bool | None) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=s.lr, betas=s.betas, fused=fused)


OPTIMIZERS: dict[str, Callable[[Groups, OptimizerSettings, bool | None], torch.optim.Optimizer]] = {
    "sgd": _sgd,
    "adam": _adam,
    "adamw": _adamw,
}


def make_optimizer(module: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Builds the optimiser over every trainable parameter of ``module`` (the student and a method's extras)."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    chosen = _undecayed(module, settings)
    groups = [
        {"params": [p for p in parameters if id(p) not in chosen], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if id(p) in chosen], "weight_decay": 0.0},
    ]
    # A CPU reads and writes memory once instead of a dozen times (8 times faster); GPUs have their own default.
    fused = all(p.device.type == "cpu" and own_part(p) is p for p in parameters) or None
    return OPTIMIZERS[settings.name]([g for g in groups if g["params"]], settings, fused)


def _undecayed(module: nn.Module, settings: OptimizerSettings) -> set[int]:
    """What weight decay leaves alone: the parameters of modules that say ``undecayed``, and, if asked, all vectors."""
    parts = [part for part in module.modules() if getattr(part, "undecayed", False)]
    chosen = {id(parameter) for part in parts for parameter in part.parameters()}
    if not settings.decay_norm:
        chosen |= {id(parameter) for parameter in module.parameters() if parameter.dim() < 2}
    return chosen


def _constant(epoch: float, epochs: float, s: ScheduleSettings) -> float:
    return 1.0


def _cosine(epoch: float, epochs: float, s: ScheduleSettings) -> float:
    share = (epoch - s.warmup) / max(epochs - s.warmup, 1e-9)
    return 0.5 * (1.0 + math.cos(math.pi * min(max(share, 0.0), 1.0)))


def _multistep(epoch: float, epochs: float, s: ScheduleSettings) -> float:
    return s.gamma ** sum(epoch >= m for m in s.milestones)


def _onecycle(epoch: float, epochs: float, s: ScheduleSettings) -> float:
    # Linear up over the warm-up, or over 30 % of the run where none is given; linear down to the end.
    rise = s.warmup or 0.3 * epochs
    if rise >= epochs:  # there is no way down, and the caller's ramp is the way up
        return 1.0
    return min(epoch / rise, max(0.0, (epochs - epoch) / max(epochs - rise, 1e-9)))


SCHEDULES: dict[str, Callable[[float, float, ScheduleSettings], float]] = {
    "constant": _constant,
    "cosine": _cosine,
    "multistep": _multistep,
    "onecycle": _onecycle,
}


def learning_rate(epoch: float, epochs: int, peak: float, s: ScheduleSettings) -> float:
    """The learning rate at a (fractional) epoch of a run of ``epochs``."""
    ramp = epoch / s.warmup if epoch < s.warmup else 1.0
    return ramp * (s.min_lr + (peak - s.min_lr) * SCHEDULES[s.name](max(epoch, s.warmup), float(epochs), s))
