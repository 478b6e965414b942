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
from spikedistill.export.onnx_file import Rescaled, Unrolled, compare_logits, onnx_bytes, session_of


def run(path: Path, images: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(np.asarray(session.run(["logits"], {"images": images.numpy()})[0]))


def check_convolutions(model: onnx.ModelProto, network: nn.Module) -> None:
    """Nothing is folded into them, here or in onnxruntime, where a product of another type stands behind."""
    held = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    weights = [value.detach().numpy() for name, value in network.named_parameters() if "conv" in name]
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    for node, weight in zip(convolutions, weights, strict=True):
        assert np.array_equal(held[node.input[1]], weight)
        (behind,) = [other for other in model.graph.node if node.output[0] in other.input]
        assert behind.op_type == "Cast"


def test_onnxruntime_gives_the_same_logits(trained, digits, tmp_path: Path):
    images, path = digits[0][:1000], tmp_path / "digits.onnx"
    exported = sd.export_onnx(trained, path, images, class_names=list("0123456789"), mean=[0.305], std=[0.3758])
    assert exported.agreement.predictions == exported.agreement.images == 1000
    assert exported.agreement.logits < 1e-4
    assert exported.agreement.close == 1000
    for part in (images[:1], images[:37]):  # any batch size
        with torch.no_grad():
            torch.testing.assert_close(run(path, part), trained(part), rtol=0.0, atol=1e-4)
    model = onnx.load(path)
    check_convolutions(model, trained)
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert told["timesteps"] == "4"
    assert told["mean"] == "[0.305]"
    assert "4 timesteps are unrolled" in exported.card.read_text()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["digits.onnx", "digits.onnx.md"]


def test_a_calibrated_twin_with_a_soft_reset(digits):
    torch.manual_seed(0)
    images = digits[0][:32]
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10)).eval()
    twin = sd.spikify(network, 2, sd.IF(reset="soft"), example_input=images, calibration=images)
    agreement = compare_logits(twin, session_of(onnx_bytes(twin, images[:1], About(2))), images)
    assert agreement.predictions == 32
    assert agreement.logits < 1e-4


@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("fires_on", [">=", ">"])
def test_an_unrolled_neuron_is_the_neuron(reset: str, fires_on: str):
    currents = torch.randn(6, 50).div(0.25).round().mul(0.25)  # so that potentials hit the threshold itself
    for neuron in (sd.LIF(0.5, reset=reset, fires_on=fires_on), sd.IF(0.5, reset=reset, fires_on=fires_on), sd.PLIF()):
        assert torch.equal(Unrolled(neuron)(currents), neuron(currents).detach())


@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (nn.BatchNorm2d(6), (4, 6, 9, 9)),
        (nn.BatchNorm1d(6, affine=False), (4, 6)),
        (nn.BatchNorm3d(6), (2, 6, 3, 3, 3)),
    ],
)
def test_a_norm_is_rounded_where_torch_rounds(norm: nn.Module, shape: tuple[int, ...]):
    for _ in range(3):
        norm(torch.randn(shape) * 3 + 1)
    nn.init.normal_(norm.weight if norm.affine else torch.empty(6))
    x = torch.randn(shape)
    ours, theirs = Rescaled(norm)(x), norm.eval()(x).detach()
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    assert float((ours == theirs).float().mean()) > 0.5


def drawn(name: str, side: int, **sizes: int) -> sd.Network:
    """A network of neurons with a decay of their own on Poisson coded images; the file takes the sequence."""
    from spikedistill.spiking.encoding import PoissonEncoding

    torch.manual_seed(0)
    neuron = sd.PLIF(0.6, threshold=0.3, fires_on=">")
    network = sd.create_model(name, num_classes=5, in_channels=3, **sizes, spiking=True, timesteps=2, neuron=neuron)
    settle(network, torch.rand(6, 3, side, side))
    network.encoding = PoissonEncoding((0.0,) * 3, (1.0,) * 3)
    return network


@pytest.mark.slow
@pytest.mark.parametrize("name", ["spikformer-tiny", "ms-resnet18", "pyramidnet18"])
def test_large_graphs(name: str):
    sizes = {"width": 8, "depth": 1, "heads": 1} if name == "spikformer-tiny" else {"width": 4}
    network, images = drawn(name, 8, **sizes), torch.rand(6, 3, 8, 8)
    agreement = compare_logits(network, session_of(onnx_bytes(network, images[:2], About(2, "poisson"))), images)
    assert agreement.predictions == 6
    assert agreement.logits < 1e-4


def test_what_onnx_cannot_hold(monkeypatch):
    from spikedistill.export import onnx_file

    network = sd.create_model("lenet5", num_classes=5, in_channels=1, image_size=12, spiking=True, timesteps=2)
    monkeypatch.setattr(onnx_file, "LIMIT", 1000)
    with pytest.raises(sd.UserError, match="two gigabytes"):
        onnx_bytes(network, torch.randn(1, 1, 12, 12), About(2))
