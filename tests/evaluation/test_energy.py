"""What a network costs, against counts made by hand and the papers' own figures."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import spikedistill as sd
from spikedistill.evaluation.cost import Energy, Layer
from spikedistill.evaluation.inputs import kind_of
from spikedistill.evaluation.prices import PRICES, prices
from spikedistill.models.fuse import optimise
from spikedistill.spiking import IF, LIF, compiling
from spikedistill.spiking.encoding import PoissonEncoding


def by_name(measured: Energy) -> dict[str, Layer]:
    return {layer.name: layer for layer in measured.layers}


def fed(name: str, **options: int | str) -> nn.Module:
    """A narrow SNN whose BatchNorms know a few images, so that it fires."""
    torch.manual_seed(0)
    network = sd.create_model(name, num_classes=10, in_channels=3, spiking=True, timesteps=3, **options)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the statistics of one batch are enough
    with torch.no_grad(), compiling.choose("plain"):
        network(torch.randn(16, 3, 16, 16))
    return network.eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(12, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("additions", "multiplications", "microjoules"),
    [(187e6, 187e6, 1028.5), (73.4e6, 3.52e6, 82.252)],  # the ANN, and the SNN at T = 2
)
def test_joint_asnn_table_5(additions, multiplications, microjoules):
    """The table prints 1.03 J and 82.2 mJ; every unit there is 1000 times too large (mJ and uJ)."""
    picojoules = PRICES["joint-asnn"].computation(additions, multiplications)
    assert picojoules * 1e-6 == pytest.approx(microjoules)


def test_joint_asnn_table_6_volumes_follow_the_rule():
    """SNN = T * 2 * activations * 32 bit + spikes, at T = 2: what is left for the spikes is the rate of table 5.

    ANN volume 6.234 MB = 2 * A * 4 bytes, so A = 779,250. 12.506 - 2 * 6.234 = 0.038 MB = 304,000 spikes of one bit
    among 2 * 779,250 chances: 19.5 %. Table 5's additions give (73.4 - 3.52) / (2 * (187 - 1.76)) = 18.9 %.
    """
    activations = 6.234e6 / 8
    spikes = (12.506e6 - 2 * 6.234e6) * 8
    assert spikes / (2 * activations) == pytest.approx((73.4 - 3.52) / (2 * (187 - 1.76)), abs=0.01)


@pytest.mark.parametrize(
    ("name", "channels", "side", "macs", "flops"),
    [
        ("resnet18", 1, 28, None, 457.72e6),  # KDSNN table 3, MNIST
        # conv1 32*32*27*64; layer1 4 * 32*32*9*64*64; layers 2 to 4: 9*c*c/2 + 3*9*c*c + c*c/2 products for each of
        # 16*16, 8*8, 4*4 pixels with c = 128, 256, 512; fc 512*10
        ("resnet18", 3, 32, 1769472 + 150994944 + 3 * 134217728 + 5120, 557.88e6),  # CIFAR
        ("wrn28-4", 3, 32, None, 849.33e6),
        ("pyramidnet18", 3, 32, None, 368.74e6),
    ],
)
def test_operations_of_kdsnn_table_3(name, channels, side, macs, flops):
    network = sd.create_model(name, num_classes=10, in_channels=channels)
    measured = sd.energy(network, torch.zeros(1, channels, side, side))
    assert measured.flops is not None
    assert round(measured.flops / 1e6, 2) == flops / 1e6
    assert macs is None or measured.macs == macs
    assert measured.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert measured.multiply_accumulates == measured.macs


def test_a_residual_block_by_hand():
    """The strided block of a ResNet-18 of width 8 on 16x16 pixels: 16x16x8 in, 8x8x16 out.

    conv1 8*8 pixels * 9*8 inputs * 16 = 73,728; conv2 8*8 * 9*16 * 16 = 147,456; shortcut 8*8 * 8 * 16 = 8,192.
    Two BatchNorms of 16 and the shortcut's: 6 * 16 parameters.
    """
    rows = by_name(
        sd.energy(sd.create_model("resnet18", num_classes=10, in_channels=3, width=8), torch.zeros(1, 3, 16, 16))
    )
    block = {name.removeprefix("layer2.0."): row for name, row in rows.items() if name.startswith("layer2.0.")}
    assert {name: row.macs for name, row in block.items() if row.macs} == {
        "conv1": 73_728,
        "conv2": 147_456,
        "downsample.0": 8_192,
    }
    assert sum(row.parameters for row in block.values()) == 9 * 8 * 16 + 9 * 16 * 16 + 8 * 16 + 6 * 16
    assert {name: row.neurons for name, row in block.items() if row.neurons} == {"relu1": 1024, "relu2": 1024}


def test_a_network_with_known_spikes():
    """Four neurons with the input as current, T = 2, decay 0.5, threshold 1.

    Currents 1, 0, 0.4, 2: the first and the last fire at both steps, the third reaches 0.4 and 0.6. Four spikes a
    second of eight chances. The layer before is computed once (16 products), the layer behind sees every second input:
    8 products * 2 steps * 0.5 = 8 accumulates. Moved: 2 steps * 2 * 4 membranes * 32 bit + 4 spikes = 516 bit.
    """
    ann = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 2, bias=False))
    nn.init.eye_(ann[0].weight)
    image = torch.tensor([[1.0, 0.0, 0.4, 2.0]])
    snn = sd.spikify(ann, timesteps=2, neuron=LIF(0.5, 1.0), example_input=image)
    measured = sd.energy(snn, image.repeat(5, 1))
    first, neurons, last = measured.layers
    assert (first.macs, first.passes, first.multiply_accumulates, first.accumulates) == (16, 1, 16.0, 0.0)
    assert (neurons.neurons, neurons.spikes, neurons.firing_rate) == (4, 4.0, 0.5)
    assert (last.input, last.input_rate, last.passes) == ("spikes", 0.5, 2)
    assert (last.macs, last.accumulates, last.multiply_accumulates) == (8, 8.0, 0.0)
    assert measured.images == 5
    assert measured.computation == pytest.approx(16 * 4.6 + 8 * 0.9)
    assert measured.first_layer_every_step == pytest.approx(2 * 16 * 4.6 + 8 * 0.9)
    assert measured.bits == 516
    assert measured.membrane_moved_once == 2 * 4 * 32 + 4
    assert measured.movement == pytest.approx((516 / 64 * 10, 516 / 64 * 100))
    assert measured.synops == 8
    assert measured.firing_rate == 0.5
    twin = sd.energy(snn.to_ann(), image)
    assert (twin.macs, twin.multiply_accumulates, twin.bits) == (24, 24.0, 2 * 4 * 32)


# network -> the layer to look at, and what it takes
KINDS = [
    ("resnet18", {"width": 8}, "conv1", "image"),
    ("resnet18", {"width": 8}, "layer2.0.downsample.0", "spikes"),
    ("resnet18", {"width": 8}, "fc", "averaged"),
    ("sew-resnet18", {"width": 8}, "layer2.0.conv1", "integers"),
    ("sew-resnet18", {"width": 8}, "layer2.0.conv2", "spikes"),
    ("ms-resnet18", {"width": 8}, "layer2.0.downsample.0", "analogue"),
    ("ms-resnet18", {"width": 8}, "layer2.0.conv1", "spikes"),
    ("lenet5", {"image_size": 16}, "conv2", "averaged"),
    ("pyramidnet18", {"width": 6}, "layer1.1.conv1", "analogue"),
    ("pyramidnet18", {"width": 6, "activations": 2}, "layer1.1.conv1", "spikes"),
    ("vgg11", {"image_size": 16, "width": 8}, "features.4", "spikes"),
    ("spikformer-tiny", {"width": 32, "depth": 1}, "encoders.0.attention.product", "spikes"),
    ("spikformer-tiny", {"width": 32, "depth": 1}, "encoders.0.fc1.conv", "integers"),
]


@pytest.mark.parametrize(("name", "options", "layer", "kind"), KINDS, ids=lambda value: str(value))
def test_kinds_of_input(name, options, layer, kind, images):
    row = by_name(sd.energy(fed(name, **options), images))[layer]
    assert row.input == kind
    dense = row.macs * row.passes
    if kind == "spikes":
        assert row.multiply_accumulates == 0
        assert row.accumulates == pytest.approx(dense * row.input_rate)
        assert 0 < row.accumulates < dense
    else:
        assert row.accumulates == 0
        share = row.input_rate if kind in ("integers", "averaged") else 1.0
        assert row.multiply_accumulates == pytest.approx(dense * share)


@pytest.mark.parametrize("inside", [1, 2, 5, 7, 8, 14])
def test_adaptive_averages_are_known_as_averages(inside):
    """Windows that differ in size (2 pixels to 7: of 1 and of 2) or overlap (8 to 7), or repeat one pixel (1 to 7)."""

    class Net(sd.Network):
        def __init__(self) -> None:
            super().__init__(1, IF(0.5))
            self.in_channels = 2
            self.relu, self.pool, self.fc = self.activation(), nn.AdaptiveAvgPool2d(7), nn.Linear(2 * 49, 3)

        encoder = property(lambda self: self.relu)

        def stem(self, x: Tensor) -> Tensor:
            return x

        def body(self, x: Tensor) -> Tensor:
            return self.fc(self.pool(x).flatten(1))

    x = torch.randn(8, 2, inside, inside, generator=torch.Generator().manual_seed(0))
    row = by_name(sd.energy(Net(), x))["fc"]
    assert row.input == ("spikes" if inside in (1, 7) else "averaged")


@pytest.mark.parametrize("name", ["sew-resnet18", "spikformer-tiny"])
def test_totals_are_the_sum_of_the_layers_whatever_the_batch_size(name, images):
    network = fed(name, width=8) if "resnet" in name else fed(name, width=32, depth=1)
    whole = sd.energy(network, images, batch_size=12)
    totals = "parameters macs accumulates multiply_accumulates neurons spikes computation bits"
    for total in totals.split():
        assert getattr(whole, total) == pytest.approx(sum(getattr(layer, total) for layer in whole.layers))
    assert whole.parameters == sum(parameter.numel() for parameter in network.parameters())
    parts = sd.energy(network, [(images[:5], None), (images[5:], None)])
    for total, value in whole.to_dict()["total"].items():
        assert parts.to_dict()["total"][total] == (None if value is None else pytest.approx(value, rel=1e-9))
    assert [layer.name for layer in parts.layers] == [layer.name for layer in whole.layers]


def test_attention_counts_pairs_of_spikes():
    """One head of two channels, two tokens, T = 1. v k^T: 2*2*2 products, of which those of two spikes cost."""

    class Net(sd.Network):
        def __init__(self) -> None:
            from spikedistill.models.spikformer import AttentionProduct

            super().__init__(1, IF(1.0))
            self.in_channels = 2
            self.relu, self.product = self.activation(), AttentionProduct(1)

        encoder = property(lambda self: self.relu)

        def stem(self, x: Tensor) -> Tensor:
            return x

        def body(self, x: Tensor) -> Tensor:
            return self.product(x, x, x).flatten(1)

    image = torch.tensor([[1.0, 1.0], [0.0, 1.0]]).view(1, 2, 1, 2)  # two channels of two tokens, as spikes
    first, second = (row for row in sd.energy(Net(), image).layers if row.kind == "product")
    assert (first.macs, second.macs) == (8, 8)
    # k^T v by channels: (1,1).(1,1) = 2 pairs, (1,1).(0,1) = 1, (0,1).(1,1) = 1, (0,1).(0,1) = 1
    assert first.accumulates == 5
    # [[2, 1], [1, 1]] times q = [[1, 1], [0, 1]]: 3 spikes, each meets two sums
    assert second.accumulates == 6


def test_fused_layers_are_measured_as_plain_ones_and_stay_fused(images):
    network = fed("resnet18", width=8)
    plain = sd.energy(network, images)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    optimise(network.train(), "lean")
    fused = sd.energy(network, images)
    assert fused.to_dict() == plain.to_dict()
    assert network.training
    assert network.timesteps == 3
    assert any(type(module).__name__ == "LeanSpike" for module in network.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


class Functional(nn.Module):
    """An ANN without a single module that multiplies."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 3, 3, 3))
        self.weight = nn.Parameter(torch.randn(4, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.conv2d(x, self.kernel, padding=1))
        return x.mean((-2, -1)) @ self.weight


def test_function_calls_are_counted_like_modules(images):
    ann = Functional()
    measured = sd.energy(ann, images)
    assert measured.macs == 16 * 16 * 27 * 4 + 4 * 10
    assert measured.neurons == 16 * 16 * 4
    assert measured.parameters == 4 * 27 + 40
    snn = sd.spikify(ann, timesteps=3, example_input=images[:1])
    spiking = sd.energy(snn, images)
    assert spiking.macs == measured.macs
    assert spiking.neurons == measured.neurons
    assert [row.input for row in spiking.layers if row.input] == ["image", "averaged"]


def test_attention_of_torch_is_counted():
    """An encoder layer of width 8 with 4 tokens: qkv 4*8*24, scores and values 4*4*8 each, out 4*8*8, mlp 2*4*8*16."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    measured = sd.energy(layer, torch.randn(3, 4, 8))
    assert measured.macs == 4 * 8 * 24 + 2 * 4 * 4 * 8 + 4 * 8 * 8 + 2 * 4 * 8 * 16
    assert measured.parameters == sum(parameter.numel() for parameter in layer.parameters())


def test_calibrated_spikes_are_binary_whatever_their_height(images):
    torch.manual_seed(0)
    ann = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(100, 5)
    )
    snn = sd.spikify(ann, 4, IF(reset="soft"), example_input=images[:1], calibration=images)
    rows = by_name(sd.energy(snn, images))
    assert rows["3"].input == "averaged"
    assert rows["6"].input == "spikes"


def test_poisson_coding_feeds_spikes_at_every_step():
    network = sd.create_model("2conv", num_classes=10, in_channels=1, image_size=8, width=4, spiking=True, timesteps=5)
    network.encoding = PoissonEncoding((0.5,), (0.25,))
    torch.manual_seed(0)
    pixels = torch.rand(6, 1, 8, 8)
    first = by_name(sd.energy(network, (pixels - 0.5) / 0.25))["conv1"]
    assert (first.input, first.passes) == ("spikes", 5)
    assert first.input_rate == pytest.approx(float(pixels.mean()), abs=0.05)


def test_sequences_have_their_own_length(images):
    network = fed("resnet18", width=8)
    rows = by_name(sd.energy(network, images.view(2, 6, 3, 16, 16)))
    assert {rows["conv1"].passes, rows["layer1.0.conv1"].passes} == {2}


def test_at_most_so_many_images(images):
    network = fed("resnet18", width=8)
    assert sd.energy(network, images, images=7, batch_size=5).images == 7
    assert sd.energy(network, images[:7]).to_dict() == sd.energy(network, images, images=7).to_dict()
    loader = torch.utils.data.TensorDataset(images, torch.zeros(12))
    assert sd.energy(network, loader, images=None).images == 12


@pytest.mark.parametrize("name", PRICES)
def test_a_multiply_accumulate_is_an_addition_and_a_multiplication(name):
    one = prices(name)
    assert one.mac == one.add + one.multiply > one.add > 0
    assert one.source


def test_prices_by_hand():
    assert PRICES["45nm"].mac == pytest.approx(4.6)
    own = prices("add=0.1,move=5:50")
    assert (own.add, own.multiply, own.move) == (0.1, 3.7, (5.0, 50.0))
    assert prices("move=7").move == (7.0, 7.0)


@pytest.mark.parametrize("name", ["45mn", "add=", "add=-1", "sub=1", "add=1:2", "multiply=nan", "move=1:2:3"])
def test_wrong_prices_are_refused(name):
    with pytest.raises(sd.UserError, match="constants"):
        prices(name)


def test_nothing_to_measure_is_refused():
    with pytest.raises(sd.UserError, match="no images"):
        sd.energy(nn.Linear(2, 2), torch.zeros(0, 2))
    with pytest.raises(sd.UserError, match="timesteps"):
        sd.energy(nn.Sequential(nn.Linear(2, 2), LIF()), torch.zeros(1, 2))


def test_the_result_is_json_and_names_its_formulas(images):
    import json

    content = sd.energy(fed("lenet5", image_size=16), images).to_dict()
    again = json.loads(json.dumps(content))
    assert again["total"]["computation"] == content["total"]["computation"]
    assert "Joint A-SNN" in again["formulas"]["SNN, computation"]
    assert "Horowitz" in again["prices"]["source"]
    assert all(math.isfinite(layer["computation"]) for layer in again["layers"])


class Borrowed(nn.Module):
    """A neuron that keeps its state between calls, as snnTorch's does; spikes and potential come out."""

    def __init__(self) -> None:
        super().__init__()
        self.reset_mem()

    def reset_mem(self) -> None:
        self.v = torch.zeros(())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = 0.5 * self.v + x
        spikes = (h >= 1.0).float()
        self.v = h * (1.0 - spikes)
        return spikes, h


class BorrowedNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.neuron, self.last = nn.Linear(4, 4, bias=False), Borrowed(), nn.Linear(4, 2, bias=False)
        nn.init.eye_(self.first.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.neuron(self.first(x.flatten(1)))[0])


def test_networks_of_other_libraries_are_counted_too():
    """The network with known spikes once more; step by step it computes its first layer at every step."""
    adopted = sd.adopt(BorrowedNet(), 2)
    measured = sd.energy(adopted, torch.tensor([[1.0, 0.0, 0.4, 2.0]]).view(1, 4, 1, 1))
    first, neurons, last = measured.layers
    assert (first.input, first.passes, first.multiply_accumulates) == ("image", 2, 32.0)
    assert (neurons.neurons, neurons.spikes, neurons.firing_rate) == (4, 4.0, 0.5)
    assert (last.input, last.accumulates) == ("spikes", 8.0)
    assert measured.bits == 516


def test_a_dataset_of_sequences_costs_what_the_sequences_do(images):
    network = fed("resnet18", width=8)
    sequences = images.view(2, 6, 3, 16, 16)
    items = torch.utils.data.TensorDataset(sequences.transpose(0, 1), torch.zeros(6))
    found, expected = sd.energy(network, items, batch_size=6), sd.energy(network, sequences)
    assert (found.timesteps, found.images) == (2, 6)
    assert found.to_dict() == expected.to_dict()


@pytest.mark.parametrize(
    "activation",
    [nn.CELU(), nn.RReLU(), nn.Threshold(0, 0), lambda x: x.clamp(min=0), lambda x: x.clamp_(0, 6)],
    ids=["celu", "rrelu", "threshold", "clamp", "clamp to six"],
)
def test_whatever_a_neuron_replaces_is_counted_as_an_activation(activation):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.fc, self.act = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 5), activation

        def forward(self, x):
            return self.fc(self.act(self.a(x)).mean((2, 3)))

    measured = sd.energy(Net(), torch.randn(4, 3, 8, 8))
    assert sum(layer.neurons for layer in measured.layers) == 8 * 8 * 8


