"""Spiking networks written in SpikingJelly or snnTorch as students: their neurons keep their own dynamics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from spikedistill.errors import UserError
from spikedistill.models.network import checked_network, checked_timesteps
from spikedistill.spiking.time import direct_encode, readout

# How each library's stateful modules go back to rest. Asked of the modules, so that neither library is imported.
RESETS = ("reset", "reset_mem")


class Adopted(nn.Module):
    """A spiking network of another library behind this project's interface.

    Every call starts from rest and leaves nothing behind: ``adopted(x)`` is ``[B, K]``, the mean over T, and
    ``adopted(x, per_step=True)`` is ``[T, B, K]``, for images ``[B, C, H, W]`` (the same at each step) or a sequence
    ``[T, B, C, H, W]``. State-dict keys are the network's own.

    Attributes:
        network: the network that was adopted.
        timesteps: T, which may be set at any time.
    """

    def __init__(self, network: nn.Module, timesteps: int) -> None:
        super().__init__()
        self.network = network
        self._timesteps = checked_timesteps(timesteps)
        modes = {module.step_mode for module in _stateful(network) if hasattr(module, "step_mode")}
        self._sequences = modes == {"m"}  # SpikingJelly's multi-step mode: [T, B, ...] in, [T, B, ...] out
        self.register_state_dict_post_hook(_own_keys)
        self.register_load_state_dict_pre_hook(_inner_keys)

    @property
    def name(self) -> str:
        """What to call it: by the class of the network."""
        return f"{type(self.network).__name__} (adopted)"

    @property
    def timesteps(self) -> int:
        """T."""
        return self._timesteps

    @timesteps.setter
    def timesteps(self, value: int) -> None:
        self._timesteps = checked_timesteps(value)

    def forward(self, x: Tensor, per_step: bool = False) -> Tensor:
        sequence = x if x.dim() == 5 else direct_encode(x, self._timesteps)
        self._rest()
        try:
            if self._sequences:
                logits = _logits(self.network(sequence))
            else:
                logits = torch.stack([_logits(self.network(step)) for step in sequence])
        finally:
            self._rest()
        if logits.dim() != 3 or logits.shape[:2] != sequence.shape[:2]:
            raise UserError(
                f"{type(self.network).__name__} answers {list(logits.shape)} to {sequence.shape[0]} steps of "
                f"{sequence.shape[1]} images, not [T, B, K]"
            )
        return logits if per_step else readout(logits)

    def _rest(self) -> None:
        for module in _stateful(self.network):
            _reset_of(module)()


def adopt(network: nn.Module, timesteps: int) -> Adopted:
    """Makes a spiking network written in SpikingJelly or snnTorch a student.

    Args:
        network: a module whose neurons keep their state between calls. SpikingJelly: all of them in step mode ``m``
            (the network then takes ``[T, B, C, H, W]``) or all in ``s``. snnTorch: ``init_hidden=True``; the network
            takes one step ``[B, C, H, W]`` and answers spikes or membrane potentials ``[B, K]``, the first of a tuple.
        timesteps: T.

    Raises:
        UserError: nothing in it keeps a state that could be reset, or its modules disagree on the step mode.
    """
    stateful = _stateful(checked_network(network))
    if not stateful:
        raise UserError(
            f"{type(network).__name__} has no module with a state to reset ({' or '.join(RESETS)}); an ANN becomes "
            "spiking with sd.spikify, and snnTorch's neurons need init_hidden=True"
        )
    modes = {str(module.step_mode) for module in stateful if hasattr(module, "step_mode")}
    if len(modes) > 1:
        raise UserError(
            f"the neurons of {type(network).__name__} are in step modes {' and '.join(sorted(modes))}; set one for "
            "all: spikingjelly.activation_based.functional.set_step_mode(network, 'm')"
        )
    return Adopted(network, timesteps)


# Hooks, as they also hold where the network is a part of another module: a method, whose state a checkpoint has.
def _own_keys(_module: nn.Module, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
    inner = f"{prefix}network."
    own = {key: state.pop(key) for key in list(state) if key.startswith(inner)}
    state.update({prefix + key.removeprefix(inner): value for key, value in own.items()})


def _inner_keys(_module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    own = {key: state.pop(key) for key in list(state) if key.startswith(prefix)}
    state.update({f"{prefix}network.{key.removeprefix(prefix)}": value for key, value in own.items()})


def _stateful(network: nn.Module) -> list[nn.Module]:
    return [module for module in network.modules() if any(callable(getattr(module, name, None)) for name in RESETS)]


def _reset_of(module: nn.Module) -> Callable[[], object]:
    return next(getattr(module, name) for name in RESETS if callable(getattr(module, name, None)))


def _logits(answer: Any) -> Tensor:
    """The tensor, or the first of several (snnTorch answers spikes and potentials)."""
    return answer[0] if isinstance(answer, tuple | list) else answer
