"""The network beside its trace: whether it can be traced, a copy of it, and whether the trace does what it does."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from spikedistill.errors import UserError, first_line
from spikedistill.models.folded import TwinSpike
from spikedistill.models.modes import modes_of, set_modes
from spikedistill.models.probe import close, refusal
from spikedistill.spiking import LIF


def check_traceable(network: nn.Module, example: Tensor) -> None:
    """Refuses what need not be traced to be refused.

    Raises:
        UserError: what is in the way, and where.
    """
    for path, module in network.named_modules():
        where = f"'{path}' ({type(module).__name__})" if path else type(module).__name__
        # By name: torch's compiler takes seconds to import.
        if type(module).__name__ == "OptimizedModule":
            raise refusal(where, "it was compiled by torch.compile; use the module that it was made from, ._orig_mod")
        if isinstance(module, torch.jit.ScriptModule):
            raise refusal(where, "TorchScript cannot be traced; use the module that it was made from")
        if isinstance(module, nn.RNNBase | nn.RNNCellBase):
            raise refusal(where, "it is recurrent: its state would have to go on from timestep to timestep")
        if isinstance(module, LIF | TwinSpike):
            raise refusal(where, "it is a spiking neuron already")
        if isinstance(module, nn.modules.lazy.LazyModuleMixin) and module.has_uninitialized_params():  # pyright: ignore
            raise refusal(where, "its weights do not exist yet; call the network once first")
    if type(network).get_extra_state is not nn.Module.get_extra_state:
        raise refusal(
            type(network).__name__,
            "its state dict holds more than tensors (get_extra_state), which its twin could not keep; keep that "
            "outside of the network",
        )
    if not isinstance(example, Tensor) or example.dim() < 2 or not len(example):
        raise UserError("example_input must be a batch of images, a tensor [B, ...]")


def copied(network: nn.Module, to_be: str = "made spiking") -> nn.Module:
    """A copy of a network.

    Args:
        network: any.
        to_be: what a copy is needed for, for the message.

    Raises:
        UserError: it cannot be copied; the sentence names the attribute that is to blame.
    """
    try:
        return copy.deepcopy(network)
    except Exception as error:
        reason = first_line(error)
        raise _uncopied(network, f"it cannot be copied: {reason}", to_be) from None


def _uncopied(network: nn.Module, reason: str, to_be: str) -> UserError:
    for path, module in network.named_modules():
        own = {name: value for name, value in vars(module).items() if name not in ("_modules", "_parameters")}
        for name, value in (own | module._parameters).items():
            try:
                copy.deepcopy(value)
            except Exception:
                remedy = "keep it outside of the network"
                if isinstance(value, torch.jit.ScriptFunction):
                    remedy = "keep the Python function that it was made from, or call it in forward by its own name"
                return refusal(f"'{path}.{name}'".replace("'.", "'"), f"{reason}; {remedy}", to_be)
    return refusal(type(network).__name__, reason, to_be)


def held_modes(network: nn.Module, training: bool) -> tuple[str, ...]:
    """The modules that stay in the other mode when the network is put into one (BatchNorm that a ``train`` freezes)."""
    network.train(training)
    return tuple(path for path, module in network.named_modules() if module.training != training)


def _seed(rows: Tensor) -> None:
    """Seeds the generators that a caller has forked; ``torch.manual_seed`` would seed every GPU."""
    torch.default_generator.manual_seed(0)
    if rows.is_cuda:
        with torch.cuda.device(rows.device):
            torch.cuda.manual_seed(0)


@torch.no_grad()
def compare(network: nn.Module, ann: nn.Module, rows: Tensor) -> None:
    """Refuses a network that the trace does not reproduce.

    Args:
        network: in evaluation mode; it is changed by this.
        ann: what was made of its trace; it stays as it is.
        rows: images ``[4, ...]``.

    Raises:
        UserError: they answer differently.
    """
    modes = modes_of(ann)
    before = {name: value.clone() for name, value in ann.named_buffers()}
    # Copies: a network may begin with something in place.
    if not close(ann.eval()(rows.clone()), network(rows.clone()), 1e-4):
        raise refusal(
            type(network).__name__,
            "its trace answers differently: a tensor is changed in place that something else still looks at, or what "
            "it does depends on more than the images",
        )
    answers: list[Any] = []
    for each in (network.train(), ann.train()):
        _seed(rows)
        answers.append(each(rows.clone()))
    if not isinstance(answers[0], Tensor) or not close(answers[1], answers[0], 1e-3):
        raise refusal(
            type(network).__name__,
            "in training mode its trace answers differently: it draws random numbers outside torch, or changes a "
            "tensor in place that something else still looks at",
        )
    for name, value in ann.named_buffers():
        value.copy_(before[name])
    set_modes(modes)
