"""Networks and methods of a user's own: what they may do, and what is said before it does harm."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import spikedistill as sd
from spikedistill.errors import UserError
from spikedistill.evalrun import open_run
from spikedistill.evaluation.latency import latency
from spikedistill.exporting import export_run
from spikedistill.methods import METHODS, Method
from spikedistill.models.fuse import channels_last_if_taken
from spikedistill.recipebook import read_recipe
from spikedistill.run import train

QUICK = {"epochs": 1, "device": "cpu", "verbose": False}
EXAMPLE = torch.zeros(2, 1, 8, 8)


class Viewing(nn.Module):
    """Flattens with ``view``, which needs a layout in memory, as many networks do."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, 16, 3, padding=1)
        self.fc = nn.Linear(16 * 2 * 2, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.c1(x)), 2)
        x = F.max_pool2d(F.relu(self.c2(x)), 2)
        return self.fc(x.view(-1, 16 * 2 * 2))


class Two(Viewing):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().forward(x), x


class Untraceable(Viewing):
    """One that cannot be traced, so that it teaches as it was written."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1.0 if float(x.detach().sum()) == float(x.detach().sum()) else 2.0)


@pytest.mark.parametrize("kind", [Viewing, Untraceable])
def test_a_network_that_flattens_by_view_teaches_and_is_taught(kind: type[nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    snn = sd.spikify(Viewing(), timesteps=2, neuron=sd.LIF(), example_input=EXAMPLE)
    run = sd.distill(kind(), snn, "digits", method="kdsnn-response", out=tmp_path / "run", **QUICK)
    images = torch.rand(3, 1, 8, 8)
    loaded = sd.load(
        tmp_path / "run", network=sd.spikify(Viewing(), timesteps=2, neuron=sd.LIF(), example_input=EXAMPLE)
    )
    assert torch.allclose(run.student(images), loaded(images), atol=1e-5)


def test_a_layout_that_a_network_cannot_take_is_taken_back() -> None:
    network, images = Untraceable(), torch.rand(2, 1, 8, 8)
    expected = network(images)
    channels_last_if_taken(network, images)
    assert torch.equal(network(images), expected)
    assert network.c2.weight.is_contiguous()
    flattening = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    channels_last_if_taken(flattening, torch.rand(2, 3, 8, 8))
    assert flattening[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_a_student_without_neurons_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"'sakd' trains a spiking network, and the student, a Viewing, has no timesteps"
    ):
        sd.distill(Viewing(), Viewing(), "digits", method="sakd", out=tmp_path / "run", **QUICK)
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a network of somebody's own."""
    folder = tmp_path_factory.mktemp("own") / "run"
    sd.distill(None, twin(), "digits", method="snn", out=folder, **QUICK)
    return folder


def twin(**neuron) -> nn.Module:
    torch.manual_seed(1)
    return sd.spikify(Viewing(), timesteps=2, neuron=sd.LIF(**neuron), example_input=EXAMPLE)


@pytest.mark.parametrize("neuron", [{"decay": 0.9}, {"threshold": 5.0}, {"reset": "soft"}])
def test_other_neurons_than_the_weights_were_trained_with_are_refused(trained: Path, neuron: dict) -> None:
    (key,) = neuron
    with pytest.raises(UserError, match=rf"was trained with neurons of {key}=.*, and those of the network given have"):
        sd.load(trained, network=twin(**neuron))
    assert sd.load(trained, network=twin())(EXAMPLE).shape == (2, 10)


def test_a_recipe_and_a_network_say_the_same_of_a_neuron(trained: Path) -> None:
    """Or runs from the command line and from Python would be of two kinds in a table."""
    assert "width: null" in (trained / "config.yaml").read_text()


