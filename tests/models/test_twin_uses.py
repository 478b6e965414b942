"""``spikify`` on modules that serve several purposes, and on steps that only one mode has."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import spikedistill as sd
from spikedistill.models.activation import layers_of
from spikedistill.models.calibrate import calibrate
from spikedistill.models.fuse import optimise

IMAGES = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def twin_of(network: nn.Module, **settings) -> nn.Module:
    return sd.spikify(network, 3, sd.IF(threshold=0.2, reset="soft"), example_input=IMAGES, **settings)


def same(ann: nn.Module, network: nn.Module) -> None:
    """The same answers and gradients in evaluation and training mode."""
    for training in (False, True):
        for each in (ann, network):
            torch.manual_seed(0)
            each.train(training).zero_grad()
            each(IMAGES).square().sum().backward()
        torch.manual_seed(0)
        expected = network(IMAGES)
        torch.manual_seed(0)
        torch.testing.assert_close(ann(IMAGES), expected)
        for (key, ours), theirs in zip(ann.named_parameters(), network.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, msg=lambda text, key=key: f"{key}: {text}")


class Fusion(nn.Module):
    """One activation and one dropout for maps and for weights, as in a BiFPN."""

    def __init__(self, relu: nn.Module, times: int = 1):
        super().__init__()
        self.a, self.relu, self.drop, self.times = nn.Conv2d(3, 8, 3), relu, nn.Dropout(0.5), times
        self.w, self.fc = nn.Parameter(torch.tensor([[0.7], [-0.4]])), nn.Linear(8, 5)

    def forward(self, x):
        w = self.drop(self.relu(self.w))
        x = self.a(x)
        for _ in range(self.times):
            x = self.relu(x) * w[0] + w[1]
        return self.fc(self.drop(x.mean((2, 3))))


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("kind", [nn.ReLU, nn.PReLU, lambda: nn.LeakyReLU(0.1)], ids=["relu", "prelu", "leaky"])
@pytest.mark.filterwarnings("ignore:neurons take the place")
def test_an_activation_of_maps_and_of_weights_becomes_neurons_for_the_maps_alone(kind, times):
    torch.manual_seed(0)
    network = Fusion(kind(), times)
    twin = twin_of(network)
    assert len(layers_of(twin)) == times
    same(twin.to_ann(), network)
    twin.timesteps = 1
    weights = network.relu(network.w)
    current = network.a(IMAGES)
    for _ in range(times):
        current = (current >= 0.2).float() * weights[0] + weights[1]
    expected = network.fc(current.mean((2, 3)))
    torch.testing.assert_close(twin.eval()(IMAGES), expected)


class Twice(nn.Module):
    """One nn.PReLU used twice at one place or at two."""

    def __init__(self, places: int, uses: int = 2):
        super().__init__()
        self.a, self.act, self.uses, self.fc = nn.Linear(8, 8), nn.PReLU(8), uses, nn.Linear(8, 5)
        if places == 2:
            self.other = nn.Sequential(self.act)

    def forward(self, x):
        x = x[:, 0, 0]
        for _ in range(self.uses):
            x = self.act(self.a(x))
        return self.fc(x)


@pytest.mark.parametrize(("places", "uses"), [(1, 2), (2, 2), (2, 3)])
@pytest.mark.filterwarnings("ignore:neurons take the place")
def test_a_shared_slope_stays_one_parameter_of_one_name(places, uses):
    torch.manual_seed(0)
    network = Twice(places, uses)
    twin = twin_of(network)
    assert len(layers_of(twin)) == uses
    assert list(twin.state_dict()) == list(network.state_dict())
    assert [name for name, _ in twin.named_parameters()] == [name for name, _ in network.named_parameters()]
    same(twin.to_ann(), network)
    changed = {key: value + 0.5 for key, value in network.state_dict().items()}
    for assign in (False, True):
        for each in (copy.deepcopy(twin), copy.deepcopy(twin.to_ann()), copy.deepcopy(twin).double().float()):
            each.load_state_dict(changed, assign=assign)
            other = copy.deepcopy(network)
            other.load_state_dict(each.state_dict())
            ann = each.to_ann() if each.timesteps else each
            torch.testing.assert_close(ann(IMAGES), other(IMAGES))
            assert not torch.equal(ann(IMAGES), network(IMAGES))
    same(copy.deepcopy(twin.to_ann()), network)


class GivenSlope(nn.Module):
    """The network's own parameter as the slope of a function and of a method."""

    def __init__(self):
        super().__init__()
        self.fc, self.slope, self.head = nn.Linear(8, 8), nn.Parameter(torch.full((8,), 0.3)), nn.Linear(8, 5)
        self.inner = nn.Module()
        self.inner.slopes = nn.ParameterList([torch.tensor([0.1])])

    def forward(self, x):
        x = F.prelu(self.fc(x[:, 0, 0]), weight=self.slope)
        return self.head(self.fc(x).prelu(self.inner.slopes[0]))


