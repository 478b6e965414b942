"""What each residual family computes, block by block, against formulas written out here; and what its layers see."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from spikedistill.models.activation import layers_of, relu
from spikedistill.models.msresnet import MsBasicBlock, MsBottleneck
from spikedistill.models.preresnet import PreActBlock
from spikedistill.models.pyramidnet import PyramidBlock
from spikedistill.models.resnet import BasicBlock, Bottleneck, SewBasicBlock, SewBottleneck

BLOCKS = {
    "basic": lambda c, o, s: BasicBlock(c, o, s, relu),
    "bottleneck": lambda c, o, s: Bottleneck(c, o, s, relu),
    "sew-basic": lambda c, o, s: SewBasicBlock(c, o, s, relu),
    "sew-bottleneck": lambda c, o, s: SewBottleneck(c, o, s, relu),
    "ms-basic": lambda c, o, s: MsBasicBlock(c, o, s, relu),
    "ms-bottleneck": lambda c, o, s: MsBottleneck(c, o, s, relu),
    "preact": lambda c, o, s: PreActBlock(c, o, s, relu),
    "preact-first": lambda c, o, s: PreActBlock(c, o, s, relu, first=True),
    "pyramid": lambda c, o, s: PyramidBlock(c, o, s, relu, both=False),
    "pyramid-both": lambda c, o, s: PyramidBlock(c, o, s, relu, both=True),
}


def conv(block: nn.Module, i: int, x: Tensor, stride: int = 1) -> Tensor:
    weight = block.get_parameter(f"conv{i}.weight")
    return functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)


def norm(block: nn.Module, path: str, x: Tensor) -> Tensor:
    bn = block.get_submodule(path)
    assert isinstance(bn, nn.BatchNorm2d)
    assert isinstance(bn.running_mean, Tensor)
    assert isinstance(bn.running_var, Tensor)
    mean, scale = bn.running_mean[:, None, None], (bn.running_var[:, None, None] + bn.eps).sqrt()
    return (x - mean) / scale * bn.weight[:, None, None] + bn.bias[:, None, None]


def projected(block: nn.Module, x: Tensor, stride: int, rectify: bool = False) -> Tensor:
    if block.downsample is None:
        return x
    y = functional.conv2d(x, block.get_parameter("downsample.0.weight"), stride=stride)
    y = norm(block, "downsample.1", y)
    return y.relu() if rectify else y


def expected(kind: str, block: nn.Module, x: Tensor, s: int) -> Tensor:
    wide = "bottleneck" in kind
    if kind in ("basic", "bottleneck", "sew-basic", "sew-bottleneck"):
        y = norm(block, "bn1", conv(block, 1, x, 1 if wide else s)).relu()
        y = norm(block, "bn2", conv(block, 2, y, s if wide else 1))
        y = norm(block, "bn3", conv(block, 3, y.relu())) if wide else y
        if kind.startswith("sew"):
            return y.relu() + projected(block, x, s, rectify=True)
        return (y + projected(block, x, s)).relu()
    if kind.startswith("ms"):
        y = norm(block, "bn1", conv(block, 1, x.relu(), 1 if wide else s))
        y = norm(block, "bn2", conv(block, 2, y.relu(), s if wide else 1))
        y = norm(block, "bn3", conv(block, 3, y.relu())) if wide else y
        return y + projected(block, x, s)
    if kind.startswith("preact"):
        a = x if kind == "preact-first" else norm(block, "bn1", x).relu()
        y = conv(block, 2, norm(block, "bn2", conv(block, 1, a, s)).relu())
        if block.downsample is None:
            return y + x
        return y + functional.conv2d(a, block.get_parameter("downsample.weight"), stride=s)
    a = norm(block, "bn1", x)
    a = a.relu() if kind == "pyramid-both" else a
    y = norm(block, "bn3", conv(block, 2, norm(block, "bn2", conv(block, 1, a, s)).relu()))
    if s == 2:
        x = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
    return y + torch.cat([x, x.new_zeros(x.shape[0], y.shape[1] - x.shape[1], *x.shape[2:])], 1)


@pytest.mark.parametrize(("c_out", "stride"), [(4, 1), (6, 1), (6, 2)])
@pytest.mark.parametrize("kind", BLOCKS)
def test_blocks_compute_their_formula(kind, c_out, stride):
    torch.manual_seed(0)
    block = BLOCKS[kind](4, c_out, stride).double()
    x = torch.randn(5, 4, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        for module in block.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_()
        block(x)
        block(x)
        block.eval()
        torch.testing.assert_close(block(x), expected(kind, block, x, stride), rtol=1e-10, atol=1e-10)


def seen(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """What each convolution of the network takes."""
    inputs: dict[str, Tensor] = {}
    for path, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(lambda _module, args, path=path: inputs.__setitem__(path, args[0]))
    with torch.no_grad():
        network(images)
    return inputs


def is_spikes(x: Tensor) -> bool:
    return bool(((x == 0) | (x == 1)).all())


def is_counts(x: Tensor) -> bool:
    return bool(((x >= 0) & (x == x.round())).all())


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
@pytest.mark.parametrize(
    ("name", "options"),
    [("resnet18", {}), ("resnet50", {}), ("preactresnet20", {}), ("pyramidnet18", {"activations": 2})],
)
def test_convolutions_take_spikes(name, options, stem, small, images):
    inputs = seen(small(name, spiking=True, stem=stem, **options), images)
    taken = {path: x for path, x in inputs.items() if path != "conv1" and "downsample" not in path}
    assert taken
    assert all(is_spikes(x) for x in taken.values())
    assert not is_spikes(inputs["conv1"])


@pytest.mark.parametrize("name", ["sew-resnet18", "sew-resnet50"])
def test_sew_adds_spikes(name, small, images):
    """Fang et al. 2021: every convolution takes sums of spikes, and at most one more a block."""
    inputs = seen(small(name, spiking=True), images)
    assert is_spikes(inputs["layer1.0.conv1"])
    assert all(is_counts(x) for path, x in inputs.items() if path != "conv1")
    assert inputs["layer2.0.conv1"].max() > 1, "a sum, not an or"
    assert inputs["layer2.0.conv1"].max() <= 1 + len(small(name).blocks)


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_ms_shortcuts_carry_the_membrane_current(stem, small, images):
    """Hu et al. 2021: the residual branch takes spikes, the shortcut the analogue sum, from the stem on."""
    snn = small("ms-resnet18", spiking=True, stem=stem)
    inputs = seen(snn, images)
    branch = [x for path, x in inputs.items() if path.startswith("layer") and "downsample" not in path]
    assert all(is_spikes(x) for x in branch)
    assert not any(is_counts(x) for path, x in inputs.items() if "downsample" in path)
    snn.eval()
    with torch.no_grad():
        for path, parameter in snn.named_parameters():
            if path.startswith("layer1.") and "bn2" in path:
                parameter.zero_()
        taken: list[Tensor] = []
        snn.layer1.register_forward_hook(lambda _module, args, output: taken.extend([args[0], output]))
        snn(images)
        current = snn.stem(images)
    torch.testing.assert_close(taken[0], torch.cat([current, current]), rtol=0, atol=0)
    if stem == "cifar":
        torch.testing.assert_close(taken[1], taken[0], rtol=0, atol=1e-6)


def test_a_pyramid_grows_by_eight_ninths(small):
    with torch.device("meta"):
        network = small("pyramidnet18", width=16)
    out = [m.out_channels for path, m in network.named_modules() if path.endswith("conv2")]
    assert out == [round(16 + 8 / 9 * (i + 1)) for i in range(51)]
    assert out[-1] == 61


@pytest.mark.parametrize(("activations", "layers"), [(1, 52), (2, 103)])
def test_a_pyramids_activations(activations, layers, small, images):
    snn = small("pyramidnet18", spiking=True, activations=activations)
    assert len(layers_of(snn)) == layers
    inputs = seen(snn, images)
    assert all(is_spikes(x) for path, x in inputs.items() if path.endswith("conv2"))
    assert is_spikes(inputs["layer1.1.conv1"]) == (activations == 2)
