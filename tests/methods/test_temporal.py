"""TET and TWLD: each term against its formula, and who is refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from spikedistill.errors import UserError
from spikedistill.methods import Progress
from spikedistill.methods.temporal import TET, TWLD, correct_steps

NOW = Progress(0, 2)
T, B, K = 3, 4, 5


@pytest.fixture
def steps() -> Tensor:
    return torch.randn(T, B, K, generator=torch.Generator().manual_seed(5)) * 2


class Answer(nn.Module):
    """A teacher with given logits."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, x: Tensor) -> Tensor:
        return self.logits[: x.shape[0]]


def probabilities(logits: Tensor, tau: float) -> list[float]:
    powers = [math.exp(value / tau) for value in logits.double().tolist()]
    return [power / sum(powers) for power in powers]


def mean_divergence(steps: Tensor, target: Tensor, tau: float) -> float:
    total = 0.0
    for t in range(T):
        for b in range(B):
            p, q = probabilities(target[b], tau), probabilities(steps[t, b], tau)
            total += sum(x * (math.log(x) - math.log(y)) for x, y in zip(p, q, strict=True))
    return tau**2 * total / (T * B)


def mean_cross_entropy(steps: Tensor, labels: Tensor) -> float:
    return -sum(math.log(probabilities(steps[t, b], 1.0)[labels[b]]) for t in range(T) for b in range(B)) / (T * B)


def test_tet_by_the_formula(echo, steps: Tensor, images: Tensor, labels: Tensor) -> None:
    logits, losses = TET(echo(steps), None, TET.Settings(weight=0.1, level=0.5), images)(images, labels, NOW)
    squares = [(value - 0.5) ** 2 for value in steps.double().flatten().tolist()]
    assert losses["task"].item() == pytest.approx(0.9 * mean_cross_entropy(steps, labels), rel=1e-5)
    assert losses["level"].item() == pytest.approx(0.1 * sum(squares) / len(squares), rel=1e-5)
    assert torch.allclose(logits, steps.mean(0))


def test_twld_by_the_formula(echo, steps: Tensor, images: Tensor, labels: Tensor) -> None:
    teacher = torch.randn(B, K, generator=torch.Generator().manual_seed(6)) * 2
    settings = TWLD.Settings(alpha=0.2, beta=0.5, temperature=3.0, entropy=0.1)
    logits, losses = TWLD(echo(steps), Answer(teacher), settings, images)(images, labels, NOW)
    ensemble = steps.double().mean(0)
    rows = [probabilities(steps[t, b], 3.0) for t in range(T) for b in range(B)]
    entropy = -sum(p * math.log(p) for row in rows for p in row) / len(rows)
    assert losses["task"].item() == pytest.approx(mean_cross_entropy(steps, labels), rel=1e-5)
    assert losses["response"].item() == pytest.approx(0.2 * mean_divergence(steps, teacher, 3.0), rel=1e-5)
    assert losses["ensemble"].item() == pytest.approx(0.5 * mean_divergence(steps, ensemble, 3.0), rel=1e-5)
    assert losses["entropy"].item() == pytest.approx(-0.1 * entropy, rel=1e-5)
    assert torch.allclose(logits, steps.mean(0))


def test_the_entropy_term_is_an_option(echo, steps: Tensor, images: Tensor, labels: Tensor) -> None:
    method = TWLD(echo(steps), Answer(steps[0]), TWLD.Settings(), images)
    assert method(images, labels, NOW)[1].keys() == {"task", "response", "ensemble"}


def test_the_ensemble_is_a_constant(echo, steps: Tensor, images: Tensor, labels: Tensor) -> None:
    student = echo(steps)
    _, losses = TWLD(student, Answer(steps[0]), TWLD.Settings(beta=1.0, temperature=2.0), images)(images, labels, NOW)
    (gradient,) = torch.autograd.grad(losses["ensemble"], student.shift)
    # d/dz of tau^2 KL(p || softmax(z / tau)) with p constant is tau (softmax(z / tau) - p).
    target = torch.softmax(steps.mean(0) / 2, -1)
    assert torch.allclose(gradient, 2 * (torch.softmax(steps / 2, -1) - target) / (T * B), atol=1e-6)


def test_nothing_to_learn_where_every_step_equals_the_teacher(echo, images: Tensor, labels: Tensor) -> None:
    answer = torch.randn(B, K, generator=torch.Generator().manual_seed(7))
    student = echo(answer.expand(T, B, K).clone())
    _, losses = TWLD(student, Answer(answer), TWLD.Settings(), images)(images, labels, NOW)
    distilled = losses["response"] + losses["ensemble"]
    (gradient,) = torch.autograd.grad(distilled, student.shift)
    assert abs(distilled.item()) < 1e-6
    assert gradient.abs().max() < 1e-6


def test_the_ensemble_of_correct_steps_by_hand() -> None:
    right, wrong = [5.0, 1.0], [0.0, 2.0]
    steps = torch.tensor([[right, wrong], [wrong, wrong], [[3.0, 1.0], wrong]])  # label 0: two steps right, none
    expected = torch.tensor([[4.0, 1.0], [0.0, 0.0]])
    assert torch.equal(correct_steps(steps, torch.tensor([0, 0])), expected)


def test_both_train_a_network_of_the_registry(build, images: Tensor, labels: Tensor) -> None:
    student = build(spiking=True)
    for method in (
        TET(student, None, TET.Settings(), images),
        TWLD(student, build(seed=1), TWLD.Settings(ensemble="correct"), images),
    ):
        logits, losses = method.eval()(images, labels, NOW)
        assert torch.allclose(logits, student(images))
        torch.stack(list(losses.values())).sum().backward()
        assert student.conv1.weight.grad.abs().sum() > 0


def test_a_network_without_timesteps_is_refused(build, plain, images: Tensor) -> None:
    for student in (plain(), build()):
        with pytest.raises(UserError, match="no timesteps"):
            TET(student, None, TET.Settings(), images)
        with pytest.raises(UserError, match="no timesteps"):
            TWLD(student, plain(seed=1), TWLD.Settings(), images)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(UserError, match=r"method\.weight must be between 0 and 1, not 2"):
        TET.Settings(weight=2)
    with pytest.raises(UserError, match=r"unknown method\.ensemble 'best'"):
        TWLD.Settings(ensemble="best")
