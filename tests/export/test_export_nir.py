"""A network and its NIR file compute the same, and the file says what one must know to run it."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import nir
import numpy as np
import pytest
import torch
from roundtrip import settle, through_a_file
from torch import nn

import spikedistill as sd
from spikedistill.export import About, NirNetwork
from spikedistill.export.compare import compare_spikes
from spikedistill.export.neurons import neuron_of
from spikedistill.export.nir_file import nir_bytes, to_graph
from spikedistill.export.operators import lower
from spikedistill.export.record import plain_copy, record
from spikedistill.models.activation import Clock, Spike, layers_of
from spikedistill.models.features import taps
from spikedistill.models.registry import options_of

SIZES = {"2conv": 8, "lenet5": 12, "vgg11": 8, "vgg13": 8, "vgg16": 8}
# Attention is more than NIR can say; ResNets of 101 and 152 layers are that of 50 with more of the same blocks.
EXPRESSIBLE = [
    name for name in sd.list_models() if not name.startswith("spikformer") and name[-3:] not in ("101", "152")
]


def test_a_thousand_digits_have_the_same_spikes_and_predictions(trained, digits, tmp_path: Path):
    images, labels = digits[0][:1000], digits[1][:1000]
    exported = sd.export_nir(trained, tmp_path / "digits.nir", images)
    assert exported.agreement.images == exported.agreement.predictions == 1000
    assert exported.agreement.spikes >= 99.9
    assert min(exported.agreement.layers.values()) >= 99.9
    file = sd.read_nir(exported.path)
    with torch.no_grad():
        expected, answers = trained(images), file(images)
    assert (expected.argmax(1) == labels).float().mean() > 0.9, "it must have something to agree on"
    assert torch.equal(answers.argmax(1), expected.argmax(1))
    torch.testing.assert_close(answers, expected, rtol=0.0, atol=1e-3)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["digits.nir", "digits.nir.md"]


@pytest.mark.parametrize("name", EXPRESSIBLE)
def test_every_registered_network(name: str):
    side = SIZES.get(name, 8)
    options = {"image_size": side} if "image_size" in options_of(name) else {}
    torch.manual_seed(0)
    images = torch.randn(4, 3, side, side)
    network = sd.create_model(
        name,
        num_classes=10,
        in_channels=3,
        width=6 if name == "lenet5" else 4,
        spiking=True,
        timesteps=2,
        neuron=sd.LIF(threshold=0.5),
        **options,
    )
    settle(network, images)
    graph = to_graph(lower(record(plain_copy(network), images), 1e-4), About(2))
    agreement = compare_spikes(network, NirNetwork(graph), images)
    assert agreement.spikes > 99.0
    assert agreement.predictions == 4
    with torch.no_grad(), taps(network, {path: path for path in layers_of(network)}, "after") as tap:
        network(images)
        assert sum(float(spikes.sum()) for spikes in tap.take().values()) > 50


@pytest.mark.parametrize("side", [224, 448], ids=["a pixel a place", "four pixels a place"])
def test_a_vgg_with_the_imagenet_stem(side: int):
    torch.manual_seed(0)
    images = torch.randn(3, 3, side, side)
    options = {"stem": "imagenet", "width": 4, "neuron": sd.LIF(threshold=0.5)}
    network = sd.create_model("vgg11", num_classes=10, in_channels=3, spiking=True, timesteps=2, **options)
    settle(network, images)
    graph = to_graph(lower(record(plain_copy(network), images), 1e-4), About(2))
    agreement = compare_spikes(network, NirNetwork(graph), images)
    assert agreement.spikes > 99.9
    assert agreement.predictions == 3
    with pytest.raises(sd.UserError, match="windows differ in size"):
        lower(record(plain_copy(network), images[..., :64, :64]), 1e-4)


@pytest.mark.parametrize(
    "neuron",
    [
        sd.LIF(0.5),
        sd.LIF(0.9, threshold=0.7, fires_on=">"),
        sd.LIF(0.3, threshold=0.3, reset="soft"),
        sd.IF(),
        sd.IF(threshold=0.6, reset="soft", fires_on=">"),
        sd.PLIF(0.6),
    ],
    ids=str,
)
@pytest.mark.parametrize("calibrated", [False, True])
def test_every_neuron(neuron: sd.LIF, calibrated: bool, digits):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 10),
    )
    images = digits[0][:100]
    settle(network, images)
    twin = sd.spikify(network, 4, neuron, example_input=images, calibration=images if calibrated else None)
    agreement = compare_spikes(twin, through_a_file(twin, images), images)
    assert agreement.spikes > 99.95
    assert agreement.predictions == 100
    assert agreement.logits < 1e-3 or agreement.spikes < 100.0


def test_output_neurons_are_the_last_node(digits, tmp_path: Path):
    torch.manual_seed(0)
    sizes = {"num_classes": 10, "in_channels": 1, "image_size": 8, "width": 8}
    network = sd.create_model("2conv", **sizes, spiking=True, neuron=sd.LIF(threshold=0.1), output="spikes").eval()
    images = digits[0][:64]
    exported = sd.export_nir(network, tmp_path / "fires.nir", images)
    assert exported.agreement.predictions == 64
    with torch.no_grad():
        expected = network(images)
        assert expected.unique().tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
        torch.testing.assert_close(sd.read_nir(exported.path)(images), expected)


def test_parameters_by_hand():
    """Euler at dt: v += dt / tau * (v_leak - v + r x) is v = decay v + x."""
    dt, decay = 1e-3, 0.75
    made = neuron_of(Spike(sd.LIF(decay, threshold=0.5), Clock(1)), (2, 3), dt)
    assert made.kind == "LIF"
    assert set(made.fields) == {"tau", "r", "v_leak", "v_threshold", "v_reset"}
    assert all(value.shape == (2, 3) and value.dtype == np.float32 for value in made.fields.values())
    assert made.fields["tau"][0, 0] == pytest.approx(4e-3)
    assert made.fields["r"][0, 0] == pytest.approx(4.0)
    assert not made.fields["v_leak"].any()
    assert not made.fields["v_reset"].any()
    limit = made.fields["v_threshold"][0, 0]
    assert limit < np.float32(0.5) == np.nextafter(limit, np.float32(1.0)), "a strict reader fires at the threshold"
    strict = neuron_of(Spike(sd.IF(threshold=0.5, fires_on=">"), Clock(1)), (1,), dt)
    assert strict.kind == "IF"
    assert "tau" not in strict.fields
    assert strict.fields["r"] == pytest.approx(1000.0)
    assert strict.fields["v_threshold"] == np.float32(0.5)


def test_a_potential_before_the_first_step_moves_the_origin_of_a_hard_reset():
    twin = sd.spikify(nn.Sequential(nn.ReLU()), 3, sd.LIF(0.5), example_input=torch.randn(2, 4))
    spike = twin.get_submodule("0")
    spike.balance, spike.start = torch.tensor(2.0), torch.tensor(0.25)
    made = neuron_of(spike, (4,), 1e-4)
    before = 0.25 * 2.0 / 0.5  # what, decayed once, is a quarter of the threshold
    assert made.fields["v_threshold"] == pytest.approx(2.0 - before)
    assert made.fields["v_leak"] == pytest.approx(-before)
    assert made.fields["v_reset"] == pytest.approx(-before)
    assert made.amplitude == 2.0
    currents = torch.tensor([[0.2, 1.4, 1.6, 2.5], [0.0, 0.9, 1.1, 5.0]])
    assert torch.equal(through_a_file(twin, currents)(currents), twin(currents))


def test_the_metadata_say_how_to_run_it(trained, digits, tmp_path: Path):
    path = tmp_path / "digits.nir"
    names = [f"number {digit}" for digit in range(10)]
    sd.export_nir(trained, path, digits[0][:3], class_names=names, mean=[0.305], std=[0.3758], dt=1e-3)
    told = nir.read(path).metadata
    assert told["dt"] == 1e-3
    assert told["timesteps"] == 4
    assert told["encoding"] == "direct"
    assert told["trained_with"] == ">="
    assert told["reset"] == "to v_reset"
    assert told["readout"] == "mean over the timesteps of the output"
    assert json.loads(told["class_names"]) == names
    assert told["mean"] == pytest.approx([0.305])
    assert told["std"] == pytest.approx([0.3758])
    from spikedistill.runfolder import save_network

    save_network(trained, tmp_path / "weights.safetensors")
    assert told["weights_sha256"] == hashlib.sha256((tmp_path / "weights.safetensors").read_bytes()).hexdigest()


def test_it_is_made_of_nodes_that_every_reader_knows(trained, digits):
    graph = nir.read(io.BytesIO(nir_bytes(trained, digits[0][:1], About(4))))
    kinds = {name: type(node).__name__ for name, node in graph.nodes.items()}
    assert set(kinds.values()) == {"Input", "Conv2d", "LIF", "AvgPool2d", "IF", "Flatten", "Affine", "Output"}
    assert [kinds[name] for name in ("conv1", "relu1", "pool1", "fc1", "fc2")] == [
        *("Conv2d", "LIF", "IF", "Affine", "Affine")
    ]
    folded = graph.nodes["conv1"].weight
    share = trained.bn1.weight / (trained.bn1.running_var + trained.bn1.eps).sqrt()
    torch.testing.assert_close(
        torch.from_numpy(folded), trained.conv1.weight.detach() * share.view(-1, 1, 1, 1).detach()
    )


def test_a_residual_addition_is_two_edges_into_a_node():
    network = sd.create_model("resnet14", num_classes=4, in_channels=1, width=4, spiking=True, timesteps=2).eval()
    graph = nir.read(io.BytesIO(nir_bytes(network, torch.randn(1, 1, 8, 8), About(2))))
    into = [source for source, name in graph.edges if name == "layer1.0.relu2"]
    assert into == ["layer1.0.conv2", "relu"]


def test_poisson_coding_is_compared_on_the_same_draws(digits):
    from spikedistill.spiking.encoding import PoissonEncoding

    torch.manual_seed(0)
    network = sd.create_model(
        "lenet5", num_classes=10, in_channels=1, image_size=12, spiking=True, timesteps=5, neuron=sd.LIF(threshold=0.2)
    ).eval()
    network.encoding = PoissonEncoding((0.0,), (1.0,))
    images = torch.rand(20, 1, 12, 12)
    file = through_a_file(network, images, encoding="poisson")
    agreement = compare_spikes(network, file, images)
    assert agreement.spikes > 99.95
    assert agreement.predictions == 20
    with pytest.raises(sd.UserError, match="takes poisson sequences"):
        file(images)


def test_sequences(digits):
    network = sd.create_model("lenet5", num_classes=10, in_channels=2, image_size=12, spiking=True, timesteps=3).eval()
    frames = torch.rand(3, 6, 2, 12, 12).round() * 3
    file = through_a_file(network, frames, encoding="sequence")
    agreement = compare_spikes(network, file, frames)
    assert agreement.images == agreement.predictions == 6
    assert agreement.spikes > 99.95


def test_it_may_be_run_for_another_number_of_timesteps(trained, digits):
    file = through_a_file(trained, digits[0][:8])
    file.timesteps = 2
    short = sd.create_model("2conv", num_classes=10, in_channels=1, image_size=8, width=8, spiking=True, timesteps=2)
    short.load_state_dict(trained.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(file(digits[0][:8]), short.eval()(digits[0][:8]), rtol=0.0, atol=1e-4)
