"""Weights shared out over processes (strategy=fsdp): the same result, and files like any other run's."""

import copy
import os
import subprocess
import sys
import time

import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file
from torch import nn

import spikedistill as sd
from spikedistill.engine.checkpoint import latest_checkpoint
from spikedistill.engine.devices import make_fabric
from spikedistill.engine.finite import Found
from spikedistill.engine.optimisation import OptimizerSettings, make_optimizer
from spikedistill.engine.processes import own_part
from spikedistill.engine.sharding import Sharded, Whole, units
from spikedistill.errors import Stopped, UserError
from spikedistill.methods import METHODS, Method
from spikedistill.methods.base import Progress
from spikedistill.models import fuse
from spikedistill.models.fuse import optimise
from spikedistill.models.syncnorm import synchronise
from spikedistill.recipebook import read_recipe
from spikedistill.report.runs import read_run
from spikedistill.run import train
from spikedistill.spiking import compiling

SMALL = ["student.width=4", "epochs=2", "batch_size=16", "data.subset=64", "data.test_subset=32", "device=cpu"]
SMALL += ["clip=0.5", "accumulate=2", "data.augment=[crop:1]", "neuron.learn_decay=true"]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_shared_out_weights_train_as_whole_ones_do(tmp_path, monkeypatch, optimizer):
    """Weights, metrics and the last checkpoint are those of one process, which may have begun the run."""
    monkeypatch.setenv("SPIKEDISTILL_KERNELS", "plain")
    recipe, one, two = "digits-2conv-snn", tmp_path / "one", tmp_path / "two"
    small = [*SMALL, f"optimizer.name={optimizer}"]
    train(read_recipe(recipe, [*small, f"out={one}"]), verbose=False)
    with pytest.raises(Stopped):  # behind its first update
        train(read_recipe(recipe, [*small, f"out={two}"]), verbose=False, deadline=time.monotonic())
    command = [sys.executable, "-m", "spikedistill", "train", recipe, *small, f"out={two}"]
    done = subprocess.run(
        [*command, "devices=2", "strategy=fsdp", "--resume"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    same(load_file(two / "student.safetensors"), load_file(one / "student.safetensors"))
    for part in ("method", "optimizer"):
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


def method_of(name: str, student: nn.Module | None = None) -> Method:
    """A method on a small ResNet-18, its neurons' decays learned."""
    torch.manual_seed(0)
    sizes = {"num_classes": 10, "in_channels": 3, "stem": "cifar", "width": 4}
    if student is None:
        student = sd.create_model("resnet18", **sizes, spiking=True, timesteps=2, neuron=sd.PLIF())
    chosen = METHODS[name]
    teacher = None if chosen.teacher_role == "none" else sd.create_model("resnet18", **sizes)
    return chosen(student, teacher, chosen.Settings(), IMAGES)


IMAGES = torch.zeros(2, 3, 16, 16)


class Tangled(nn.Module):
    """Attention that looks into a module of its own, two layers with one weight, and one that computes twice."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.attention = nn.Conv2d(3, 8, 4, 4), nn.MultiheadAttention(8, 2, batch_first=True)
        self.first, self.second, self.twice, self.last = (nn.Linear(8, size) for size in (8, 8, 8, 10))
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).relu().flatten(2).transpose(1, 2)
        x = self.first(x + self.attention(x, x, x)[0]).relu()
        return self.last(self.twice(self.twice(self.second(x))).mean(1))


def test_what_is_put_together_at_once():
    last = ["0.conv1", "0.conv2", "0.downsample", "1.conv1", "1.conv2"]
    stages = [f"student.layer{n}" for n in (1, 2, 3)] + [f"student.layer4.{path}" for path in last]
    assert units(method_of("snn"), IMAGES) == stages
    assert units(method_of("sakd"), IMAGES) == [*stages, "student_transforms.feature_stage4"]
    assert units(method_of("joint-asnn"), IMAGES) == []  # composed weights stand in for all that is large
    twin = sd.spikify(Tangled(), 2, example_input=IMAGES)
    assert units(method_of("snn", twin), IMAGES) == ["student.patches", "student.attention", "student.last"]
    assert units(method_of("snn", Tangled()), IMAGES) == []  # who knows what it writes into


def _train(rank: int, port: int) -> None:
    torch.set_num_threads(1)
    torchrun = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 0}
    places = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}
    os.environ |= {name: str(value) for name, value in (torchrun | places).items()}
    fabric = make_fabric(torch.device("cpu"), "32", 2, strategy="fsdp")
    fabric.launch()
    # Layers wait for each other as on a large network, but nothing is compiled for it.
    packed: list[int] = []
    compiling.call = lambda function, tensors, constants, *, inline=False: function(*tensors, **constants)
    fuse._PackedConv.apply = counted(fuse._PackedConv.apply, packed)
    for name in ("sakd", "joint-asnn"):
        _compare(fabric, name, packed)
    told = Whole(fabric, method_of("snn")), Sharded(fabric, method_of("snn"), IMAGES)
    found, values = Found("bad", 0, 0, ()) if rank else None, torch.tensor([1.0, float("inf") if rank else 2.0])
    assert [each.agreed(found) for each in told] == [found, Found("bad", 0, 0, ())]
    assert [each.known_to_all(values).isfinite().tolist() for each in told] == [[True, not rank], [True, False]]


def _compare(fabric, name: str, packed: list[int]) -> None:
    """Three steps of both processes on their halves of a batch, and of one on the whole."""
    method, settings = method_of(name), OptimizerSettings(lr=0.05)
    reference = copy.deepcopy(method)
    optimise(method.student, "lean", norms=False)
    weights = Sharded(fabric, synchronise(method), IMAGES)
    model = fabric.setup_module(weights.trained)
    optimizer = fabric.setup_optimizers(make_optimizer(weights.trained, settings))
    alone = make_optimizer(reference, settings)
    for parameter in weights.trained.parameters():
        rest = parameter[0].numel() if parameter.dim() else 2
        assert 2 * own_part(parameter).numel() <= parameter.numel() + rest
    for _ in range(3):
        images, labels = torch.randn(8, 3, 16, 16), torch.randint(10, (8,))
        own = slice(4 * fabric.global_rank, 4 * fabric.global_rank + 4)
        with compiling.choose("fused"):
            losses = model(images[own], labels[own], Progress(0, 1))[1]
            fabric.backward(torch.stack(list(losses.values())).sum())
        assert len(packed) == 19  # every convolution but the one of the images
        packed.clear()
        weights.gradients()
        weights.clip(model, optimizer, 0.1)
        torch.stack(list(reference(images, labels, Progress(0, 1))[1].values())).sum().backward()
        assert nn.utils.clip_grad_norm_(reference.parameters(), 0.1) > 0.1
        for each in (optimizer, alone):
            each.step()
            each.zero_grad()
    same(dict(weights.collect().state_dict()), dict(reference.state_dict()))
    gathered = weights.state_of(optimizer)["state"]
    if fabric.is_global_zero:
        same(gathered, alone.state_dict()["state"])


def counted(function, calls: list[int]):
    def call(*args):
        calls.append(1)
        return function(*args)

    return call


def test_each_process_has_half_of_each_weight(unused_port):
    """And trains as one does that has all: regressors and factors beside the student, layers that run together and keep
    packed spikes, neurons that learn."""
    mp.spawn(_train, args=(unused_port,), nprocs=2)


@pytest.mark.parametrize("override", ["precision=16", "compile=true"])
def test_what_does_not_go_with_shared_out_weights(tmp_path, override):
    overrides = [*SMALL, "devices=2", "strategy=fsdp", override, f"out={tmp_path / 'run'}"]
    with pytest.raises(UserError, match="strategy=fsdp"):
        train(read_recipe("digits-2conv-snn", overrides), verbose=False)
    assert not (tmp_path / "run").exists()