def test_a_card_speaks_of_the_network_that_is_exported(trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("nir")
    images, snn = torch.rand(4, 1, 8, 8), sd.load(trained, network=twin())
    summary = (trained / "summary.json").read_text()
    with pytest.raises(UserError, match=r"the network is not that of run=.*: 'c1.weight' differs"):
        sd.export_nir(twin(), tmp_path / "fresh.nir", images, run=trained)
    snn.timesteps = 1
    card = Path(f"{sd.export_nir(snn, tmp_path / 'one.nir', images, run=trained).path}.md").read_text()
    assert "| timesteps | 1 |" in card
    first = json.loads(summary)["accuracy_per_timestep"]["1"]
    assert f"| accuracy | {first:.2f} %" in card
    snn.timesteps = 8
    card = Path(f"{sd.export_nir(snn, tmp_path / 'eight.nir', images, run=trained).path}.md").read_text()
    assert "| accuracy | not known to the exporter" in card


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"student": None}, "student must be a torch.nn.Module, not None"),
        ({"student": Viewing}, "not the class Viewing"),
        ({"teacher": "runs/ann"}, r"not 'runs/ann'; a run folder's is sd.load\('runs/ann'\)"),
        ({"teacher": nn.Conv2d(3, 10, 8)}, "the teacher does not take images of 1x8x8"),
        ({"teacher": nn.Conv2d(1, 10, 8)}, "the teacher answers an image with a tensor of shape"),
        ({"teacher": nn.Sequential(Viewing(), nn.Softmax(1))}, "the teacher answers with probabilities, as a softmax"),
        ({"teacher": Two()}, "teacher answers with a tuple; it must answer with one tensor"),
        ({"student": twin().requires_grad_(False)}, "no parameters that can be trained"),
    ],
)
def test_what_cannot_be_taught_or_teach_is_refused_and_leaves_nothing(changed: dict, said: str, tmp_path: Path) -> None:
    given = {"teacher": Viewing(), "student": twin()} | changed
    with pytest.raises(UserError, match=said):
        sd.distill(**given, train="digits", method="kdsnn-response", out=tmp_path / "run", **QUICK)
    assert not (tmp_path / "run").exists()


def pictures(folder: Path, classes: tuple[str, ...]) -> Path:
    for part in ("train", "test"):
        for number, name in enumerate(classes):
            place = folder / part / name
            place.mkdir(parents=True)
            for index in range(4):
                Image.new("L", (8, 8), 20 * number + index).save(place / f"{index}.png")
    return folder


def test_data_of_other_classes_are_refused(tmp_path: Path) -> None:
    here = pictures(tmp_path / "here", ("ant", "bee", "cat"))
    snn = sd.create_model("2conv", num_classes=3, in_channels=1, image_size=8, width=4, spiking=True, timesteps=2)
    folder = tmp_path / "run"
    sd.distill(None, snn, str(here), method="snn", out=folder, validation=0.0, **QUICK)
    assert open_run(folder).count == 12
    moved = tmp_path / "moved"
    shutil.copytree(here, moved)
    assert open_run(folder, str(moved)).count == 12
    for classes in (("ant", "bee"), ("bee", "cat", "dog")):
        other = pictures(tmp_path / "-".join(classes), classes)
        with pytest.raises(UserError, match=r"was trained on the classes ant, bee, cat, and the data here have"):
            open_run(folder, str(other))


def test_pictures_are_brought_to_one_size_from_python_too(tmp_path: Path) -> None:
    here = pictures(tmp_path / "here", ("ant", "bee"))
    Image.new("L", (20, 12)).save(here / "train" / "ant" / "odd.png")
    snn = sd.create_model("2conv", num_classes=2, in_channels=1, image_size=8, width=4, spiking=True, timesteps=2)
    quick = QUICK | {"method": "snn", "validation": 0.0}
    with pytest.raises(UserError, match=r"set data\.size"):
        sd.distill(None, snn, here, out=tmp_path / "run", **quick)
    run = sd.distill(None, snn, {"path": str(here), "size": 8}, out=tmp_path / "run", **quick)
    assert run.summary["train_images"] == 9
    with pytest.raises(UserError, match=r"unknown recipe key 'data.sise'; did you mean 'size'"):
        sd.distill(None, snn, {"path": str(here), "sise": 8}, out=tmp_path / "other", **quick)


