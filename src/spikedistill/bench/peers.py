"""The same neuron in other people's libraries: each a module ``[T, B, ...]`` -> spikes of the same shape.

    u[t] = decay * u[t-1] * (1 - s[t-1]) + x[t], decay 0.5, threshold 1, hard reset

SpikingJelly's answers equal ours bit for bit. snnTorch fires on > and detaches the reset; its surrogate is the arctan,
as its triangular one has no gradient of that shape. Norse scales its input by 1 - decay, which is left to it here.
"""

# The peers live in an environment of their own (make bench).
# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import torch
from torch import Tensor, nn

DECAY = 0.5


def _spikingjelly(device: torch.device) -> nn.Module:
    from spikingjelly.activation_based import neuron, surrogate

    # Since version 2 it chooses the fastest of its implementations for the device by itself.
    node = neuron.LIFNode(
        tau=1 / (1 - DECAY),
        decay_input=False,
        v_reset=0.0,
        surrogate_function=surrogate.PiecewiseQuadratic(),
        step_mode="m",
    )
    return _Reset(node)


class _Reset(nn.Module):
    """A SpikingJelly neuron that starts from rest at every call."""

    def __init__(self, node: nn.Module) -> None:
        super().__init__()
        self.node = node

    def forward(self, x: Tensor) -> Tensor:
        self.node.reset()  # type: ignore[operator]
        return self.node(x)


class _SnnTorch(nn.Module):
    """snnTorch's Leaky over a sequence."""

    def __init__(self) -> None:
        import snntorch
        from snntorch import surrogate

        super().__init__()
        gradient = surrogate.atan(alpha=2.0)
        self.cell = snntorch.Leaky(beta=DECAY, reset_mechanism="zero", spike_grad=gradient)

    def forward(self, x: Tensor) -> Tensor:
        membrane = torch.zeros_like(x[0])
        spikes = []
        for current in x:
            spike, membrane = self.cell(current, membrane)
            spikes.append(spike)
        return torch.stack(spikes)


class _Norse(nn.Module):
    """Norse's LIFBox over a sequence."""

    def __init__(self, device: torch.device) -> None:
        from norse.torch.functional.lif_box import LIFBoxParameters
        from norse.torch.module.lif_box import LIFBoxCell

        super().__init__()
        step = 0.001
        rate, rest, threshold = (torch.tensor(value, device=device) for value in ((1 - DECAY) / step, 0.0, 1.0))
        parameters = LIFBoxParameters(tau_mem_inv=rate, v_leak=rest, v_th=threshold, v_reset=rest)
        self.cell = LIFBoxCell(parameters, dt=step)

    def forward(self, x: Tensor) -> Tensor:
        state, spikes = None, []
        for current in x:
            spike, state = self.cell(current, state)
            spikes.append(spike)
        return torch.stack(spikes)


PEERS: dict[str, Callable[[torch.device], nn.Module]] = {
    "SpikingJelly": _spikingjelly,
    "snnTorch": lambda device: _SnnTorch(),
    "Norse": _Norse,
}


def installed() -> dict[str, str]:
    """The peers that can be imported here, with their versions."""
    found = {}
    for name in PEERS:
        if find_spec(name.lower()) is None:
            continue
        try:
            found[name] = version(name.lower())
        except PackageNotFoundError:
            found[name] = "unknown"
    return found
