"""The Python surface that other people's scripts rely on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

import spikedistill as sd
from spikedistill.spiking.encoding import PoissonEncoding


class Stripes(Dataset):
    """Three classes of 8x8 images: horizontal, vertical and diagonal stripes with noise."""

    def __init__(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        row, column = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
        patterns = torch.stack([row % 2, column % 2, (row + column) % 2]).float().unsqueeze(1)
        self.labels = torch.arange(count) % 3
        self.images = patterns[self.labels] + 0.3 * torch.randn(count, 1, 8, 8, generator=generator)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int):
        return self.images[index], int(self.labels[index])


def models(classes: int = 3, **options: int) -> tuple[sd.Network, sd.Network]:
    common = {"num_classes": classes, "in_channels": 1, "image_size": 8, "width": 8, **options}
    torch.manual_seed(0)
    return sd.create_model("2conv", **common), sd.create_model("2conv", **common, spiking=True, timesteps=3)


def dense() -> nn.Module:
    """A spiking network that answers with a map for each class."""
    layers = (nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
    return sd.spikify(nn.Sequential(*layers), timesteps=2, example_input=torch.zeros(1, 1, 8, 8))


def test_distil_a_dataset_of_ones_own_and_load_the_result(tmp_path: Path) -> None:
    train, test = Stripes(120, 0), Stripes(60, 1)
    ann, snn = models()
    teacher = sd.distill(
        None,
        ann,
        train,
        test,
        method="ann",
        epochs=6,
        out=tmp_path / "ann",
        batch_size=20,
        optimizer={"lr": 0.05},
        verbose=False,
    )
    before = {key: value.clone() for key, value in teacher.student.state_dict().items()}
    run = sd.distill(
        teacher=teacher.student,
        student=snn,
        train=train,
        test=test,
        method={"name": "kdsnn-response", "alpha": 0.5},
        epochs=8,
        seed=0,
        out=tmp_path / "snn",
        batch_size=20,
        optimizer={"lr": 0.05},
        verbose=False,
    )
    assert run.summary["teacher_accuracy"] >= 95.0
    assert run.summary["student_accuracy"] >= 95.0
    assert run.summary == json.loads((tmp_path / "snn" / "summary.json").read_text())
    promised = (
        "method student_accuracy teacher_accuracy timesteps seed epochs device torch commit wall_seconds firing_rate"
    )
    for key in promised.split():
        assert run.summary[key] is not None, key
    for key, value in teacher.student.state_dict().items():
        assert torch.equal(value, before[key]), f"the teacher's {key} was changed"

    loaded = sd.load(tmp_path / "snn")
    images = test.images[:10]
    assert loaded.timesteps == 3
    assert not loaded.training
    assert torch.equal(loaded(images), run.student(images))
    for name in ("config.yaml", "metrics.csv", "student.safetensors", "evaluation.json", "report.html", "checkpoints"):
        assert (tmp_path / "snn" / name).exists(), name
    assert list((tmp_path / "snn").glob("events.out.tfevents*"))


def test_a_network_of_ones_own_is_passed_to_load(tmp_path: Path) -> None:
    class Mine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers(x)

    data = TensorDataset(Stripes(60, 0).images, Stripes(60, 0).labels)
    run = sd.distill(None, Mine(), data, data, method="ann", epochs=2, out=tmp_path / "run", verbose=False)
    with pytest.raises(sd.UserError, match=r"read it with sd\.load\(folder, network=\.\.\.\)"):
        sd.load(tmp_path / "run")
    network = Mine()
    assert sd.load(tmp_path / "run", network=network) is network
    x = Stripes(4, 2).images
    assert torch.equal(network(x), run.student(x))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"method": "sakdd"}, "unknown method 'sakdd'; did you mean 'sakd'"),
        ({"method": {"name": "kdsnn-response", "alhpa": 1}}, "did you mean 'alpha'"),
        ({"epochs": 0}, "'epochs'"),
        ({"teacher": None}, "needs a teacher"),
        ({"optimizer": {"name": "sdg"}}, "did you mean 'sgd'"),
        ({"teacher": models(classes=5)[0]}, "answers with 5 classes and the student with 3"),
        ({"student": models(classes=5)[1]}, "answers with 5 classes, the data have 3"),
        ({"student": dense()}, "answers an image with a tensor of shape [4, 8, 8]; a classifier is wanted"),
        ({"student": models(image_size=12)[1]}, "built for images of 12x12 pixels"),
        ({"test": None}, "test= must be a Dataset too"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_before_a_folder_is_made(change: dict, said: str, tmp_path: Path) -> None:
    ann, snn = models()
    arguments = {
        "teacher": ann, "student": snn, "train": Stripes(30, 0), "test": Stripes(30, 1), "epochs": 1,
        "out": tmp_path / "run", "verbose": False,
    } | change  # fmt: skip
    with pytest.raises(sd.UserError) as refused:
        sd.distill(**arguments)
    assert said in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_loading_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(sd.UserError, match="it has no config"):
        sd.load(tmp_path)


def test_the_import_is_light() -> None:
    code = "import sys, spikedistill; print(' '.join(sorted(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = (
        "lightning_fabric lightning datasets sklearn pydantic typer rich matplotlib yaml safetensors optuna pandas PIL"
    )
    assert not set(heavy.split()) & set(loaded)


@pytest.mark.parametrize("method", ["samd-nld", "joint-asnn"])
def test_an_ann_that_is_one_networks_own_sees_the_mean_of_a_sequence(method: str, tmp_path: Path) -> None:
    class Sequences(Stripes):
        def __getitem__(self, index: int):
            image, label = super().__getitem__(index)
            return torch.stack([image * step for step in (0.5, 1.0, 1.5)]), label

    ann, snn = models()
    out, quick = tmp_path / "run", {"epochs": 1, "batch_size": 12, "verbose": False}
    run = sd.distill(ann, snn, Sequences(24, 0), Sequences(12, 1), method=method, out=out, **quick)
    assert run.summary["timesteps"] == 3


def test_the_ann_that_is_trained_beside_is_drawn_by_the_seed(tmp_path: Path) -> None:
    students = []
    for name in ("a", "b"):
        _, snn = models()
        torch.manual_seed(len(students))  # what the process has drawn before must not matter
        out, quick = tmp_path / name, {"epochs": 1, "batch_size": 12, "verbose": False}
        students.append(sd.distill(None, snn, Stripes(24, 0), Stripes(12, 1), method="joint-asnn", out=out, **quick))
    first, second = (run.student.state_dict() for run in students)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_students_coding_is_kept_or_refused(tmp_path: Path) -> None:
    quick = {"method": "snn", "epochs": 1, "batch_size": 12, "verbose": False}
    _, snn = models()
    snn.encoding = PoissonEncoding((0.0,), (1.0,))
    sd.distill(None, snn, Stripes(24, 0), Stripes(12, 1), out=tmp_path / "poisson", **quick)
    loaded = sd.load(tmp_path / "poisson")
    assert isinstance(loaded.encoding, PoissonEncoding)
    for encoding, said in (
        (PoissonEncoding((0.5,), (1.0,)), "normalised with"),
        (lambda x, t: x, "cannot|no run folder"),
    ):
        snn.encoding = encoding
        with pytest.raises(sd.UserError, match=said):
            sd.distill(None, snn, Stripes(24, 0), Stripes(12, 1), out=tmp_path / "refused", **quick)


def test_a_trained_student_keeps_its_weights_beside_a_twin_that_is_made_for_it() -> None:
    """Shared singular vectors start as the ANN's."""
    from spikedistill.api import _twin

    student = sd.create_model(
        "2conv", num_classes=3, in_channels=1, image_size=8, width=4, spiking=True, timesteps=2, neuron=sd.PLIF()
    )
    twin = _twin(student)
    assert torch.equal(twin.state_dict()["conv2.weight"], student.state_dict()["conv2.weight"])
    assert getattr(twin, "timesteps", None) is None
