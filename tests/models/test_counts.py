"""Parameters and operations of the full-size networks, against the papers' figures (FACTS: KDSNN table 3)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from spikedistill import create_model

# name, channels, side, classes, parameters
PARAMETERS = [
    ("resnet18", 3, 32, 10, 11.17e6),  # KDSNN table 3
    ("2conv", 1, 28, 10, 7.39e6),
    ("vgg11", 3, 32, 10, 9.75e6),
    ("wrn16-2", 3, 32, 10, 0.69e6),
    ("wrn28-4", 3, 32, 10, 5.85e6),
    ("pyramidnet18", 3, 32, 10, 1.56e6),
    ("resnet20", 3, 32, 10, 0.27e6),  # He et al. 2016, table 6
    ("preactresnet20", 3, 32, 10, 0.27e6),
    ("resnet34", 3, 32, 10, 21.28e6),
    ("resnet50", 3, 32, 10, 23.52e6),
    ("resnet101", 3, 32, 10, 42.51e6),
    ("resnet152", 3, 32, 10, 58.16e6),
    ("spikformer-tiny", 3, 32, 10, 4.15e6),  # Zhou et al. 2023, table 3: Spikformer-4-256
]

EXACT = {
    "2conv": 128 * 9 + 128 * 128 * 9 + 4 * 128 + (128 * 49 + 1) * 1152 + 1153 * 10,
    "pyramidnet18": 1_558_881,
    # LeCun et al. 1998 with a full second convolution.
    "lenet5": (25 + 1) * 6 + (6 * 25 + 1) * 16 + (400 + 1) * 120 + 121 * 84 + 85 * 10,
}

# name, channels, side, KDSNN's FLOPs
OPERATIONS = [
    ("resnet18", 1, 28, 457.72e6),
    ("resnet18", 3, 32, 557.88e6),
    ("wrn28-4", 3, 32, 849.33e6),
    ("pyramidnet18", 3, 32, 368.74e6),
]


def meta(name: str, channels: int, classes: int = 10, **options: int | str) -> nn.Module:
    with torch.device("meta"):
        return create_model(name, num_classes=classes, in_channels=channels, **options).eval()


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def counted(network: nn.Module, channels: int, side: int) -> tuple[int, int]:
    """Multiply-accumulates of convolutions and linear layers, and elements that pass a BatchNorm, of one image."""
    counts = {"macs": 0, "normalised": 0}

    def count(module: nn.Module, _inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if isinstance(module, nn.Conv2d | nn.Linear):
            counts["macs"] += output.numel() * module.weight[0].numel()
        elif isinstance(module, nn.BatchNorm2d):
            counts["normalised"] += output.numel()

    for module in network.modules():
        module.register_forward_hook(count)
    network(torch.zeros(1, channels, side, side, device="meta"))
    return counts["macs"], counts["normalised"]


@pytest.mark.parametrize(("name", "channels", "side", "classes", "published"), PARAMETERS)
def test_parameters(name, channels, side, classes, published):
    options = {"image_size": side} if name in ("2conv", "vgg11") else {}
    assert round(parameters(meta(name, channels, classes, **options)) / 1e6, 2) == published / 1e6


@pytest.mark.parametrize("name", EXACT)
def test_parameters_to_the_last_one(name):
    assert parameters(meta(name, 1 if name != "pyramidnet18" else 3)) == EXACT[name]


@pytest.mark.parametrize(("name", "millions"), [("resnet18", 11.69), ("resnet34", 21.80), ("resnet50", 25.56)])
def test_imagenet_parameters(name, millions):
    network = meta(name, 3, 1000, stem="imagenet")
    assert round(parameters(network) / 1e6, 2) == millions


@pytest.mark.parametrize(
    ("name", "published"), [("vgg11", 132_868_840), ("vgg13", 133_053_736), ("vgg16", 138_365_992)]
)
def test_imagenet_parameters_of_vggs(name, published):
    """Those of torchvision's ``vgg11_bn``, ``vgg13_bn`` and ``vgg16_bn``."""
    assert parameters(meta(name, 3, 1000, stem="imagenet")) == published


@pytest.mark.parametrize(("name", "channels", "side", "published"), OPERATIONS)
def test_operations(name, channels, side, published):
    """The published FLOPs are multiply-accumulates, four operations an element in BatchNorm, and pooling modules."""
    macs, normalised = counted(meta(name, channels), channels, side)
    assert macs == pytest.approx(published, rel=0.022), "what BatchNorm adds is small"
    assert macs + 4 * normalised == pytest.approx(published, abs=0.01e6)


def test_resnet18_multiply_accumulates_by_hand():
    side, planes = [32, 16, 8, 4], [64, 128, 256, 512]
    total = 32 * 32 * 27 * 64 + 512 * 10 + 4 * 32 * 32 * 9 * 64 * 64
    for c, h in zip(planes[1:], side[1:], strict=True):
        total += h * h * (9 * c * c // 2 + 3 * 9 * c * c + c * c // 2)
    assert counted(meta("resnet18", 3), 3, 32)[0] == total == 555_422_720


@pytest.mark.parametrize(("name", "prefixed"), [("resnet18", "sew-resnet18"), ("resnet50", "ms-resnet50")])
def test_variants_cost_what_their_resnet_costs(name, prefixed):
    plain, variant = meta(name, 3), meta(prefixed, 3)
    assert {key: value.shape for key, value in plain.state_dict().items()} == {
        key: value.shape for key, value in variant.state_dict().items()
    }
    assert counted(plain, 3, 32) == counted(variant, 3, 32)


def test_resnet19_is_tdbns():
    """Zheng et al. 2021: stem 128, stages of 3, 3, 2 basic blocks with 128, 256, 512 planes, FC 256, classifier."""
    network = meta("resnet19", 3)
    kernels = [tuple(m.weight.shape) for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    expected = [(128, 3, 3, 3)] + [(128, 128, 3, 3)] * 6
    expected += [(256, 128, 3, 3)] + [(256, 256, 3, 3)] * 5
    expected += [(512, 256, 3, 3)] + [(512, 512, 3, 3)] * 3
    assert kernels == expected
    assert [tuple(m.weight.shape) for m in network.modules() if isinstance(m, nn.Linear)] == [(256, 512), (10, 256)]
