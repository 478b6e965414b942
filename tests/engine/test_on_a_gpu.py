"""What a GPU would be spared, as far as a machine without one can show it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import spikedistill as sd
from spikedistill import parallel, run
from spikedistill.assembly import assemble, teacher_recipe
from spikedistill.bench import timing
from spikedistill.data.pipeline import Pipeline
from spikedistill.data.sets import DataInfo
from spikedistill.engine.activity import unvarying_layers
from spikedistill.errors import TrainingFailed
from spikedistill.evaluation.accuracy import inference
from spikedistill.models import fuse
from spikedistill.recipebook import read_recipe
from spikedistill.spiking import compiling


@pytest.mark.parametrize(("device", "laid_out"), [("cuda", True), ("cpu", False)])
def test_an_analogue_network_is_laid_out_as_its_convolutions_read(tmp_path: Path, device: str, laid_out: bool) -> None:
    recipe = teacher_recipe(read_recipe("digits-2conv-kdsnn-response", [f"out={tmp_path}"]), tmp_path / "teacher")
    parts = assemble(recipe, "cpu")
    fabric: Any = SimpleNamespace(world_size=1, global_rank=0, device=torch.device(device))
    method = run._method(parts, None, fabric)
    weights = [module.weight for module in method.modules() if isinstance(module, nn.Conv2d)]
    wide = [weight for weight in weights if weight.shape[1] > 1]
    assert wide and all(weight.is_contiguous() is not laid_out for weight in wide)


@pytest.mark.parametrize(("device", "laid_out"), [("meta", True), ("cpu", False)])
def test_so_are_images(device: str, laid_out: bool) -> None:
    info = DataInfo("x", ("a", "b"), (3, 8, 8), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    images = Pipeline((), info, torch.device(device))(torch.zeros(2, 3, 8, 8, dtype=torch.uint8, device=device), [])
    assert images.is_contiguous(memory_format=torch.channels_last) is laid_out


def test_neither_activity_nor_validation_has_kernels_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    network = fuse.optimise(sd.create_model("2conv", num_classes=3, in_channels=1, image_size=8, width=4, spiking=True))
    images = torch.randn(4, 1, 8, 8)

    def call(*_arguments: Any, **_settings: Any) -> None:
        raise AssertionError("a kernel would be compiled")

    monkeypatch.setattr(compiling, "call", call)
    with compiling.choose("fused"):
        unvarying_layers(network, images)
        with inference(network), pytest.raises(AssertionError, match="compiled"):
            network(images)  # as in training: with the same kernels, which are guarded against inference mode
        with inference(network):
            assert not torch.is_inference_mode_enabled() and not torch.is_grad_enabled()


def test_records_tell_what_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling._State, "broken", {"cuda"})
    with compiling.choose("auto"):
        assert (compiling.told("cpu"), compiling.told("cuda")) == ("auto", "auto, not compiled: failed on cuda")


class AcceleratorError(RuntimeError):
    """By the name of torch's."""


def test_a_process_whose_gpu_has_failed_makes_no_other_run(monkeypatch: pytest.MonkeyPatch) -> None:
    said = ["an illegal memory access was encountered"]

    def train(*_arguments: Any, **_settings: Any) -> None:
        raise AcceleratorError(said[0])

    monkeypatch.setattr(run, "train", train)
    recipe = read_recipe("digits-2conv-snn", [])
    with pytest.raises(TrainingFailed, match="illegal memory access"):
        parallel._train(0, recipe, None, False)

    def end(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(parallel, "parent_process", lambda: object())
    monkeypatch.setattr(parallel.os, "_exit", end)
    with pytest.raises(SystemExit):  # of which the pool tells
        parallel._train(0, recipe, None, False)
    said[0] = "CUDA error: out of memory"
    assert isinstance(parallel._train(0, recipe, None, False).trouble, TrainingFailed)


def test_steps_on_a_gpu_are_timed_several_between_two_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    now, done = [0.0], []

    def step() -> None:
        now[0] += 0.5
        done.append("step")

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(timing, "_wait", lambda _device: done.append("wait"))
    assert timing._once(step, torch.device("cuda")) == 0.5
    assert done == ["wait", *["step"] * timing.TOGETHER, "wait"]
    assert timing._once(step, torch.device("cpu")) == 0.5 and done[-3:] == ["wait", "step", "wait"]