@pytest.mark.filterwarnings("ignore:neurons take the place")
def test_a_slope_may_be_any_parameter_of_the_network():
    torch.manual_seed(0)
    network = GivenSlope()
    twin = twin_of(network)
    assert [one.activation for one in twin.replacements] == ["torch.prelu", "x.prelu()"]
    assert list(twin.state_dict()) == list(network.state_dict())
    same(twin.to_ann(), network)
    twin.load_state_dict({key: value + 0.5 for key, value in network.state_dict().items()}, assign=True)
    network.load_state_dict(twin.state_dict())
    same(copy.deepcopy(twin).to_ann(), network)


class Auxiliary(nn.Module):
    """Functional ReLUs of which one exists in training alone, and one that is written twice."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind, self.relu = kind, nn.ReLU() if kind == "module" else F.relu
        self.a, self.n, self.b, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 8), nn.Conv2d(8, 8, 3), nn.Linear(8, 5)

    def forward(self, x):
        x = self.a(x)
        if self.training:
            x = x + self.relu(self.n(x.mean((2, 3))))[:, :, None, None]
        x = self.relu(x)
        x = F.relu(self.b(x))
        if self.kind == "branches":
            x = F.relu(x + 1) if self.training else F.relu(1 + x)
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize("kind", ["function", "module", "branches"])
def test_what_training_alone_has_moves_no_neuron(kind):
    torch.manual_seed(0)
    network = Auxiliary(kind)
    twin = twin_of(network, calibration=IMAGES)
    same(twin.to_ann(), network)
    called = {training: [] for training in (False, True)}
    for path, layer in layers_of(twin).items():
        layer.register_forward_hook(lambda *_, path=path: called[twin.training].append(path))
    for training in (False, True):
        twin.train(training)(IMAGES)
    evaluation, both = called[False], called[True]
    assert both[1:] == evaluation
    assert both[0] not in evaluation
    shapes = {one.path: one.shape for one in twin.replacements}
    assert [shapes[path] for path in both[:3]] == [(8,), (8, 6, 6), (8, 4, 4)]
    assert set(calibrate(twin, IMAGES)) == set(evaluation)
    assert set(twin.stages.values()) <= set(evaluation)


class Noisy(nn.Module):
    """Two spiking layers, and noise of some kind between them in training mode."""

    def __init__(self, noise):
        super().__init__()
        self.noise, self.a, self.b, self.fc = noise, nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 5)

    def forward(self, x):
        h = F.relu(self.a(x))
        if self.training:
            h = self.noise(h)
        return self.fc(F.relu(self.b(h)).mean((2, 3)))


def _masked(h):
    mask = torch.ones_like(h)
    mask.bernoulli_(0.5)
    return h * mask


HELD = {
    "in place, as a statement": _masked,
    "in place, chained": lambda h: h * torch.ones_like(h).bernoulli_(0.5),
    "of a size": lambda h: h + torch.normal(0.0, 0.1, size=h.shape),
    "whole numbers": lambda h: h * torch.randint(0, 2, (h.size(0), 1, 1, 1)),
}


def recorded(noise) -> list[torch.Tensor]:
    """What the noise adds to constant maps ``[T, B, ...]`` in the twin's training mode, at T = 3."""
    network = Noisy(noise)
    nn.init.zeros_(network.a.weight)
    nn.init.ones_(network.a.bias)  # every neuron fires at every step
    twin = twin_of(network).train()
    seen: list[torch.Tensor] = []
    twin.b.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].unflatten(0, (3, -1))))
    twin(IMAGES)
    twin(IMAGES.expand(3, *IMAGES.shape))
    return seen


