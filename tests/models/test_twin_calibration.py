"""Conversion without training: thresholds from the ANN's activations."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import spikedistill as sd
from spikedistill.data.digits import read_digits
from spikedistill.models.activation import layers_of
from spikedistill.models.calibrate import calibrate
from spikedistill.models.features import taps

IF = sd.IF(reset="soft")


class Residual(nn.Module):
    """Functional ReLUs and a lambda shortcut."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
        self.conv3, self.bn3 = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.shortcut, self.fc = (lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, 8))), nn.Linear(16, 10)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(x)))
        y = F.relu(self.bn3(self.conv3(y)) + self.shortcut(x))
        return self.fc(F.adaptive_avg_pool2d(y, 1).flatten(1))


@pytest.fixture(scope="module")
def digits():
    train, test = read_digits()
    return train.images.float() / 255, train.labels, test.images.float() / 255, test.labels


@pytest.fixture(scope="module")
def ann(digits):
    images, labels, _, _ = digits
    torch.manual_seed(0)
    network = Residual()
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(6):
        for rows in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(network(images[rows]), labels[rows]).backward()
            optimizer.step()
    return network.eval()


@torch.no_grad()
def accuracy(network, digits) -> float:
    return 100.0 * float((network(digits[2]).argmax(1) == digits[3]).float().mean())


