"""What ``spikify`` refuses: one sentence that names the place and the reason."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import spikedistill as sd


class Around(nn.Module):
    """A sound network around the module that is not: ``inner`` takes and gives ``[B, 8]``."""

    def __init__(self, inner):
        super().__init__()
        self.fc1, self.inner, self.fc2 = nn.Linear(6, 8), inner, nn.Linear(8, 4)

    def forward(self, x):
        return self.fc2(self.inner(torch.relu(self.fc1(x))))


class Does(nn.Module):
    """A module whose forward is the function."""

    def __init__(self, function):
        super().__init__()
        self.function, self.weight = function, nn.Parameter(torch.ones(8))

    def forward(self, x):
        return self.function(self, x)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(8, 8, batch_first=True)

    def forward(self, x):
        return self.lstm(x[:, None])[0][:, 0]


class Remembering(nn.Module):
    """A spiking neuron of somebody else's: a state in an attribute."""

    def __init__(self):
        super().__init__()
        self.v = 0.0

    def forward(self, x):
        self.v = self.v * 0.5 + x.mean(0)
        return x + self.v


class MyReLU(torch.autograd.Function):
    """The ReLU of a well-known tutorial."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, grad):
        return grad * (ctx.saved_tensors[0] > 0)


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return x * torch.sign(self.calls)


class Untraceable(nn.Module):
    """Code that fx cannot follow, with an activation inside."""

    def forward(self, x):
        assert type(x) is torch.Tensor
        return F.relu(x)


def aliased(_, x):
    y = x[:, :4]
    x.sub_(0.3)
    return torch.cat([y, y], 1)


class Beside(nn.Module):
    """Its only activation changes a tensor through a view of it."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.first(x)
        torch.relu_(x[:, :4])
        return self.last(x)


def randomly(module, x):
    return x * 2 if module.training and random.random() < 2.0 and next(NUMBERS) % 2 else x


NUMBERS = iter(range(1000))

INNER = {
    "condition on values": (lambda _, x: x * 2 if x.mean() > 0 else x, "'inner'.*values of a tensor"),
    "a value as a number": (lambda _, x: x * x.max().item(), "'inner'.*values of a tensor"),
    "a condition on a weight": (lambda m, x: x if m.weight.sum() > 0 else -x, "'inner'.*values of a tensor"),
    "a fixed batch size": (lambda _, x: x.view(2, 8), "'inner'.*view fails for another batch size.*x.size"),
    "the batch size as a number": (lambda _, x: x.view(int(x.size(0)), -1), "'inner'.*batch size is taken as a plain"),
    "the length of the batch": (lambda _, x: x.reshape(len(x), 8), "'inner'.*x.size"),
    "a loop over the batch": (lambda _, x: torch.stack([row * 2 for row in x]), "'inner'.*x.size"),
    "the mean over the batch": (lambda _, x: x - x.mean(0), "'inner' .mean.*do not stay apart"),
    "a neighbour in the batch": (lambda _, x: x + x.roll(1, 0), "'inner' .roll.*do not stay apart"),
    "the batch doubled": (lambda _, x: F.relu(torch.cat([x, -x])).chunk(2)[0], "'inner' .cat.*do not stay apart"),
    "attention over the batch": (
        lambda m, x: F.scaled_dot_product_attention(x[None], x[None], x[None])[0],
        "'inner' .scaled_dot_product_attention.*do not stay apart",
    ),
    "noise in evaluation": (lambda _, x: F.dropout(x), "'inner'.*draws random numbers.*training=self.training"),
    "whole numbers": (lambda _, x: x * F.relu(x.argmax(1) - 1)[:, None], "'inner' .relu.*whole numbers"),
    "a view changed behind its back": (aliased, "changed in place"),
    "a slope that is computed": (lambda m, x: F.prelu(x, m.weight.sigmoid()), "'inner'.*nn.PReLU"),
    "an activation in a function with a gradient of its own": (
        lambda _, x: MyReLU.apply(x),
        "'inner'.*cannot be traced.*activation inside .clamp",
    ),
    "python's random numbers": (randomly, "training mode.*random numbers outside torch"),
    "a module with weights made on the way": (lambda _, x: nn.Linear(8, 8)(x), "'inner'.*no sub-module|call to call"),
}
MODULES = {
    "a recurrent layer": (Recurrent, r"'inner\.lstm' \(LSTM\).*recurrent"),
    "a recurrent cell": (lambda: nn.GRUCell(8, 8), "'inner'.*recurrent"),
    "a state in an attribute": (Remembering, "'inner'.*keeps a state"),
    "a state in a buffer": (Counting, r"'inner\.calls'.*keeps a state"),
    "an activation in untraceable code": (Untraceable, "'inner'.*cannot be traced.*activation inside .relu"),
    "a spiking neuron": (sd.LIF, "'inner'.*spiking neuron already"),
    "statistics of the batch": (
        lambda: nn.BatchNorm1d(8, track_running_stats=False),
        "'inner'.*do not stay apart",
    ),
    "weights that do not exist yet": (lambda: nn.LazyLinear(8), "'inner'.*do not exist yet"),
}


