"""Networks of SpikingJelly and snnTorch as students.

The libraries themselves need another build of torch; where they are not installed, stand-ins follow their protocol: a
state kept between calls, ``reset()`` and ``step_mode``, or ``reset_mem()`` and tuples.
"""

import copy

import pytest
import torch
from torch import Tensor, nn

import spikedistill as sd
from spikedistill.errors import UserError
from spikedistill.methods.features import points_of
from spikedistill.models.adopt import Adopted
from spikedistill.spiking import LIF


class Jelly(nn.Module):
    """A stateful LIF as SpikingJelly's: ``step_mode`` s or m, ``reset()``."""

    def __init__(self, step_mode: str) -> None:
        super().__init__()
        self.step_mode, self.v, self.lif = step_mode, 0.0, LIF(decay=0.5)

    def reset(self) -> None:
        self.v = 0.0

    def step(self, x: Tensor) -> Tensor:
        h = 0.5 * self.v + x
        s = LIF(decay=0.5)(h[None])[0]  # one step from rest: the spike of h, with the surrogate's gradient
        self.v = h * (1 - s)
        return s

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.step(current) for current in x]) if self.step_mode == "m" else self.step(x)


class Leaky(Jelly):
    """The same as snnTorch's: ``reset_mem()``, spikes and potential."""

    def __init__(self) -> None:
        super().__init__("s")
        del self.step_mode

    reset = None  # type: ignore[assignment]

    def reset_mem(self) -> None:
        self.v = 0.0

    def forward(self, x: Tensor) -> Tensor:
        return self.step(x)


class PerStep(nn.Module):
    """A plain layer over ``[T, B, ...]``."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def layers() -> list[nn.Module]:
    torch.manual_seed(0)
    return [nn.Conv2d(1, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 64, 10)]


class Answering(nn.Sequential):
    """A network that answers spikes and potentials, as snnTorch's last layer does."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        out = super().forward(x)
        return out, out


def networks() -> dict[str, nn.Module]:
    conv, flatten, head = layers()
    return {
        "multi-step": nn.Sequential(PerStep(conv), Jelly("m"), PerStep(flatten), PerStep(head)),
        "single-step": nn.Sequential(conv, Jelly("s"), flatten, head),
        "snntorch": Answering(conv, Leaky(), flatten, head),
    }


@pytest.mark.parametrize("kind", networks())
def test_an_adopted_network_computes_what_our_twin_does(kind):
    conv, flatten, head = layers()
    twin = sd.spikify(
        nn.Sequential(conv, nn.ReLU(), flatten, head),
        timesteps=4,
        neuron=LIF(decay=0.5),
        example_input=torch.zeros(1, 1, 8, 8),
    ).eval()
    adopted = sd.adopt(networks()[kind], 4).eval()
    x = torch.randn(3, 1, 8, 8) * 2
    for steps in (4, 2):
        adopted.timesteps = twin.timesteps = steps
        torch.testing.assert_close(adopted(x, per_step=True), twin(x, per_step=True), rtol=0, atol=1e-6)
    sequence = torch.randn(3, 2, 1, 8, 8)
    torch.testing.assert_close(adopted(sequence), twin(sequence), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", networks())
def test_no_state_survives_a_call(kind):
    adopted = sd.adopt(networks()[kind], 4).eval()
    x = torch.randn(3, 1, 8, 8) * 2
    first = adopted(x)
    adopted(torch.randn(5, 1, 8, 8))  # another batch size would not even fit a state that was left
    assert torch.equal(adopted(x), first)


def test_it_is_taught_saved_and_loaded(tmp_path):
    teacher = sd.create_model("2conv", num_classes=10, in_channels=1, image_size=8, width=4)
    network = networks()["multi-step"]
    quick = {"epochs": 1, "device": "cpu", "verbose": False, "out": tmp_path / "run"}
    before = copy.deepcopy(network.state_dict())
    run = sd.distill(teacher, sd.adopt(network, 3), "digits", method="kdsnn-response", **quick)
    assert run.summary["timesteps"] == 3 and run.summary["model"] == "Sequential (adopted)"
    assert any(not torch.equal(value, before[key]) for key, value in network.state_dict().items())
    again = sd.load(tmp_path / "run", network=sd.adopt(networks()["multi-step"], 3))
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(again(x), run.student(x)) and again.state_dict().keys() == before.keys()


def test_it_has_the_networks_own_keys_wherever_it_stands():
    """A checkpoint holds the method, whose part it is; that goes in again, and so does the bare network's state."""
    network = networks()["multi-step"]
    keys = list(network.state_dict())
    adopted = sd.adopt(network, 3)
    assert list(adopted.state_dict()) == keys
    holder = nn.ModuleDict({"student": adopted})
    state = {key: value + 1 for key, value in holder.state_dict().items()}
    assert list(state) == [f"student.{key}" for key in keys]
    holder.load_state_dict(state)
    assert all(torch.equal(value, state[f"student.{key}"]) for key, value in network.state_dict().items())
    other = sd.adopt(networks()["multi-step"], 3)
    other.load_state_dict(network.state_dict())
    assert all(torch.equal(value, state[f"student.{key}"]) for key, value in other.state_dict().items())
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict({key: value for key, value in network.state_dict().items() if key != keys[0]})
    with pytest.raises(RuntimeError, match="Unexpected key"):
        other.load_state_dict(network.state_dict() | {"strange": torch.zeros(1)})


def test_what_cannot_be_adopted_is_refused():
    with pytest.raises(UserError, match="spikify"):
        sd.adopt(nn.Sequential(*layers()), 4)
    with pytest.raises(UserError, match="set_step_mode"):
        sd.adopt(nn.Sequential(Jelly("s"), Jelly("m")), 4)
    with pytest.raises(UserError, match="timesteps"):
        sd.adopt(networks()["snntorch"], 0)
    with pytest.raises(UserError, match=r"not \[T, B, K\]"):
        sd.adopt(nn.Sequential(nn.Conv2d(1, 4, 3), Jelly("s")), 2)(torch.zeros(1, 1, 8, 8))


def test_features_of_a_network_that_runs_step_by_step_are_refused():
    student = Adopted(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), 2)
    student.stages = {"stage1": "network.1"}
    with pytest.raises(sd.UserError, match="compare features cannot tell its steps apart"):
        points_of(student, "stage")
