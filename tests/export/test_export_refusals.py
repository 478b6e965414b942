"""What cannot be exported is refused in one sentence, with the path and the reason, and nothing is left behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from roundtrip import through_a_file
from torch import nn

import spikedistill as sd
from spikedistill.models.activation import layers_of

IMAGES = torch.randn(4, 3, 8, 8)


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 5)

    def forward(self, x):
        x = F.relu(self.conv(x))
        return self.fc((x * torch.sigmoid(self.conv(x[:, :3]))).mean((2, 3)))


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.fc = nn.Linear(3, 4), nn.Linear(4, 5)

    def forward(self, x):
        return self.fc(F.relu(self.embed(x.flatten(2).permute(2, 0, 1))).mean(0))


def small(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(5))


REFUSED = {
    "sigmoid": (Gated, "there is no NIR node for 'sigmoid'"),
    "tokens": (Tokens, "NIR only flattens"),
    "max pooling of a current": (
        lambda: small(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.ReLU()),
        "at '1' .*a max pooling of values that are not spikes",
    ),
    "normalisation by the image": (
        lambda: small(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.ReLU()),
        "at '1' .*native_group_norm",
    ),
    "mirrored edges": (lambda: small(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), nn.ReLU()), "at '0' "),
    "uneven windows": (lambda: small(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4)), "windows differ in size"),
    "dilated pooling": (lambda: small(nn.ReLU(), nn.MaxPool2d(2, dilation=2)), "no dilation"),
    "enlarging": (lambda: small(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Upsample(scale_factor=2)), "at '2' .*upsample"),
    "transposed convolution": (lambda: small(nn.ReLU(), nn.ConvTranspose2d(3, 4, 2)), "transposed"),
    "two signals": (lambda: Multiplied(), "multiplies two signals"),
    "a mean of channels": (lambda: ChannelMean(), "pools over both dimensions"),
}


class Multiplied(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(192, 5)

    def forward(self, x):
        return self.fc((F.relu(x) * F.relu(-x)).flatten(1))


class ChannelMean(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(64, 5)

    def forward(self, x):
        return self.fc(F.relu(x).mean(1).flatten(1))


@pytest.mark.parametrize("name", REFUSED)
def test_what_nir_cannot_hold(name: str, tmp_path: Path):
    make, reason = REFUSED[name]
    network = make()
    network(IMAGES)
    twin = sd.spikify(network.eval(), 2, example_input=IMAGES)
    with pytest.raises(sd.UserError, match=reason) as refused:
        sd.export_nir(twin, tmp_path / "x.nir", IMAGES)
    assert str(refused.value).startswith("NIR cannot hold the network at ")
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_pooling_of_a_sequence(tmp_path: Path):
    network, signals = small(nn.Conv1d(3, 4, 3), nn.ReLU(), nn.MaxPool1d(2)), torch.randn(2, 3, 12)
    network(signals)
    with pytest.raises(sd.UserError, match=r"'2' .*none of sequences"):
        sd.export_nir(sd.spikify(network.eval(), 2, example_input=signals), tmp_path / "x.nir", signals)


def test_attention_names_its_module(tmp_path: Path):
    network = sd.create_model(
        "spikformer-tiny", num_classes=5, in_channels=3, width=16, depth=1, heads=2, spiking=True, timesteps=2
    )
    with pytest.raises(sd.UserError, match=r"at 'encoders\.0\.attention\.product'"):
        sd.export_nir(network, tmp_path / "x.nir", IMAGES)


def tiny(**settings: object) -> sd.Network:
    return sd.create_model("lenet5", num_classes=5, in_channels=3, image_size=12, **settings)


def test_arguments(tmp_path: Path):
    snn, images, path = tiny(spiking=True, timesteps=2), torch.randn(2, 3, 12, 12), tmp_path / "x.nir"
    foreign = tiny(spiking=True, timesteps=2)
    layers_of(foreign)["relu1"].neuron = nn.ReLU()
    (tmp_path / "folder").mkdir()
    for network, where, what, reason in [
        (tiny(), path, images, "the network is an ANN"),
        (nn.Linear(2, 2), path, images, "a Linear cannot be exported"),
        (foreign, path, images, "'relu1' cannot be exported: its neuron is a ReLU"),
        (snn, path, images[:, :2], "takes images"),
        (snn, path, images[:0], "at least one image"),
        (snn, path, images[0], "at least one image"),
        (sd.spikify(nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU()), example_input=images), path, images[:, :2], "take"),
        (snn, tmp_path / "folder", images, "it is a folder"),
        (snn, tmp_path / "missing" / "x.nir", images, "there is no folder"),
    ]:
        with pytest.raises(sd.UserError, match=reason):
            sd.export_nir(network, where, what)
    with pytest.raises(sd.UserError, match="dt must be positive"):
        sd.export_nir(snn, path, images, dt=0.0)
    assert [each.name for each in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize(
    ("package", "export"), [("nir", sd.export_nir), ("onnxscript", sd.export_onnx), ("onnxruntime", sd.export_onnx)]
)
def test_a_missing_package_is_named_with_the_command(package: str, export, tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(sd.UserError, match=rf"{package}: pip install 'spikedistill\[chips\]'"):
        export(tiny(spiking=True, timesteps=2), tmp_path / "x", torch.randn(1, 3, 12, 12))


def test_a_file_that_computes_something_else_is_not_left(tmp_path: Path, monkeypatch):
    from spikedistill.errors import TrainingFailed
    from spikedistill.export import neurons

    monkeypatch.setattr(neurons, "_filled", lambda value, shape: torch.full(shape, 0.01 + abs(float(value))).numpy())
    snn, images = tiny(spiking=True, timesteps=3, neuron=sd.LIF(threshold=0.1)), torch.randn(8, 3, 12, 12)
    with pytest.raises(TrainingFailed, match="nothing was written"):
        sd.export_nir(snn, tmp_path / "x.nir", images)
    assert not list(tmp_path.iterdir())


def test_the_network_stays_as_it_is():
    snn = tiny(spiking=True, timesteps=2).train().double()
    before = {key: value.clone() for key, value in snn.state_dict().items()}
    kinds = [type(module) for module in snn.modules()]
    through_a_file(snn, torch.randn(2, 3, 12, 12))
    assert snn.training
    assert [type(module) for module in snn.modules()] == kinds
    assert all(torch.equal(value, before[key]) for key, value in snn.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in snn.modules())


def _item(h):
    h[:, :, :1] = 0


@pytest.mark.parametrize("write", [_item, lambda h: h[:, :2].zero_()], ids=["item", "zero"])
def test_a_write_into_a_part_that_is_used_later_is_refused(write, tmp_path):
    """The tensor would stand in the file as it was before; written whole, it is what came of it."""

    class Writes(nn.Module):
        def __init__(self, write):
            super().__init__()
            self.write, self.a, self.b, self.fc = write, nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 3)

        def forward(self, x):
            h = self.b(F.relu(self.a(x)))
            self.write(h)
            return self.fc(F.relu(h).mean((2, 3)))

    images = torch.rand(10, 3, 8, 8)
    part = sd.spikify(Writes(write), 2, sd.IF(threshold=0.1), example_input=images)
    with pytest.raises(sd.UserError, match=r"network at '\w+': it writes into a part or view of a tensor") as caught:
        sd.export_nir(part, tmp_path / "x.nir", images)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())
    whole = sd.spikify(Writes(lambda h: h.mul_(2)), 2, sd.IF(threshold=0.1), example_input=images)
    assert sd.export_nir(whole, tmp_path / "x.nir", images).agreement.predictions == 10


def test_rounding_to_whole_numbers_is_refused(tmp_path):
    class Rounds(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

        def forward(self, x):
            return self.fc((4 * F.relu(self.a(x)).mean((2, 3))).int().float())

    images = torch.rand(10, 3, 8, 8)
    twin = sd.spikify(Rounds(), 2, sd.IF(threshold=0.1), example_input=images)
    with pytest.raises(sd.UserError, match="it rounds to whole numbers"):
        sd.export_nir(twin, tmp_path / "x.nir", images)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"mean": [0.5] * 3}, "give both, or neither"),
        ({"std": [0.5] * 3}, "give both, or neither"),
        ({"mean": [0.5], "std": [0.5]}, "mean has 1 values where the images have 3 channels"),
        ({"class_names": ["a", "b"]}, "class_names has 2 names where the network has 5 answers"),
        ({"dt": "x"}, "dt must be positive, in seconds, not 'x'"),
    ],
)
def test_what_is_said_of_a_network_and_is_not_true_of_it_is_refused(given, said, tmp_path):
    network = sd.create_model("resnet18", num_classes=5, in_channels=3, width=4, spiking=True, timesteps=2)
    with pytest.raises(sd.UserError, match=said):
        sd.export_nir(network, tmp_path / "x.nir", IMAGES, **given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("given", [{"timesteps": "a"}, {"timesteps": 2.7}, {"timesteps": 0}, {"dt": "x"}, {"dt": 0.0}])
def test_a_reader_is_told_numbers(given, tmp_path):
    with pytest.raises(sd.UserError, match=f"{next(iter(given))} must be"):
        sd.read_nir(tmp_path / "x.nir", **given)
