"""``spikify`` on activations that are written out, and on nonlinear steps that stay what they are."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import spikedistill as sd
from spikedistill.models.activation import layers_of


class Written(nn.Module):
    """A network with one ReLU and whatever ``function`` does to the maps between two convolutions."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 5, 1)
        self.relu6, self.act, self.tanh, self.softplus = nn.ReLU6(inplace=True), nn.Sigmoid(), nn.Tanh(), nn.Softplus()
        self.hard, self.zero, self.beta = nn.Hardsigmoid(), nn.Threshold(0.0, 0.0), nn.Parameter(torch.ones(1))

    def forward(self, x):
        x = self.function(self, self.a(x))
        return self.c(F.relu(self.b(x)).mean((2, 3), keepdim=True)).flatten(1)


class MemoryEfficientSwish(torch.autograd.Function):
    """As in EfficientNet-PyTorch."""

    @staticmethod
    def forward(ctx, i):
        ctx.save_for_backward(i)
        return i * torch.sigmoid(i)

    @staticmethod
    def backward(ctx, grad):
        s = torch.sigmoid(ctx.saved_tensors[0])
        return grad * (s * (1 + ctx.saved_tensors[0] * (1 - s)))


class StraightThrough(torch.autograd.Function):
    """A swish whose slope is not its own."""

    @staticmethod
    def forward(ctx, i):
        return i * torch.sigmoid(i)

    @staticmethod
    def backward(ctx, grad):
        return grad


def assigned(_, x):
    x = x * 1.0
    x[x < 0] = 0
    return x


@torch.no_grad()
def sign(x):
    return (x > 0).float()


RELU, SWISH = "relu", "sigmoid"
ACTIVATIONS = {
    "swish, a module": (SWISH, lambda m, x: x * m.act(x)),
    "swish, a method": (SWISH, lambda _, x: x.sigmoid().mul(x)),
    "swish, in place": (SWISH, lambda _, x: x.mul_(x.sigmoid())),
    "swish, an autograd function": (SWISH, lambda _, x: MemoryEfficientSwish.apply(x)),
    "swish, divided": (SWISH, lambda _, x: x / (1 + torch.exp(-x))),
    "gelu of CLIP": (SWISH, lambda _, x: x * torch.sigmoid(1.702 * x)),
    "where": (RELU, lambda _, x: torch.where(x > 0, x, 0)),
    "where, zeros_like": (RELU, lambda _, x: torch.where(x < 0, torch.zeros_like(x), x)),
    "times its sign": (RELU, lambda _, x: x * (x > 0)),
    "times its sign as a float": (RELU, lambda _, x: (x > 0).float() * x),
    "times its sign, without a gradient": (RELU, lambda _, x: x * sign(x)),
    "max with zeros": (RELU, lambda _, x: torch.max(x, torch.zeros_like(x))),
    "maximum with a zero": (RELU, lambda _, x: torch.maximum(x, torch.tensor(0.0))),
    "maximum with zeros of its size": (RELU, lambda _, x: torch.maximum(torch.zeros(x.shape), x)),
    "fmax": (RELU, lambda _, x: torch.fmax(x, x.new_zeros(x.shape))),
    "masked": (RELU, lambda _, x: x.masked_fill(x < 0, 0.0)),
    "assigned": (RELU, assigned),
    "half of it and its size": (RELU, lambda _, x: (x + x.abs()) / 2),
    "threshold": ("threshold", lambda _, x: F.threshold(x, 0, 0)),
    "threshold, a module": ("Threshold", lambda m, x: m.zero(x)),
    "relu6 by hand": ("relu6", lambda _, x: torch.min(torch.max(x, torch.tensor(0.0)), torch.tensor(6.0))),
    "leaky by hand": ("leaky_relu", lambda _, x: torch.where(x > 0, x, 0.2 * x)),
    "leaky by maximum": ("leaky_relu", lambda _, x: torch.maximum(x, 0.2 * x)),
    "gelu by erf": ("gelu", lambda _, x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0)))),
    "gelu by tanh": (
        "gelu",
        lambda _, x: 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0)))),
    ),
    "hard swish of MobileNetV3": ("hardswish", lambda m, x: x * m.relu6(x + 3) / 6),
    "hard swish, the gate first": ("hardswish", lambda _, x: x * (F.relu6(x + 3.0) / 6.0)),
    "hard swish by clamping": ("hardswish", lambda _, x: x * torch.clamp(x + 3, 0, 6) * 0.16666667),
    "hard swish, a module": ("hardswish", lambda m, x: x * m.hard(x)),
    "mish": ("mish", lambda _, x: x * torch.tanh(F.softplus(x))),
    "mish of modules": ("mish", lambda m, x: x * m.tanh(m.softplus(x))),
    "elu by hand": ("elu", lambda _, x: torch.where(x > 0, x, torch.exp(x) - 1)),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_neuron_takes_the_place_of_an_activation_that_is_written_out(name):
    written, function = ACTIVATIONS[name]
    torch.manual_seed(0)
    network, images = Written(function), 3 * torch.randn(3, 3, 8, 8)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "neurons take the place")
        twin = sd.spikify(network, 2, sd.IF(threshold=0.2), example_input=images)
    first, second = twin.replacements
    assert written in first.activation
    assert (first.loss is None) == (written in (RELU, "threshold", "Threshold"))
    assert (first.shape, second.activation) == ((8, 6, 6), "F.relu")
    assert len(layers_of(twin)) == 2
    ann = twin.to_ann()
    for each in (ann, network):
        each(images).square().sum().backward()
    torch.testing.assert_close(ann(images), network(images), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ann.a.weight.grad, network.a.weight.grad, rtol=1e-3, atol=1e-3)