@pytest.mark.parametrize("kind", HELD)
def test_noise_is_the_same_at_every_step_however_it_is_written(kind):
    for steps in recorded(HELD[kind]):
        assert torch.equal(steps[0], steps[1]) and torch.equal(steps[0], steps[2])
        assert not torch.equal(steps[0, 0], steps[0, 1]), "images have noise of their own"


@pytest.mark.parametrize("draw", [torch.bernoulli, lambda p: p.bernoulli()], ids=["function", "method"])
def test_what_is_drawn_by_a_steps_own_probabilities_follows_them(draw):
    """The same uniform numbers at every step, and not the first step's answer."""
    network = Noisy(lambda h: draw(h / 2))
    nn.init.zeros_(network.a.weight)
    nn.init.constant_(network.a.bias, 0.1)  # threshold 0.2: silent, fires, silent
    twin = twin_of(network).train()
    seen: list[torch.Tensor] = []
    twin.b.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].unflatten(0, (3, -1))))
    twin(IMAGES)
    rates = seen[0].mean((1, 2, 3, 4)).tolist()
    assert rates[0] == rates[2] == 0.0 and 0.3 < rates[1] < 0.7


def test_an_order_of_images_that_is_drawn_is_refused():
    with pytest.raises(sd.UserError, match=r"'randperm'.*order of the images"):
        twin_of(Noisy(lambda h: h + h[torch.randperm(h.size(0))]))


class Shared(nn.Module):
    """One dropout for maps ``[B, C]`` and for tokens ``[N, B, C]``."""

    def __init__(self):
        super().__init__()
        self.a, self.drop, self.fc = nn.Conv2d(3, 8, 3), nn.Dropout(0.5), nn.Linear(8, 5)

    def forward(self, x):
        h = self.drop(F.relu(self.a(x)))
        tokens = self.drop(h.flatten(2).permute(2, 0, 1))
        return self.fc(F.relu(tokens).mean(0))


def test_one_dropout_for_two_layouts_knows_where_the_batch_is_at_each_call():
    torch.manual_seed(0)
    twin = twin_of(Shared()).train()
    seen: list[torch.Tensor] = []
    twin.drop.register_forward_hook(lambda _module, inputs, out: seen.append((inputs[0], out)))
    twin(IMAGES.expand(3, *IMAGES.shape))
    for (x, out), dim in zip(seen, (0, 1), strict=True):
        x, out = (value.unflatten(dim, (3, -1)).movedim(dim, 0) for value in (x, out))
        both = (x[0] != 0) & (x[1] != 0)
        assert both.any() and torch.equal((out[0] != 0)[both], (out[1] != 0)[both])


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad


def test_a_function_with_a_gradient_of_its_own_trains_behind_fused_layers():
    """Fused BatchNorms hand on what is not computed yet, of which such a function would see no gradient."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.bn, self.fc = nn.Conv2d(3, 64, 3, padding=1), nn.BatchNorm2d(64), nn.Linear(64, 5)

        def forward(self, x):
            return self.fc(F.relu(Doubled.apply(self.bn(self.a(x)))).mean((2, 3)))

    torch.manual_seed(0)
    images = torch.randn(12, 3, 20, 20)
    twin = sd.spikify(Net(), 3, sd.IF(threshold=0.2), example_input=images[:2]).train()
    expected = copy.deepcopy(twin)
    expected(images.expand(3, *images.shape)).square().sum().backward()
    optimise(twin, "fast")
    twin(images.expand(3, *images.shape)).square().sum().backward()
    torch.testing.assert_close(twin.a.weight.grad, expected.a.weight.grad, rtol=1e-3, atol=1e-4)


def test_a_call_that_asks_for_gradients_is_no_write():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)

        def forward(self, x):
            return self.fc(F.relu(self.a(x).requires_grad_()).mean((2, 3)))

    assert twin_of(Net())(IMAGES).shape == (3, 5)