def test_conversion_approaches_the_ann_as_timesteps_grow(ann, digits):
    teacher = accuracy(ann, digits)
    assert teacher > 95.0
    plain = sd.spikify(ann, 4, IF, example_input=digits[0][:1])
    twin = sd.spikify(ann, 4, IF, example_input=digits[0][:1], calibration=digits[0][:256])
    assert accuracy(twin, digits) > accuracy(plain, digits) + 20.0
    results, errors = [], []
    with torch.no_grad():
        for timesteps in (4, 8, 16, 32):
            twin.timesteps = timesteps
            results.append(accuracy(twin, digits))
            errors.append(float((twin(digits[2]) - ann(digits[2])).abs().mean()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.35 * errors[0]
    assert results[0] > teacher - 10.0
    assert results[-1] > teacher - 1.0


def test_a_rate_is_the_activation_rounded_to_the_timesteps():
    """By hand: threshold 2 and T = 4 make steps of 0.5 up to 2, rounded half up, negative currents to zero."""
    twin = sd.spikify(nn.Sequential(nn.ReLU()), 4, IF, example_input=torch.randn(2, 3))
    assert calibrate(twin, torch.linspace(-2.0, 2.0, 401)[:, None], percentile=100.0) == {"0": 2.0}
    currents = torch.tensor([[-1.0, 0.0, 0.24, 0.25, 0.6, 1.0, 1.8, 2.0, 3.0]])
    assert twin(currents).tolist() == [[0.0, 0.0, 0.0, 0.5, 0.5, 1.0, 2.0, 2.0, 2.0]]
    calibrate(twin, torch.tensor([[2.0]]), start=0.0)
    assert twin(currents).tolist() == [[0.0, 0.0, 0.0, 0.0, 0.5, 1.0, 1.5, 2.0, 2.0]], "rounded down"
    assert twin.replacements[0].neuron["threshold"] == 2.0


def test_the_percentile_is_that_of_the_anns_activations(ann, digits):
    twin = sd.spikify(ann, example_input=digits[0][:1])
    found = {}
    for percentile in (50.0, 90.0, 100.0):
        found[percentile] = calibrate(twin, digits[0][:64], percentile)
    with torch.no_grad():
        first = F.relu(ann.bn1(ann.conv1(digits[0][:64])))
    assert found[100.0]["spikes.0"] == float(first.max())
    assert found[90.0]["spikes.0"] == pytest.approx(float(first.quantile(0.9)), rel=0.02)
    assert found[50.0]["spikes.0"] == (float(first.quantile(0.5)) or float(first.max()))
    in_batches = [(images, None) for images in digits[0][:64].split(16)]
    assert calibrate(twin, in_batches, 100.0) == found[100.0]


def test_the_percentile_is_of_all_pixels_and_any_number_of_batches():
    """128 images, 32 channels, 32x32: every 32nd value is of one column, here the only dark one."""
    column = torch.ones(32, 32)
    column[:, 0] = 0.1
    images = torch.rand(128, 32, 32, 32, generator=torch.Generator().manual_seed(0)) * column
    twin = sd.spikify(nn.Sequential(nn.ReLU(), nn.Flatten()), example_input=images[:1])
    (found,) = calibrate(twin, images, 90.0).values()
    assert found == pytest.approx(float(images[::8].quantile(0.9)), rel=0.01)
    many = (images * (1 if number % 2 else 3) for number in range(40))  # more values than torch sorts at once
    (found,) = calibrate(twin, many, 50.0).values()
    assert found == pytest.approx(float(torch.cat([images[::16], 3 * images[::16]]).quantile(0.5)), rel=0.01)


def test_spikes_stay_binary_and_weights_what_they_were(ann, digits):
    twin = sd.spikify(ann, 4, IF, example_input=digits[0][:1], calibration=[digits[0][:64]])
    layers = layers_of(twin)
    with torch.no_grad(), taps(twin, {path: path for path in layers}, "after") as tap:
        twin(digits[0][:8])
        for spikes in tap.take().values():
            assert set(spikes.unique().tolist()) == {0.0, 1.0}
    for key, value in ann.state_dict().items():
        assert torch.equal(twin.state_dict()[key], value)


def test_thresholds_are_in_the_state_and_an_anns_state_still_fits(ann, digits):
    twin = sd.spikify(ann, 4, IF, example_input=digits[0][:1], calibration=digits[0][:64])
    assert len(twin.state_dict()) == len(ann.state_dict()) + 2 * len(layers_of(twin))
    fresh = sd.spikify(Residual(), 4, IF, example_input=digits[0][:1]).eval()
    fresh.load_state_dict(twin.state_dict())
    expected = twin(digits[2][:8])
    assert torch.equal(fresh(digits[2][:8]), expected)
    assert torch.equal(copy.deepcopy(twin)(digits[2][:8]), expected)
    twin.load_state_dict(ann.state_dict())
    assert torch.equal(twin(digits[2][:8]), expected)
    assert torch.equal(twin.to_ann()(digits[2][:8]), ann(digits[2][:8]))


def test_gradients_are_those_of_scaled_weights(digits):
    """A threshold balanced to b is the same neuron behind weights divided by b, in front of weights multiplied by b."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    x = torch.randn(5, 4)
    twin = sd.spikify(network, 3, sd.LIF(surrogate="arctan"), example_input=x)
    balance = calibrate(twin, x, 90.0, start=0.0)["1"]
    scaled = copy.deepcopy(network)
    with torch.no_grad():
        for p in scaled[0].parameters():
            p /= balance
        scaled[2].weight *= balance
    other = sd.spikify(scaled, 3, sd.LIF(surrogate="arctan"), example_input=x)
    for each in (twin, other):
        each(x).square().sum().backward()
    torch.testing.assert_close(twin(x), other(x))
    gradients = [dict(each.named_parameters()) for each in (twin, other)]
    torch.testing.assert_close(gradients[0]["0.weight"].grad * balance, gradients[1]["0.weight"].grad)
    torch.testing.assert_close(gradients[0]["2.weight"].grad, gradients[1]["2.weight"].grad * balance)


def test_a_silent_layer_keeps_its_threshold():
    network = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU())
    nn.init.constant_(network[0].bias, -100.0)
    nn.init.constant_(network[2].bias, 1.0)
    twin = sd.spikify(network, example_input=torch.randn(2, 2))
    assert list(calibrate(twin, torch.randn(8, 2))) == ["3"]
    assert twin.replacements[0].neuron["threshold"] == 1.0


def test_refusals(ann, digits):
    twin = sd.spikify(ann, example_input=digits[0][:1])
    for network, batches, settings, reason in [
        (ann, digits[0], {}, "spikify the ANN first"),
        (twin.to_ann(), digits[0], {}, "spikify the ANN first"),
        (sd.create_model("lenet5", num_classes=10, in_channels=1, spiking=True, timesteps=2), digits[0], {}, "spikify"),
        (twin, [], {}, "at least one batch"),
        (twin, digits[0], {"percentile": 0.0}, "percentile"),
        (twin, digits[0], {"percentile": 101.0}, "percentile"),
        (twin, digits[0], {"start": 1.0}, "start"),
    ]:
        with pytest.raises(sd.UserError, match=reason):
            calibrate(network, batches, **settings)
