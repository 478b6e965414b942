"""The command ``export`` on a run folder, the model card, and runs on networks that only their user has."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import spikedistill as sd
from spikedistill.cli import main
from spikedistill.evaluation.accuracy import raster
from spikedistill.recipebook import read_recipe
from spikedistill.run import train


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPIKEDISTILL_KERNELS", "plain")
        train(read_recipe("digits-2conv-kdsnn-response", [f"out={folder}"], smoke=True), verbose=False)
    return folder


@pytest.fixture
def spikedistill(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs a command in this process: exit code, output, errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["spikedistill", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        return (int(left.value.code or 0), *capsys.readouterr())

    return run


def test_a_run_becomes_a_file_and_a_card(run_folder: Path, tmp_path: Path, spikedistill):
    code, out, _ = spikedistill("export", run_folder, "--format", "nir", "-o", tmp_path / "digits.nir")
    assert code == 0
    summary = json.loads((run_folder / "summary.json").read_text())
    count = summary["test_images"]
    assert re.search(rf"on {count} images: (100|99\.9\d*) % of spikes equal, {count} of {count} predictions equal", out)
    card = (tmp_path / "digits.nir.md").read_text()
    sums = [hashlib.sha256(path.read_bytes()) for path in (tmp_path / "digits.nir", run_folder / "student.safetensors")]
    for said in [
        "| network | 2conv |",
        "| data | digits |",
        "| method | kdsnn-response |",
        f"| teacher | 2conv, {summary['teacher_accuracy']:.2f} % |",
        f"| accuracy | {summary['student_accuracy']:.2f} % |",
        f"| parameters | {summary['parameters']:,} |",
        f"| firing rate, mean of the layers | {100 * summary['firing_rate']:.2f} %",
        "| energy an image | ",
        *(f"`{each.hexdigest()}`" for each in sums),
        "mean [0.305], std [0.3758]",
        '["0", "1", "2"',
        "`spikedistill train run/config.yaml`",
        f"| seed | {summary['seed']} |",
        f"| commit | {summary['commit']} |",
        "Licence: (to be filled in",
        "fires on v > v_threshold",
    ]:
        assert said in card, said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits.nir", "digits.nir.md"]


def test_it_lies_in_the_run_folder_by_default(run_folder: Path, spikedistill):
    code, out, _ = spikedistill("export", run_folder, "--images", 5)
    assert code == 0
    assert "on 5 images" in out
    network = sd.read_nir(run_folder / "student.nir")
    assert network.timesteps == 2


MISTAKES = [
    (["missing"], "'missing' is not a run folder"),
    (["RUN", "--format", "nri"], "unknown export format 'nri'; did you mean 'nir'?"),
    (["RUN", "-o", "missing/x.nir"], "there is no folder 'missing'"),
    (["RUN", "-o", "."], "it is a folder"),
    (["RUN", "--images", "0"], "--images must be at least 1"),
    (["RUN", "--data-path", "missing", "-o", "x.nir"], "data.path 'missing'"),
    (["RUN/teacher"], "holds an ANN"),
]


@pytest.mark.parametrize(("arguments", "said"), MISTAKES, ids=lambda value: " ".join(value) if value else "")
def test_a_mistake_is_one_sentence(
    arguments: list[str], said: str, run_folder: Path, tmp_path: Path, monkeypatch, spikedistill
):
    monkeypatch.chdir(tmp_path)
    code, _, errors = spikedistill("export", *(each.replace("RUN", str(run_folder)) for each in arguments))
    assert code == 2
    assert said in errors
    assert len(errors.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


class OwnNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(64, 10)

    def forward(self, x):
        return self.fc(nn.functional.max_pool2d(torch.relu(self.conv(x)), 2).flatten(1))


def test_a_calibrated_network_of_ones_own(tmp_path: Path, spikedistill):
    """Its thresholds are read back from the run folder, and its name is its class's."""
    torch.manual_seed(0)
    images = torch.randn(40, 1, 8, 8)
    snn = sd.spikify(OwnNet(), 2, sd.IF(reset="soft"), example_input=images, calibration=images)
    run = sd.distill(None, snn, "digits", method="snn", epochs=1, out=tmp_path / "run", verbose=False)
    assert run.summary["model"] == "OwnNet (spikified)"
    fresh = sd.spikify(OwnNet(), 2, sd.IF(reset="soft"), example_input=images)
    loaded = sd.load(tmp_path / "run", network=fresh)
    assert torch.equal(loaded(images), run.student(images))
    assert float(loaded.get_submodule("spikes.0").balance) != 1.0
    exported = sd.export_nir(loaded, tmp_path / "own.nir", images, run=tmp_path / "run")
    assert exported.agreement.spikes > 99.9
    card = exported.card.read_text()
    assert "| network | OwnNet (spikified) |" in card
    assert "threshold calibrated per layer" in card
    assert "reset is soft, which NIR does not know" in card
    code, _, errors = spikedistill("export", tmp_path / "run")
    assert code == 2
    assert "sd.export_nir(sd.load(folder, network=...)" in errors


def test_other_extra_tensors_are_refused_still():
    from spikedistill.runfolder import load_state

    network = sd.spikify(OwnNet(), example_input=torch.randn(2, 1, 8, 8))
    state = network.state_dict()
    for key in ("spikes.0.offset", "conv.balance"):
        with pytest.raises(sd.UserError, match=f"has a tensor '{key}'"):
            load_state(network, state | {key: torch.ones(())}, "state")


class TokensFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.fc = nn.Linear(4, 6), nn.Linear(6, 10)

    def forward(self, x):
        return self.fc(torch.relu(self.embed(x.flatten(2).permute(2, 0, 1))).mean(0))


def test_a_raster_has_t_steps_wherever_the_batch_is():
    torch.manual_seed(0)
    image = torch.randn(4, 3, 3)
    twin = sd.spikify(TokensFirst(), 5, sd.LIF(0.5, threshold=0.5), example_input=torch.randn(2, 4, 3, 3))
    shown = raster(twin, image, neurons=54)["spikes.0"]
    current = torch.nn.functional.linear(image.flatten(1).t(), twin.embed.weight, twin.embed.bias).detach()
    expected = sd.LIF(0.5, threshold=0.5)(current.expand(5, 9, 6)).flatten(1).t().int().tolist()
    assert shown == expected
    assert sum(map(sum, shown)) > 10
