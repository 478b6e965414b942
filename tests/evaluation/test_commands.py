"""What the commands ``energy`` and ``eval`` measure on a run folder, and what they leave there."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch.utils.data import TensorDataset

import spikedistill as sd
from spikedistill.energyrun import ENERGY, energy_of_run, print_energy
from spikedistill.evalrun import LATENCY, ROBUSTNESS, evaluate_run, open_run, print_evaluation
from spikedistill.evaluation.robustness import NOISES
from spikedistill.recipebook import read_recipe
from spikedistill.report import find_runs, write_report
from spikedistill.run import train

SMALL = ["data.subset=80", "data.test_subset=40", "epochs=1", "student.width=4", "timesteps=3"]
TAUGHT = [*SMALL, "teacher.width=6", "teacher.epochs=1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measured") / "run"
    train(read_recipe("digits-2conv-kdsnn-response", [*TAUGHT, f"out={folder}"]), verbose=False)
    return folder


def test_energy_of_a_run_its_twin_and_its_teacher(run):
    result = energy_of_run(run, images=20)
    assert json.loads((run / ENERGY).read_text()) == json.loads(json.dumps(result))
    student, twin, teacher = (result[whose] for whose in ("student", "twin", "teacher"))
    assert (student["images"], student["timesteps"]) == (20, 3)
    assert (twin["timesteps"], teacher["timesteps"]) == (None, None)
    network = sd.load(run)
    assert student["total"]["parameters"] == sum(parameter.numel() for parameter in network.parameters())
    assert twin["total"]["parameters"] == student["total"]["parameters"]
    assert twin["total"]["macs"] == student["total"]["macs"]
    assert teacher["total"]["macs"] > twin["total"]["macs"], "the teacher is wider"
    opened = open_run(run, images=20)
    images = next(iter(opened.test_images().epoch(0)))[0]
    assert student["total"] == sd.energy(network, images).to_dict()["total"]


def test_energy_of_an_ann_has_no_twin(run):
    result = energy_of_run(run / "teacher", images=5)
    assert result["twin"] is None
    assert result["teacher"] is None
    assert result["student"]["total"]["accumulates"] == 0


def test_other_constants_change_energies_and_nothing_else(run):
    plain, cheap = (energy_of_run(run, images=8, constants=name)["student"] for name in ("45nm", "45nm-int8"))
    assert cheap["total"]["accumulates"] == plain["total"]["accumulates"]
    assert cheap["total"]["computation"] < plain["total"]["computation"] / 10
    assert "8-bit" in cheap["prices"]["source"]


def test_a_bill_is_printed_with_formulas_and_constants(run):
    text = io.StringIO()
    print_energy(energy_of_run(run, images=8), False, Console(file=text, width=100))
    printed = text.getvalue()
    for word in ("conv1", "image once", "spikes", "SynOps", "ANN twin", "teacher", "Horowitz 2014", "Joint A-SNN"):
        assert word in printed
    assert "attention" not in printed, "there is none"


def test_accuracy_under_noise_is_kept_and_added_to(run):
    before = evaluate_run(run)
    first = evaluate_run(run, noises=["gaussian:0.05", "spike-jitter"])
    assert first["accuracy"] == before["accuracy"]
    assert list(first["noise"]["gaussian"]) == ["0", "0.05"]
    assert first["noise"]["gaussian"]["0"] == before["accuracy"]
    assert len(first["noise"]["spike-jitter"]) == 1 + len(NOISES["spike-jitter"].strengths)
    second = evaluate_run(run, noises=["gaussian:0.01"])
    curves = json.loads((run / ROBUSTNESS).read_text())["curves"]
    assert list(curves["gaussian"]["accuracy"]) == ["0", "0.01", "0.05"], "in order of strength"
    assert curves["gaussian"]["accuracy"]["0.05"] == first["noise"]["gaussian"]["0.05"]
    assert curves["gaussian"]["accuracy"]["0.01"] == second["noise"]["gaussian"]["0.01"]
    evaluate_run(run, noises=["gaussian:0.1"], timesteps=2)
    curves = json.loads((run / ROBUSTNESS).read_text())["curves"]
    assert list(curves) == ["gaussian"], "curves of another T do not mix"
    assert list(curves["gaussian"]["accuracy"]) == ["0", "0.1"]


def test_every_noise_at_once(run, capsys):
    result = evaluate_run(run / "teacher", noises=["all"])
    assert set(result["noise"]) == {kind for kind, noise in NOISES.items() if not noise.on_spikes}
    print_evaluation(result, False)
    assert "blur: Gaussian blur" in capsys.readouterr().out


def test_latency_is_kept(run, capsys):
    result = evaluate_run(run, by_latency=True)
    assert json.loads((run / LATENCY).read_text())["timesteps"] == 3
    assert list(result["latency"]["accuracy"]) == [1, 2, 3, 4, 5, 6]
    for steps, accuracy in result["accuracy_per_timestep"].items():
        assert result["latency"]["accuracy"][steps] == pytest.approx(accuracy)
    print_evaluation(result, False)
    assert "stopping as soon as" in capsys.readouterr().out


def test_fewer_images(run):
    assert evaluate_run(run, images=15)["images"] == 15


def test_the_runs_page_shows_what_was_measured(run, tmp_path):
    energy_of_run(run, images=8)
    evaluate_run(run, noises=["blur"], by_latency=True)
    page = write_report(find_runs(run), tmp_path / "page.html").read_text()
    for section in ("energy", "robustness", "latency"):
        assert f'<section id="{section}">' in page


MISTAKES = [
    (lambda run: energy_of_run(run, images=0), "--images"),
    (lambda run: energy_of_run(run, constants="45"), "constants"),
    (lambda run: energy_of_run(run / "missing"), "not a run folder"),
    (lambda run: evaluate_run(run, noises=["gaussian:lots"]), "gaussian:lots"),
    (lambda run: evaluate_run(run / "teacher", noises=["spike-deletion:0.1"]), "ANN"),
    (lambda run: evaluate_run(run / "teacher", by_latency=True), "ANN"),
]


@pytest.mark.parametrize(("command", "said"), MISTAKES)
def test_mistakes_are_one_sentence(command, said, run):
    with pytest.raises(sd.UserError, match=said) as caught:
        command(run)
    assert "\n" not in str(caught.value)


def test_data_of_ones_own_must_be_pointed_to(tmp_path):
    data = TensorDataset(torch.rand(30, 1, 8, 8), torch.arange(30) % 3)
    student = sd.create_model("2conv", num_classes=3, in_channels=1, image_size=8, width=4, spiking=True)
    sd.distill(None, student, data, data, method="snn", epochs=1, out=tmp_path / "own", verbose=False)
    with pytest.raises(sd.UserError, match="--data-path"):
        energy_of_run(tmp_path / "own")
    assert sd.energy(student, data).images == 30


def test_a_run_is_measured_with_the_constants_of_its_training(tmp_path: Path):
    """Trained on tensors that nothing was taken from, measured on the same images as files, whose own mean is 0.4."""
    from PIL import Image

    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    images = (torch.rand(60, 1, 8, 8, generator=generator) * 90 + 70 * labels.view(-1, 1, 1, 1)).to(torch.uint8)
    student = sd.create_model("2conv", num_classes=3, in_channels=1, image_size=8, width=4, spiking=True, timesteps=2)
    data = TensorDataset(images, labels)
    run = sd.distill(
        None, student, data, data, method="snn", epochs=2, out=tmp_path / "run", classes=("a", "b", "c"), verbose=False
    )
    for part in ("train", "test"):
        for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
            file = tmp_path / "files" / part / "abc"[label] / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[0].numpy()).save(file)
    found = evaluate_run(tmp_path / "run", data_path=str(tmp_path / "files"))
    assert found["accuracy"] == pytest.approx(run.summary["student_accuracy"])
    assert open_run(tmp_path / "run", str(tmp_path / "files")).data.info.std == (1.0,)


def test_latency_has_its_own_timesteps(run):
    with pytest.raises(sd.UserError, match="leave --timesteps out"):
        evaluate_run(run, timesteps=2, by_latency=True)
