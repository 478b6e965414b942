"""What a caller's slips get in Python: one sentence that says what was given and what would do, never a traceback."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from harm import refused
from torch import nn

import spikedistill as sd


class Mine(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.fc(x.flatten(1)))


X, LABELS = torch.rand(2, 1, 2, 2), torch.tensor([0, 1])
LENET = {"num_classes": 10, "in_channels": 1, "spiking": True}
THE_CLASS = "torch.nn.Module, not the class Mine; make one of it: Mine(...)"
NOT_CALLED = "'LIF' itself; call it: sd.LIF()"
A_NAME = "torch.nn.Module, not 'runs/x'; a run folder's is sd.load('runs/x')"

SLIPS: dict[str, tuple[Callable[[], object], str]] = {
    "create_model, a neuron's name": (lambda: sd.create_model("lenet5", neuron="LIF", **LENET), "not 'LIF'"),  # pyright: ignore
    "create_model, a neuron's class": (lambda: sd.create_model("lenet5", neuron=sd.LIF, **LENET), NOT_CALLED),  # pyright: ignore
    "spikify, a class": (lambda: sd.spikify(Mine, example_input=X), THE_CLASS),  # pyright: ignore
    "spikify, a name": (lambda: sd.spikify("runs/x", example_input=X), A_NAME),  # pyright: ignore
    "adopt, a class": (lambda: sd.adopt(Mine, timesteps=2), THE_CLASS),  # pyright: ignore
    "evaluate, a class": (lambda: sd.evaluate(Mine, (X, LABELS)), THE_CLASS),  # pyright: ignore
    "energy, a name": (lambda: sd.energy("runs/x", X), A_NAME),  # pyright: ignore
    "energy, a name as data": (lambda: sd.energy(Mine(), "digits"), "not 'digits'; a run's are measured by"),
    "energy, no data": (lambda: sd.energy(Mine(), None), "a tensor, a Dataset or a loader, not None"),
    "export_nir, a class": (lambda: sd.export_nir(Mine, "x.nir", X), THE_CLASS),  # pyright: ignore
    "export_onnx, a shape": (lambda: sd.export_onnx(Mine(), "x.onnx", (1, 2, 2)), "not (1, 2, 2)"),  # pyright: ignore
    "LIF, a text": (lambda: sd.LIF(threshold="1"), "neuron threshold must be a finite number, not '1'"),  # pyright: ignore
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_is_named(slip: str) -> None:
    act, said = SLIPS[slip]
    assert said in refused(act)