class _Wrong(Method):
    answer = staticmethod(lambda logits, loss: logits)

    def forward(self, images, labels, progress):
        logits = self.student(images)
        return type(self).answer(logits, F.cross_entropy(logits, labels))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda logits, loss: loss, "not Tensor"),
        (lambda logits, loss: (logits[None], {"task": loss}), r"its logits are \[1, 64, 10\] for 64 images"),
        (lambda logits, loss: (logits, {"task": loss, "zero": 0.0}), "its loss 'zero' is the float 0.0"),
        (lambda logits, loss: (logits, {"task": loss.expand(3)}), r"its loss 'task' is a tensor \[3\]"),
        (lambda logits, loss: (logits, {}), "not tuple"),
    ],
)
def test_what_a_method_must_return_is_said(answer, said: str, tmp_path: Path, monkeypatch) -> None:
    class Wrong(_Wrong):
        pass

    Wrong.answer = staticmethod(answer)
    monkeypatch.setitem(METHODS, "wrong", Wrong)
    snn = sd.create_model("2conv", num_classes=10, in_channels=1, image_size=8, width=4, spiking=True, timesteps=2)
    teacher = sd.create_model("2conv", num_classes=10, in_channels=1, image_size=8, width=4)
    with pytest.raises(UserError, match=f"Wrong.forward must return logits .*{said}"):
        sd.distill(teacher, snn, "digits", method="wrong", out=tmp_path / "run", batch_size=64, **QUICK)


def test_a_file_is_what_its_name_says(tmp_path: Path) -> None:
    run = train(read_recipe("digits-2conv-snn", [f"out={tmp_path / 'run'}"], smoke=True), verbose=False)
    with pytest.raises(UserError, match="named like a file of format onnx, and would be nir; add --format onnx"):
        export_run(run.folder, "nir", tmp_path / "x.onnx")
    assert not (tmp_path / "x.onnx").exists()


class _Versioned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x)

    def get_extra_state(self) -> dict:
        return {"version": 1}

    def set_extra_state(self, state: dict) -> None:
        pass


def test_a_state_that_no_weights_file_holds_is_refused_before_the_training(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), _Versioned(), nn.ReLU(), nn.Linear(16, 10))
    twin = sd.spikify(network, 2, example_input=torch.rand(2, 1, 8, 8))
    with pytest.raises(UserError, match=r"the student's state dict holds '1\._extra_state', a dict"):
        sd.distill(network, twin, "digits", method="kdsnn-response", epochs=1, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Named(nn.Module):
    """With sub-modules and attributes called as ours are, which are not ours."""

    def __init__(self) -> None:
        super().__init__()
        self.settings = {"depth": 3}
        self.encoding, self.hidden, self.output = nn.Linear(64, 16), nn.Linear(16, 16), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(F.relu(self.hidden(F.relu(self.encoding(x.flatten(1))))))


def test_a_networks_own_names_are_its_own(tmp_path: Path) -> None:
    images = torch.rand(6, 1, 8, 8)
    torch.manual_seed(0)
    network = Named()
    twin = sd.spikify(network, 2, example_input=images)
    run = sd.distill(network, twin, "digits", method="kdsnn-response", epochs=1, out=tmp_path / "run", verbose=False)
    assert run.summary["model"] == "Named (spikified)" and run.summary["by_program"]
    ann = sd.distill(None, Named(), "digits", method="ann", epochs=1, out=tmp_path / "ann", verbose=False)
    assert ann.summary["timesteps"] is None
    sd.export_nir(twin, tmp_path / "x.nir", images)
    assert "Named" in (tmp_path / "x.nir.md").read_text()


def test_confidences_are_of_means_whatever_the_last_layer_is_called() -> None:
    class Batches:
        def __len__(self) -> int:
            return 1

        def epoch(self, number: int, start: int = 0):
            yield torch.rand(32, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 10

    class Renamed(Named):
        def __init__(self) -> None:
            super().__init__()
            self.head = self._modules.pop("output")

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.relu(self.hidden(F.relu(self.encoding(x.flatten(1))))))

    found = []
    for kind in (Named, Renamed):
        torch.manual_seed(0)
        twin = sd.spikify(kind(), 4, sd.IF(threshold=0.2), example_input=torch.rand(2, 1, 8, 8))
        found.append(latency(twin, Batches()).exits)
    assert found[0] == found[1]