ANALOGUE = {
    "a hidden tanh": ("'tanh'", lambda _, x: torch.tanh(x)),
    "a hidden sigmoid": ("'act'", lambda m, x: F.avg_pool2d(m.act(x), 2)),
    "a swish that learns": ("'act'", lambda m, x: x * m.act(m.beta * x)),
    "a shrinking threshold": ("'where'", lambda _, x: torch.where(x > 0.5, x, 0)),
    "times a threshold": ("'mul'", lambda _, x: x * (x > 0.5)),
    "tanh plus": ("'tanh'", lambda _, x: x + torch.tanh(x)),
    "a slope of its own": ("StraightThrough", lambda _, x: StraightThrough.apply(x)),
    "a threshold": ("'_threshold'", lambda _, x: F.threshold(x, 0.1, 0.0)),
    "size": ("'abs'", lambda _, x: x.abs()),
    "square": ("'mul'", lambda _, x: x * x),
    "power": ("'pow'", lambda _, x: x**2),
    "exponential": ("'exp'", lambda _, x: torch.exp(-x)),
    "maximum with a limit": ("'maximum'", lambda _, x: torch.maximum(x, torch.tensor(0.5))),
}
GATES = {
    "squeeze and excitation": lambda m, x: x * torch.sigmoid(m.b(x).mean((2, 3), keepdim=True)),
    "a hard gate": lambda _, x: x * (F.relu6(x.mean((2, 3), keepdim=True) + 3) / 6),
    "a linear gate": lambda _, x: torch.cat([x[:, :4] * torch.sigmoid(x[:, 4:])] * 2, 1),
    "a gate of tanh and sigmoid": lambda _, x: torch.cat([torch.tanh(x[:, :4]) * x[:, 4:].sigmoid()] * 2, 1),
    "attention": lambda _, x: (x.flatten(2) @ (x.flatten(2).mT @ x.flatten(2)).softmax(-1)).view_as(x),
    "attention by sigmoid": lambda _, x: ((x.flatten(2) @ x.flatten(2).mT).sigmoid() @ x.flatten(2)).view_as(x),
    "a highway": lambda m, x: m.act(x.mean(1, True)) * x + (1 - m.act(x.mean(1, True))) * x.roll(1, 1),
    "stochastic depth": lambda m, x: x * (torch.rand_like(x) > 0.5) if m.training else x,
    "norm over channels": lambda _, x: x * torch.rsqrt((x * x).mean(1, keepdim=True) + 1e-5),
    "unit length": lambda _, x: x / ((x**2).sum(1, keepdim=True).sqrt() + 1),
    "a scale": lambda m, x: x * torch.sigmoid(m.beta) + torch.tanh(m.beta),
}


@pytest.mark.parametrize("name", ANALOGUE)
def test_a_nonlinear_step_that_stays_is_named(name):
    place, function = ANALOGUE[name]
    with pytest.warns(UserWarning, match=f"stay analogue, .*{place}.*: no neuron takes their place") as told:
        twin = sd.spikify(Written(function), 2, example_input=torch.randn(3, 3, 12, 12))
    assert len(told) == 1
    assert [one.activation for one in twin.replacements] == ["F.relu"]


@pytest.mark.parametrize("name", GATES)
def test_a_gate_stays_without_a_word(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        twin = sd.spikify(Written(GATES[name]), 2, example_input=torch.randn(3, 3, 8, 8))
    assert [one.activation for one in twin.replacements] == ["F.relu"]
