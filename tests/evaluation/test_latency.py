"""Accuracy by timesteps and early exit, against a network whose answers are written down."""

from __future__ import annotations

from collections.abc import Iterator
from math import exp

import pytest
import torch
from torch import Tensor, nn

import spikedistill as sd
from spikedistill.evaluation.accuracy import evaluate
from spikedistill.evaluation.latency import latency

# The logit of class 1 after each step (class 0 has 0), per image; T = 2, so four steps are run.
STEPS = torch.tensor(
    [
        [3.0, 3.0, 3.0, 3.0],  # sure from the start
        [-1.0, 4.0, 0.0, 0.0],  # wrong first, mean 1.5 after two
        [1.0, -5.0, 9.0, 9.0],  # right first, then wrong, then right
        [0.5, 0.5, -9.0, 0.0],  # never sure, wrong from the third step on
    ]
)


class Written(nn.Module):
    """Answers as ``STEPS`` says; the image is the number of its row."""

    timesteps = 2

    def forward(self, x: Tensor, per_step: bool = False) -> Tensor:
        logit = STEPS[x[:, 0, 0, 0].long()].t()[: self.timesteps]
        steps = torch.stack([torch.zeros_like(logit), logit], -1)
        return steps if per_step else steps.mean(0)


class Batches:
    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return 2

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        half = len(self.labels) // 2
        yield self.images[:half], self.labels[:half]
        yield self.images[half:], self.labels[half:]


WRITTEN = Batches(torch.arange(4.0).view(4, 1, 1, 1), torch.ones(4, dtype=torch.int64))


def test_accuracy_and_exits_by_hand():
    network = Written()
    found = latency(network, WRITTEN)
    assert network.timesteps == 2
    assert (found.timesteps, found.images) == (2, 4)
    # means after 1, 2, 3, 4 steps: 3 3 3 3; -1 1.5 1 0.75; 1 -2 5/3 3.5; .5 .5 -8/3 -2
    assert found.accuracy == {1: 75.0, 2: 75.0, 3: 75.0, 4: 75.0}
    exits = {one.confidence: one for one in found.exits}
    assert exits[0.0].timesteps == 1.0
    assert exits[0.0].accuracy == 75.0
    assert exits[1.0].timesteps == 2.0
    assert exits[1.0].shares == (0.0, 1.0)
    # sigmoid(3) = 0.953, sigmoid(1) = 0.731: at 0.7 the first three stop at once (the second of them wrong)
    assert 0.7 < 1 / (1 + exp(-1)) < 0.8
    assert exits[0.7].shares == (0.75, 0.25)
    assert exits[0.7].timesteps == 1.25
    assert exits[0.7].accuracy == 75.0
    # at 0.9 only the first stops; the second has become right, the third wrong
    assert exits[0.9].shares == (0.25, 0.75)
    assert exits[0.9].accuracy == 75.0


def test_one_pass_gives_what_separate_runs_give():
    torch.manual_seed(0)
    network = sd.create_model("2conv", num_classes=4, in_channels=1, image_size=8, width=8, spiking=True, timesteps=2)
    batches = Batches(torch.randn(60, 1, 8, 8), torch.randint(0, 4, (60,)))
    network.train()
    network(batches.images)  # BatchNorm statistics
    found = latency(network, batches)
    assert network.training
    assert network.timesteps == 2
    for steps, accuracy in found.accuracy.items():
        network.timesteps = steps
        assert evaluate(network, batches, 4).accuracy == pytest.approx(accuracy)
    assert list(found.accuracy) == [1, 2, 3, 4]
    times = [one.timesteps for one in found.exits]
    assert times == sorted(times)
    assert found.exits[-1].accuracy == pytest.approx(found.accuracy[2])


def test_an_ann_has_no_latency():
    with pytest.raises(sd.UserError, match="ANN"):
        latency(nn.Linear(2, 2), WRITTEN)


def test_output_neurons_are_sure_by_their_spikes():
    """A class that fires at every step, the others never: rates between 0 and 1 would give 0.23 for ever."""

    class Firing(Written):
        output = nn.Identity()

        def forward(self, x: Tensor, per_step: bool = False) -> Tensor:
            steps = torch.zeros(self.timesteps, len(x), 2)
            steps[..., 1] = 1.0
            return steps if per_step else steps.mean(0)

    exits = {one.confidence: one.timesteps for one in latency(Firing(), WRITTEN).exits}
    assert exits[0.7] == 1.0 and exits[0.8] == 2.0  # 1 / (1 + exp(-1)) = 0.73, 1 / (1 + exp(-2)) = 0.88