@pytest.mark.parametrize("case", INNER)
def test_code_is_refused_by_its_place_and_reason(case):
    function, reason = INNER[case]
    with pytest.raises(sd.UserError, match=reason):
        sd.spikify(Around(Does(function)), example_input=torch.randn(2, 6))


def test_an_activation_of_a_view_is_refused_by_its_reason():
    with pytest.raises(sd.UserError, match=r"'relu_'.*writes into a view"):
        sd.spikify(Beside(), example_input=torch.randn(2, 6))


@pytest.mark.parametrize("case", MODULES)
def test_modules_are_refused_by_their_place_and_reason(case):
    make, reason = MODULES[case]
    with pytest.raises(sd.UserError, match=reason):
        sd.spikify(Around(make()), example_input=torch.randn(2, 6))


class Several(nn.Module):
    """Answers with two tensors, in training only."""

    def forward(self, x):
        y = torch.relu(x)
        return (y, y) if self.training else y


class TimestepsTaken(nn.Module):
    def __init__(self):
        super().__init__()
        self.timesteps = nn.ReLU()

    def forward(self, x):
        return self.timesteps(x)


@pytest.mark.parametrize(
    ("network", "example", "reason"),
    [
        (nn.Sequential(nn.Linear(6, 4), nn.Sigmoid()), torch.randn(2, 6), "no activation.*sigmoid"),
        (nn.Linear(6, 4), torch.randn(2, 6), "no activation"),
        (nn.Sequential(nn.Linear(6, 4), nn.ReLU()), torch.randn(2, 7), r"does not take example_input \[2, 7\]"),
        (nn.Sequential(nn.Linear(6, 4), nn.ReLU()), torch.randn(6), "a batch"),
        (Several(), torch.randn(2, 6), "several values"),
        (TimestepsTaken(), torch.randn(2, 6), "'timesteps'.*rename"),
        (nn.Sequential(nn.ReLU(), nn.Flatten(0)), torch.randn(2, 6), "no batch dimension in front"),
    ],
)
def test_networks_are_refused_as_a_whole(network, example, reason):
    with pytest.raises(sd.UserError, match=reason):
        sd.spikify(network, example_input=example)


def test_settings_are_refused():
    network, example = nn.Sequential(nn.Linear(6, 4), nn.ReLU()), torch.randn(2, 6)
    with pytest.raises(sd.UserError, match="at least 1"):
        sd.spikify(network, 0, example_input=example)
    twin = sd.spikify(network, example_input=example)
    with pytest.raises(sd.UserError, match="at least 1"):
        twin.timesteps = 0
    with pytest.raises(sd.UserError, match="ANN"):
        twin.to_ann().timesteps = 2


def test_a_refusal_leaves_torch_as_it_was():
    def patched():
        return torch.zeros, torch.autograd.Function.apply, nn.Module.__call__, torch.backends.mha.get_fastpath_enabled()

    network, example = Around(Does(lambda _, x: x.view(2, 8))), torch.randn(2, 6)
    before, state = patched(), torch.get_rng_state()
    with pytest.raises(sd.UserError):
        sd.spikify(network, example_input=example)
    assert patched() == before
    assert torch.equal(torch.get_rng_state(), state)
