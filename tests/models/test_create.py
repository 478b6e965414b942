"""``create_model``: its options, its refusals; and the taps on any module."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from spikedistill import LIF, UserError, create_model, list_models
from spikedistill.models.features import taps
from spikedistill.models.registry import options_of

SIDE, CHANNELS, CLASSES, BATCH = 16, 3, 10, 6  # of ``small``
STEMMED = [name for name in list_models(ann_only=True) if "stem" in options_of(name)]


@pytest.mark.parametrize("name", STEMMED)
def test_both_stems(name, small):
    x = torch.randn(2, 3, 33, 40)
    for spiking in (False, True):
        size = {"image_size": 33} if "image_size" in options_of(name) else {}
        network = small(name, spiking=spiking, timesteps=1, stem="imagenet", **size)
        assert network(x).shape == (2, 10)
    with pytest.raises(UserError, match="unknown stem 'cifr'; did you mean 'cifar'"):
        small(name, stem="cifr")


def test_most_networks_have_a_stem_and_all_have_a_width():
    assert set(list_models(ann_only=True)) - set(STEMMED) == {"2conv", "lenet5", "vit-tiny"}
    assert all("width" in options_of(name) for name in list_models(ann_only=True))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet81", {}, "unknown model 'resnet81'; did you mean 'resnet"),
        ("resnet18", {"widht": 4}, "unknown option of model resnet18 'widht'; did you mean 'width'"),
        ("resnet18", {"width": 0}, "model resnet18: width must be at least 1, not 0"),
        ("resnet18", {"width": "64"}, "model resnet18: width must be a whole number, not '64'"),
        ("resnet18", {"width": 4.5}, "model resnet18: width must be a whole number, not 4.5"),
        ("resnet18", {"stem": 7}, "model resnet18: stem must be a name, not 7"),
        ("resnet18", {"num_classes": 0}, "num_classes must be at least 1, not 0"),
        ("resnet18", {"in_channels": True}, "in_channels must be a whole number, not True"),
        ("resnet18", {"spiking": True, "timesteps": 0}, "timesteps must be a whole number of at least 1, not 0"),
        ("vgg11", {"hidden": -1}, "hidden must be at least 0, not -1"),
        ("vgg11", {"hidden": "512"}, "hidden must be a whole number, not '512'"),
        ("vgg16", {"stem": "imagenet", "image_size": 31}, "at least 32x32 pixels, not 31"),
        ("2conv", {"image_size": 3}, "at least 4x4 pixels, not 3"),
        ("lenet5", {"image_size": 11}, "at least 12x12 pixels, not 11"),
        ("pyramidnet18", {"activations": 3}, "1 or 2 activations, not 3"),
        ("vgg11", {"output": "spike"}, "unknown output 'spike'; did you mean 'spikes'"),
        ("vgg11", {"output": 1}, "model vgg11: output must be a name, not 1"),
    ],
)
def test_refusals(name, options, message):
    with pytest.raises(UserError, match=message):
        create_model(name, **({"num_classes": 10, "in_channels": 3} | options))


@pytest.mark.parametrize("name", [name for name in list_models() if name[-3:] not in ("101", "152")])
def test_output_neurons_fire_on_the_currents_that_are_averaged_otherwise(name, small):
    averaged = small(name, spiking=True, timesteps=3).eval()
    fired = small(name, spiking=True, timesteps=3, output="spikes").eval()
    fired.load_state_dict(averaged.state_dict())
    x = torch.rand(BATCH, CHANNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) * 4
    with torch.no_grad():
        currents = averaged(x, per_step=True)
        spikes = fired(x, per_step=True)
    neuron = fired.output.neuron
    potential, expected = torch.zeros(BATCH, CLASSES), []
    for current in currents:
        potential = neuron.decay * potential + current
        expected.append((potential >= neuron.dynamics.threshold).float())
        potential = potential * (1 - expected[-1])
    assert torch.equal(spikes, torch.stack(expected))
    torch.testing.assert_close(fired(x) * 3, spikes.sum(0))


def test_an_ann_is_the_twin_of_a_network_whose_output_fires(small):
    ann, snn = (small("resnet20", spiking=spiking, output="spikes") for spiking in (False, True))
    snn.load_state_dict(ann.state_dict())
    x = torch.randn(2, CHANNELS, SIDE, SIDE)
    assert torch.equal(ann(x), small("resnet20").train(ann.training)(x))


def test_the_neuron_is_the_template():
    template = LIF(decay=0.25, threshold=2.0, reset="soft")
    snn = create_model("2conv", num_classes=2, in_channels=1, width=2, spiking=True, neuron=template)
    assert snn.spiking
    assert snn.get_submodule("relu2").neuron.settings() == template.settings()
    assert snn.get_submodule("relu2").neuron is not template


def test_an_encoding_makes_the_sequence(small, images):
    """With an encoding the network takes what it makes of the images, at any T."""
    snn = small("resnet14", spiking=True, timesteps=3).eval()
    direct = snn(images)
    snn.encoding = lambda x, timesteps: torch.stack([x * (t + 1) for t in range(timesteps)])
    by_hand = torch.stack([images, 2 * images, 3 * images])
    torch.testing.assert_close(snn(images, per_step=True), snn(by_hand, per_step=True), rtol=0, atol=0)
    assert not torch.allclose(snn(images), direct)


def test_taps_come_off(small, images):
    network = small("resnet14")
    with taps(network, network.stages, "after") as tap:
        loss = network(images).sum()
        features = tap.take()
        assert features["stage3"].grad_fn is not None
        loss.backward()
    network(images)
    assert tap.values == {}
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_taps_refuse_what_is_not_there():
    module = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    with (
        pytest.raises(UserError, match="no module '3' in the network for feature 'a'"),
        taps(module, {"a": "3"}, "after"),
    ):
        pass
    with pytest.raises(UserError, match="unknown feature side 'afer'; did you mean 'after'"), taps(module, {}, "afer"):
        pass
