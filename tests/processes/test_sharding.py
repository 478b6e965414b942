"""Weights shared out over processes (strategy=fsdp): the same result, and files like any other run's."""

import copy
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file
from torch import nn

import spikedistill as sd
from spikedistill.engine.checkpoint import latest_checkpoint
from spikedistill.engine.devices import make_fabric
from spikedistill.engine.optimisation import OptimizerSettings, make_optimizer
from spikedistill.engine.processes import own_part
from spikedistill.engine.sharding import Sharded, Whole, units
from spikedistill.errors import Stopped, UserError
from spikedistill.methods import METHODS
from spikedistill.methods.base import Progress
from spikedistill.models.syncnorm import synchronise
from spikedistill.recipebook import read_recipe
from spikedistill.report.runs import read_run
from spikedistill.run import train

SMALL = ["student.width=4", "epochs=2", "batch_size=16", "data.subset=64", "data.test_subset=32", "device=cpu"]
SHARED = ["clip=0.5", "accumulate=2", "data.augment=[crop:1]"]
TEACHER = ["teacher.width=4", "teacher.epochs=1", "teacher.batch_size=16"]


@pytest.mark.parametrize(("method", "extra"), [("sakd", [*TEACHER, "neuron.learn_decay=true"]), ("joint-asnn", [])])
def test_shared_out_weights_train_as_whole_ones_do(tmp_path, method, extra, monkeypatch):
    """Weights, teacher, metrics and the last checkpoint are those of one process, which may have begun the run."""
    monkeypatch.setenv("SPIKEDISTILL_KERNELS", "plain")
    recipe, overrides = f"digits-2conv-{method}", [*SMALL, *SHARED, *extra]
    one, two = tmp_path / "one", tmp_path / "two"
    train(read_recipe(recipe, [*overrides, f"out={one}"]), verbose=False)
    if not extra:
        with pytest.raises(Stopped):  # behind its first update
            train(read_recipe(recipe, [*overrides, f"out={two}"]), verbose=False, deadline=time.monotonic())
    command = [sys.executable, "-m", "spikedistill", "train", recipe, *overrides, f"out={two}"]
    done = subprocess.run(
        [*command, "devices=2", "strategy=fsdp", "--resume"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for name in ("student.safetensors", *(["teacher/student.safetensors"] if extra else ["ann.safetensors"])):
        same(load_file(two / name), load_file(one / name))
    for part in ("method", "optimizer") if extra else ("optimizer",):  # what factors stand in for is not trained
        same(*(latest_checkpoint(folder / "checkpoints")[part] for folder in (two, one)))
    alone, shared = read_run(one), read_run(two)
    assert shared.accuracy == alone.accuracy
    for column in set(alone.metrics) - {"seconds"}:
        assert shared.metrics[column] == pytest.approx(alone.metrics[column], rel=1e-5), column


def same(ours, theirs, path: str = "") -> None:
    """Two states of the same form: tensors to 1e-5, but for times and random numbers."""
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs), path
        for key, value in theirs.items():
            same(ours[key], value, f"{path} {key}")
    elif isinstance(theirs, torch.Tensor):
        assert type(ours) is torch.Tensor
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5, msg=lambda text: f"{path}: {text}")


def method_of(name: str, **sizes):
    torch.manual_seed(0)
    networks = [
        sd.create_model("resnet18", num_classes=10, in_channels=3, stem="cifar", width=4, **chosen)
        for chosen in ({"spiking": True, "timesteps": 2}, {})
    ]
    chosen = METHODS[name]
    teacher = None if chosen.teacher_role == "none" else networks[1]
    return chosen(networks[0], teacher, chosen.Settings(**sizes), torch.zeros(2, 3, 16, 16))


def test_what_is_put_together_at_once():
    images = torch.zeros(2, 3, 16, 16)
    found = units(method_of("snn"), images)
    assert found[:3] == ["student.layer1", "student.layer2", "student.layer3"]
