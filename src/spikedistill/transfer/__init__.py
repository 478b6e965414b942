"""Initialisation of a student from a teacher; each transfer returns a report of every tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import nn

from spikedistill.transfer.copy import copy_weights
from spikedistill.transfer.report import Entry
from spikedistill.transfer.resample import plan_resample, resample_weights


class Settings(Protocol):
    """The part of a recipe's ``init`` section that transfers read."""

    @property
    def shortcuts(self) -> bool: ...


def _random(teacher: nn.Module, student: nn.Module, settings: Settings) -> None:
    return None


def _copy(teacher: nn.Module, student: nn.Module, settings: Settings) -> list[Entry]:
    return copy_weights(teacher, student)


def _resample(teacher: nn.Module, student: nn.Module, settings: Settings) -> list[Entry]:
    return resample_weights(teacher, student, settings.shortcuts)


TRANSFERS: dict[str, Callable[[nn.Module, nn.Module, Settings], list[Entry] | None]] = {
    "random": _random,
    "copy": _copy,
    "resample": _resample,
}

__all__ = ["TRANSFERS", "Entry", "copy_weights", "plan_resample", "resample_weights"]
