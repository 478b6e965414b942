"""A twin as the student, and its ANN, which names no features, as the teacher: every method takes them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

import spikedistill as sd
from spikedistill.methods import METHODS
from spikedistill.methods.features import points_of
from spikedistill.models.twin import retrace

METHOD_NAMES = [name for name, method in METHODS.items() if method.spiking_student and name != "supernet"]


class Mine(nn.Module):
    """No stages, no activation modules, and an in-place ReLU that would spoil a feature taken before it."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv2, self.conv3 = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 12, 3, 2, 1)
        self.blocks, self.fc = nn.ModuleList([nn.Conv2d(12, 12, 3, padding=1)]), nn.Linear(12, 3)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu_(x + self.conv2(x))
        x = torch.relu(self.conv3(x))
        for block in self.blocks:
            x = x + F.relu(block(x))
        return self.fc(F.relu(x).mean((2, 3)))


def stripes(count: int, seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    row, column = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    patterns = torch.stack([row % 2, column % 2, (row + column) % 2]).float().unsqueeze(1)
    labels = torch.arange(count) % 3
    return TensorDataset(patterns[labels] + 0.3 * torch.randn(count, 1, 8, 8, generator=generator), labels)


@pytest.fixture(scope="module")
def teacher() -> nn.Module:
    torch.manual_seed(0)
    network, data = Mine(), stripes(96, 0)
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(12):
        optimizer.zero_grad()
        F.cross_entropy(network(data.tensors[0]), data.tensors[1]).backward()
        optimizer.step()
    return network.eval()


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_every_method_takes_a_twin_and_its_ann(name, teacher, tmp_path: Path):
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    student = sd.spikify(teacher, 2, sd.LIF(threshold=0.5), example_input=torch.zeros(1, 1, 8, 8))
    run = sd.distill(
        teacher,
        student,
        stripes(24, 0),
        stripes(12, 1),
        method=name,
        epochs=1,
        out=tmp_path / "run",
        batch_size=12,
        validation=0.0,
        device="cpu",
        verbose=False,
    )
    assert run.student.timesteps == 2
    assert list(run.student.state_dict()) == list(before)
    assert any(not torch.equal(value, before[key]) for key, value in run.student.state_dict().items())
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    assert 0.0 <= run.summary["firing_rate"] <= 1.0


def test_the_joint_method_makes_its_own_ann_of_a_twin(teacher, tmp_path: Path):
    student = sd.spikify(teacher, 2, example_input=torch.zeros(1, 1, 8, 8))
    data = stripes(24, 0)
    run = sd.distill(
        None, student, data, data, method="joint-asnn", epochs=1, out=tmp_path / "r", batch_size=12, verbose=False
    )
    assert (run.folder / "ann.safetensors").is_file()


def test_ten_lines(teacher, tmp_path: Path):
    """Convert, calibrate, distil, load: the student reaches its teacher."""
    train, test = stripes(96, 0), stripes(60, 1)
    student = sd.spikify(teacher, 4, sd.IF(reset="soft"), example_input=train[0][0][None], calibration=train.tensors[0])
    run = sd.distill(
        teacher,
        student,
        train,
        test,
        method="kdsnn-feature",
        epochs=3,
        out=tmp_path / "run",
        batch_size=24,
        optimizer={"lr": 0.02},
        verbose=False,
    )
    assert run.summary["teacher_accuracy"] >= 95.0
    assert run.summary["student_accuracy"] >= 95.0
    other = sd.spikify(Mine(), 4, sd.IF(reset="soft"), example_input=train[0][0][None], calibration=train.tensors[0])
    loaded, images = sd.load(tmp_path / "run", network=other), test.tensors[0]
    assert torch.equal(loaded(images), run.student(images)), "the thresholds are in the run folder, too"
    for plain in (Mine(), other.to_ann()):
        with pytest.raises(sd.UserError, match=r"trained as a spiking network, and the \w+ given.*sd.spikify.network"):
            sd.load(tmp_path / "run", network=plain)


def test_a_plain_teacher_names_the_features_of_its_twin(teacher):
    student = sd.spikify(teacher, example_input=torch.zeros(1, 1, 8, 8))
    ann = retrace(teacher, torch.zeros(1, 1, 8, 8))
    for level in ("stage", "block"):
        assert points_of(ann, level) == points_of(student, level)
    assert points_of(student, "stage") == {"stage1": "spikes.1", "stage2": "spikes.4"}
    assert isinstance(student.blocks, nn.ModuleList), "the network's own attribute"
    with pytest.raises(sd.UserError, match="names no features"):
        points_of(teacher, "block")


class Unusual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.fc = nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Linear(4 * 64, 3)
        self.limit, self.leaky = nn.Threshold(0.1, 0.0), nn.RReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.limit(self.relu(self.conv(x)))
        x = torch.where(x > 0.5, x, 0.0)  # a number: torch looks for its dtype in the tensor that it is given
        x = torch.nn.functional.softshrink(self.leaky(x))
        return self.fc(torch.maximum(x, torch.full_like(x, 0.1)).flatten(1))


def test_what_stays_analogue_is_named():
    with pytest.warns(UserWarning) as told:
        snn = sd.spikify(Unusual(), timesteps=2, example_input=torch.zeros(2, 1, 8, 8))
    assert [one.activation for one in snn.replacements] == ["nn.ReLU", "nn.RReLU"]
    messages = [str(one.message) for one in told]
    assert any("'limit', 'softshrink', 'maximum': no neuron takes their place" in message for message in messages)
    assert snn(torch.rand(2, 1, 8, 8)).shape == (2, 3)
