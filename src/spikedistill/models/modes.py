"""Training and evaluation mode, module by module: a network may hold some in the other, like a frozen BatchNorm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


def modes_of(network: nn.Module) -> dict[nn.Module, bool]:
    """Which modules are in training mode."""
    return {module: module.training for module in network.modules()}


def set_modes(modes: dict[nn.Module, bool]) -> None:
    """Puts modules back into the modes that ``modes_of`` found."""
    for module, training in modes.items():
        module.training = training


@contextmanager
def in_eval_mode(network: nn.Module) -> Iterator[None]:
    """Evaluation mode inside a ``with`` block, each module's own mode again afterwards."""
    modes = modes_of(network)
    network.eval()
    try:
        yield
    finally:
        set_modes(modes)
