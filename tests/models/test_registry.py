"""Claims that hold for every registered network."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from spikedistill import PLIF, Network, UserError, create_model, list_models
from spikedistill.models.activation import Spike, layers_of
from spikedistill.models.features import Taps, taps
from spikedistill.models.registry import ANN_ONLY, MODELS, RESNETS, VARIANTS

EVERY = pytest.mark.parametrize("name", list_models(ann_only=True))
EVERY_SPIKING = pytest.mark.parametrize("name", list_models())
BOTH = [
    (name, spiking)
    for name in list_models(ann_only=True)
    for spiking in ((False,) if name in ANN_ONLY else (False, True))
]


def trained_a_little(network: Network, images: torch.Tensor) -> Network:
    """Running statistics that are not the initial ones, then evaluation mode."""
    with torch.no_grad():
        network(images)
    return network.eval()


def test_every_name_of_the_papers_is_there():
    published = {"2conv", "lenet5", "preactresnet20", "wrn16-2", "wrn28-4", "pyramidnet18", "spikformer-tiny"}
    published |= {f"vgg{depth}" for depth in (11, 13, 16)}
    published |= {f"{prefix}resnet{depth}" for prefix in ("", "sew-", "ms-") for depth in (18, 34, 50, 101, 152)}
    published |= {f"resnet{depth}" for depth in (14, 19, 20)}
    assert published <= set(list_models(ann_only=True))
    assert {prefix + name for prefix in VARIANTS for name in RESNETS} <= set(MODELS)


def test_ann_only_networks_are_listed_and_refuse_to_be_spiking():
    """They are left out of the loops over SNNs below: few, named, and each with a spiking side that is there."""
    assert ANN_ONLY == {"vit-tiny": "spikformer-tiny"}
    assert set(list_models(ann_only=True)) - set(list_models()) == set(ANN_ONLY)
    for name, side in ANN_ONLY.items():
        assert side in list_models()
        with pytest.raises(UserError) as refused:
            create_model(name, num_classes=2, in_channels=1, spiking=True)
        assert str(refused.value) == (
            f"model {name} is an ANN only; take {side} as the spiking network and {name} as its teacher"
        )


@pytest.mark.parametrize("name", ANN_ONLY)
@pytest.mark.parametrize("points", ["stages", "blocks"])
def test_features_of_an_ann_alone_are_maps(name, points, small, images):
    ann = small(name)
    paths = getattr(ann, points)
    assert list(ann.stages) == [f"stage{i}" for i in range(1, len(ann.stages) + 1)]
    assert {path.split(".")[0] for path in ann.blocks} == set(ann.stages)
    for stage, path in ann.stages.items():
        assert [end for block, end in ann.blocks.items() if block.startswith(f"{stage}.")][-1] == path
    with torch.no_grad(), taps(ann, paths, "before") as before, taps(ann, paths, "after") as after:
        ann(images)
        entered, left = before.take(), after.take()
    assert set(entered) == set(left) == set(paths)
    for feature, path in paths.items():
        assert left[feature].dim() == 4, "a feature has a map"
        assert left[feature].shape[0] == len(images)
        torch.testing.assert_close(ann.get_submodule(path)(entered[feature]), left[feature], rtol=0, atol=0)


@pytest.mark.parametrize(("name", "spiking"), BOTH, ids=lambda value: {True: "snn", False: "ann"}.get(value, value))
def test_trains(name, spiking, small, images):
    network = small(name, spiking=spiking)
    logits = network(images)
    assert logits.shape == (6, 10)
    functional.cross_entropy(logits, torch.arange(6)).backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().sum() > 0, key


@EVERY_SPIKING
def test_twins_share_keys_and_shapes(name, small, images):
    ann, snn = small(name), small(name, spiking=True)
    trained_a_little(ann, images)
    ours, twins = ann.state_dict(), snn.state_dict()
    assert [(key, value.shape) for key, value in ours.items()] == [(key, value.shape) for key, value in twins.items()]
    snn.load_state_dict(ours, strict=True)
    for key, value in snn.state_dict().items():
        torch.testing.assert_close(value, ours[key], rtol=0, atol=0)
    assert len(layers_of(snn)) == sum(isinstance(module, nn.ReLU) for module in ann.modules())
    assert not any(isinstance(module, nn.ReLU) for module in snn.modules())


@EVERY_SPIKING
def test_time(name, small, images):
    snn = trained_a_little(small(name, spiking=True, timesteps=2), images)
    with torch.no_grad():
        output, steps = snn(images), snn(images, per_step=True)
        assert steps.shape == (2, 6, 10)
        torch.testing.assert_close(steps.mean(0), output)
        sequence = images.repeat(2, 1, 1, 1, 1)
        torch.testing.assert_close(snn(sequence), output, rtol=1e-4, atol=1e-5)
        # No state survives a call, and a sequence's length leaves the network's own T alone.
        snn(torch.randn(3, *images.shape))
        assert snn.timesteps == 2
        torch.testing.assert_close(snn(images), output, rtol=0, atol=0)
        snn.timesteps = 3
        longer = snn(images, per_step=True)
        assert longer.shape == (3, 6, 10)
        torch.testing.assert_close(longer[:2], steps, rtol=1e-4, atol=1e-5)
        snn.timesteps = 1
        torch.testing.assert_close(snn(images), steps[0], rtol=1e-4, atol=1e-5)


@EVERY
def test_an_ann_takes_the_mean_of_a_sequence(name, small, images):
    ann = trained_a_little(small(name), images)
    with torch.no_grad():
        assert ann.timesteps is None
        torch.testing.assert_close(ann(images, per_step=True)[0], ann(images), rtol=0, atol=0)
        sequence = torch.stack([images - 1, images + 1])
        torch.testing.assert_close(ann(sequence), ann(images), rtol=1e-3, atol=1e-4)
    with pytest.raises(UserError, match="no timesteps"):
        ann.timesteps = 2


@EVERY_SPIKING
def test_direct_coding_computes_the_stem_once(name, small, images):
    snn = small(name, spiking=True, timesteps=3)
    convolutions = [module for module in snn.modules() if isinstance(module, nn.Conv2d)]
    rows: list[int] = []
    convolutions[0].register_forward_hook(lambda _module, inputs, _output: rows.append(inputs[0].shape[0]))
    snn(images)
    snn(images.repeat(3, 1, 1, 1, 1))
    assert rows == [6, 18]
    assert isinstance(snn.encoder, Spike)
    assert snn.encoder is next(iter(layers_of(snn).values()))


@EVERY_SPIKING
@pytest.mark.parametrize("points", ["stages", "blocks"])
def test_features_are_what_enters_and_leaves_an_activation(name, points, small, images):
    snn = trained_a_little(small(name, spiking=True), images)
    paths = getattr(snn, points)
    assert list(snn.stages) == [f"stage{i}" for i in range(1, len(snn.stages) + 1)]
    assert {path.split(".")[0] for path in snn.blocks} == set(snn.stages)
    for stage, path in snn.stages.items():
        assert [end for block, end in snn.blocks.items() if block.startswith(f"{stage}.")][-1] == path
    with torch.no_grad(), taps(snn, paths, "before") as before, taps(snn, paths, "after") as after:
        snn(images)
        currents, spikes = before.take(), after.take()
        assert set(currents) == set(spikes) == set(paths)
        side = 10**9
        for feature, path in paths.items():
            assert spikes[feature].dim() == 4, "a feature has a map"
            assert spikes[feature].shape[0] == 12
            assert spikes[feature].shape[-1] <= side, "maps do not grow"
            side = spikes[feature].shape[-1]
            assert set(spikes[feature].unique().tolist()) <= {0.0, 1.0}
            activation = snn.get_submodule(path)
            constant = currents[feature].shape[0] == len(images)  # of the first activation, under direct coding
            assert not constant or activation is snn.encoder
            torch.testing.assert_close(activation(currents[feature], constant), spikes[feature], rtol=0, atol=0)
            before.take()
            after.take()


@EVERY_SPIKING
def test_a_copy_is_its_own(name, small, images):
    snn = trained_a_little(small(name, spiking=True, timesteps=2), images)
    tap = Taps(snn, {"last": list(snn.stages.values())[-1]}, "after")
    twin = copy.deepcopy(snn)
    twin.timesteps = 4
    clocks = {layer.clock for layer in layers_of(twin).values()} | {twin.activation().clock}
    assert len(clocks) == 1
    assert not clocks & {layer.clock for layer in layers_of(snn).values()}
    with torch.no_grad(), taps(twin, twin.stages, "after") as of_twin:
        steps = twin(images, per_step=True)
        assert steps.shape[0] == 4
        assert tap.values == {}, "the copy's features are not the original's"
        assert {value.shape[0] for value in of_twin.take().values()} == {24}
        assert snn.timesteps == 2
        torch.testing.assert_close(snn(images, per_step=True), steps[:2], rtol=1e-4, atol=1e-5)
        assert tap.take()["last"].shape[0] == 12
        assert of_twin.values == {}
        for parameter in twin.parameters():
            parameter.zero_()
        assert snn(images).abs().sum() > 0
    tap.close()


@EVERY
def test_wrong_images_are_refused(name, small, images):
    network = small(name)
    with pytest.raises(UserError, match=r"takes images \[B, 3, H, W\]"):
        network(images[:, :1])
    with pytest.raises(UserError, match="not \\[3, 16, 16\\]"):
        network(images[0])
    if network.image_size is not None:
        with pytest.raises(UserError, match="built for images of 16x16 pixels, not 12x16"):
            network(images[..., :12, :])
    else:
        assert network(images[..., :13, :]).shape == (6, 10)


@EVERY_SPIKING
def test_neurons_are_copies_of_the_template(name):
    neuron = PLIF(decay=0.25)
    with torch.device("meta"):
        snn = create_model(name, num_classes=2, in_channels=1, width=16, spiking=True, neuron=neuron)
    decays = {id(layer.neuron.decay_logit) for layer in layers_of(snn).values()}
    assert len(decays) == len(layers_of(snn))
    assert id(neuron.decay_logit) not in decays
    assert len([key for key in snn.state_dict() if key.endswith("neuron.decay_logit")]) == len(decays)


@EVERY
def test_widths_scale(name):
    with torch.device("meta"):
        one = create_model(name, num_classes=10, in_channels=3, width=16)
        two = create_model(name, num_classes=10, in_channels=3, width=32)
    first = [next(m for m in network.modules() if isinstance(m, nn.Conv2d)).out_channels for network in (one, two)]
    assert first[1] == 2 * first[0]


def test_what_enters_an_activation_that_overwrites_it():
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(inplace=True))
    with torch.no_grad(), taps(network, {"stage1": "1"}, "before") as tap:
        network(torch.linspace(-1, 1, 9).view(1, 1, 3, 3))
        assert tap.take()["stage1"].min() < 0
