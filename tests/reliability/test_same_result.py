"""The same seed gives the same result: twice, after an interruption by every method, with any number of workers."""

from pathlib import Path
from typing import Any

import forked
import pytest
import torch
from comparing import Undisturbed, check_same, result
from torch.utils.data import Dataset

import spikedistill as sd
from spikedistill.engine.loop import Trainer
from spikedistill.errors import Stopped
from spikedistill.methods import METHODS
from spikedistill.methods.base import FROZEN_TEACHER
from spikedistill.recipe import ModelSettings, Recipe, parse
from spikedistill.run import train


def test_the_same_recipe_twice_is_the_same_run(undisturbed: Undisturbed, tmp_path: Path) -> None:
    train(forked.recipe(tmp_path / "run"), verbose=False)
    check_same(tmp_path / "run", undisturbed.folder)


def test_another_seed_is_another_run(undisturbed: Undisturbed, tmp_path: Path) -> None:
    train(forked.recipe(tmp_path / "run", "seed=1"), verbose=False)
    assert (
        result(tmp_path / "run")["student: student.safetensors"]
        != (result(undisturbed.folder)["student: student.safetensors"])
    )


def by_method(name: str, folder: Path, teacher: Path) -> Recipe:
    """Two epochs of two steps of two batches, a checkpoint at each, by a method."""
    student = {"model": "elastic-resnet" if name == "supernet" else "2conv", "width": 4}
    content = {
        "name": "run",
        "out": str(folder),
        "epochs": 2,
        "batch_size": 8,
        "accumulate": 2,
        "timesteps": 2,
        "checkpoint_minutes": forked.EACH_STEP,
        "encoding": "poisson" if name == "snn" else "direct",
        "data": {"subset": 40, "test_subset": 16, "validation": 0.2, "size": 8, "augment": ["shift:1"]},
        "student": student,
        "method": {"name": name} | ({"random": 1} if name == "supernet" else {}),
        "optimizer": {"name": "adamw", "lr": 0.001},
    }
    if METHODS[name].teacher_role == FROZEN_TEACHER:
        content["teacher"] = {"path": str(teacher if name != "supernet" else teacher.parent / "deep")}
    return parse(content)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher")
    train(by_method("ann", folder / "run", folder), verbose=False)
    deep = by_method("ann", folder / "deep", folder)
    deep.student = ModelSettings(model="resnet34", width=4)
    train(deep, verbose=False)
    return folder / "run"


@pytest.mark.parametrize("name", METHODS)
def test_every_method_goes_on_in_the_middle_as_if_nothing_had_been(
    name: str, tmp_path: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    train(by_method(name, whole, teacher), verbose=False)
    step, done = Trainer._step, 0

    def stopping(self: Trainer, *arguments: object) -> bool:
        nonlocal done
        done += 1
        if done == 3:  # the first batch of the second step: the one before holds gradients of its own
            self.stop.reason = "a test"
        return step(self, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_step", stopping)
        with pytest.raises(Stopped, match=r"stopped \(a test\) at epoch 1, batch 4 of 4"):
            train(by_method(name, run, teacher), verbose=False)
    torch.manual_seed(99)
    train(by_method(name, run, teacher), resume=True, verbose=False)
    check_same(run, whole)


class Drawn(Dataset):
    """Images whose every reading draws random numbers."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.rand(1, 8, 8) * 0.1 + index % 3, index % 3


def distilled(folder: Path, workers: int) -> bytes:
    torch.manual_seed(0)
    make: dict[str, Any] = {"num_classes": 3, "in_channels": 1, "image_size": 8, "width": 4}
    ann, snn = sd.create_model("2conv", **make), sd.create_model("2conv", **make, spiking=True, timesteps=2)
    options: dict[str, Any] = {
        "epochs": 2,
        "batch_size": 8,
        "workers": workers,
        "validation": 0.25,
        "verbose": False,
        "out": folder,
    }
    sd.distill(ann, snn, Drawn(), Drawn(), **options)
    return (folder / "student.safetensors").read_bytes()


# On a machine of one processor torch advises against two.
@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes")
def test_the_number_of_reading_processes_changes_no_bit(tmp_path: Path) -> None:
    assert distilled(tmp_path / "none", 0) == distilled(tmp_path / "two", 2)