def test_a_bilinear_layer_is_counted_to_the_last_product():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Bilinear(7, 7, 5)

        def forward(self, x):
            return self.fc(x, x)

    assert sd.energy(Net(), torch.randn(4, 7)).layers[0].macs == 7 * 7 * 5


def test_neurons_that_all_fire_give_spikes_and_two_poolings_averages():
    heights, fired = [1.0], torch.ones(2, 3)
    assert kind_of(fired, False, [], heights) == "spikes"
    assert kind_of(fired, True, [], heights) == "integers", "before the first neuron it is an image"
    assert kind_of(2 * fired, False, [], heights) == "integers"

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.conv, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.Linear(8, 5)

        def forward(self, x):
            h = F.avg_pool2d(F.relu(self.a(x)), 2)
            return self.fc(F.relu(self.conv(F.adaptive_avg_pool2d(h, 3))).mean((2, 3)))

    torch.manual_seed(0)
    twin = sd.spikify(Net(), 2, IF(threshold=0.2), example_input=torch.randn(2, 3, 12, 12))
    assert by_name(sd.energy(twin, torch.randn(8, 3, 12, 12)))["conv"].input == "averaged"


def test_a_network_that_cannot_be_copied_is_refused_by_its_attribute():
    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, x):
            self.last = self.fc(x)
            return self.last

    network = Keeps()
    network(torch.randn(2, 4))
    with pytest.raises(sd.UserError, match="cannot be measured at 'last': it cannot be copied"):
        sd.energy(network, torch.randn(2, 4))
