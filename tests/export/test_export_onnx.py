"""ONNX files compute the network's logits, in onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from roundtrip import settle
from torch import nn

import spikedistill as sd
from spikedistill.export import About
from spikedistill.export.onnx_file import compare_logits, onnx_bytes


def run(path: Path, images: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(np.asarray(session.run(["logits"], {"images": images.numpy()})[0]))


def test_onnxruntime_gives_the_same_logits(trained, digits, tmp_path: Path):
    images, path = digits[0][:1000], tmp_path / "digits.onnx"
    exported = sd.export_onnx(trained, path, images, class_names=list("0123456789"), mean=[0.305], std=[0.3758])
    assert exported.agreement.predictions == exported.agreement.images == 1000
    assert exported.agreement.logits < 1e-4
    for part in (images[:1], images[:37]):  # any batch size
        with torch.no_grad():
            torch.testing.assert_close(run(path, part), trained(part), rtol=0.0, atol=1e-4)
    told = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert told["timesteps"] == "4"
    assert told["mean"] == "[0.305]"
    assert "4 timesteps are unrolled" in exported.card.read_text()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["digits.onnx", "digits.onnx.md"]


def test_a_calibrated_twin_with_a_soft_reset(digits):
    torch.manual_seed(0)
    images = digits[0][:32]
    network = nn.Sequential(
        *(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10)),
    )
    settle(network, images)
    twin = sd.spikify(network, 3, sd.IF(reset="soft"), example_input=images, calibration=images)
    agreement = compare_logits(twin, onnx_bytes(twin, images[:1], About(3)), images)
    assert agreement.predictions == 32
    assert agreement.logits < 1e-4


def test_attention_and_a_learned_decay_on_drawn_spikes():
    """What NIR cannot hold; Poisson coded, so the file takes the sequence."""
    from spikedistill.spiking.encoding import PoissonEncoding

    torch.manual_seed(0)
    sizes = {"num_classes": 5, "in_channels": 3, "width": 8, "depth": 1, "heads": 1}
    network = sd.create_model("spikformer-tiny", **sizes, spiking=True, timesteps=2, neuron=sd.PLIF(0.6, fires_on=">"))
    images = torch.rand(6, 3, 8, 8)
    settle(network, images)
    network.encoding = PoissonEncoding((0.0,) * 3, (1.0,) * 3)
    agreement = compare_logits(network, onnx_bytes(network, images[:2], About(2, "poisson")), images)
    assert agreement.predictions == 6
    assert agreement.logits < 1e-4


def test_what_onnx_cannot_hold(monkeypatch):
    from spikedistill.export import onnx_file

    network = sd.create_model("lenet5", num_classes=5, in_channels=1, image_size=12, spiking=True, timesteps=2)
    monkeypatch.setattr(onnx_file, "LIMIT", 1000)
    with pytest.raises(sd.UserError, match="two gigabytes"):
        onnx_bytes(network, torch.randn(1, 1, 12, 12), About(2))
