"""Each loss against its formula written out in float64, and zero with zero gradient where student equals teacher."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from spikedistill import losses

B, K, T, C, H, W = 3, 5, 2, 4, 3, 2


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2


def softmax(row: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in row)
    return [math.exp(value) / total for value in row]


def kl(student: Tensor, teacher: Tensor, tau: float) -> float:
    """tau^2 KL(teacher || student) of two vectors, term by term."""
    p, q = (softmax([value / tau for value in row.tolist()]) for row in (teacher, student))
    return tau**2 * sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))


def cross_entropy(logits: Tensor, label: int) -> float:
    return -math.log(softmax(logits.tolist())[label])


@pytest.mark.parametrize("tau", [1.0, 4.0, 20.0])
def test_soft_targets_are_the_tempered_divergence(tau: float) -> None:
    student, teacher = draw(B, K), draw(B, K, seed=1)
    expected = sum(kl(s, t, tau) for s, t in zip(student, teacher, strict=True)) / B
    assert losses.soft_targets(student.float(), teacher.float(), tau).item() == pytest.approx(expected, rel=2e-5)


def test_soft_targets_of_timesteps_average_over_them() -> None:
    student, teacher = draw(T, B, K), draw(B, K, seed=1)
    expected = sum(kl(student[t, b], teacher[b], 3.0) for t in range(T) for b in range(B)) / (T * B)
    assert losses.soft_targets(student.float(), teacher.float(), 3.0).item() == pytest.approx(expected, rel=2e-5)


def test_weighted_soft_targets_weigh_each_image() -> None:
    student, teacher, labels = draw(B, K), draw(B, K, seed=1), torch.tensor([4, 0, 2])
    expected = 0.0
    for s, t, label in zip(student, teacher, labels.tolist(), strict=True):
        weight = 1 - math.exp(-cross_entropy(s, label) / (cross_entropy(t, label) + 1e-7))
        expected += weight * kl(s, t, 2.0) / B
    value = losses.weighted_soft_targets(student.float(), teacher.float(), labels, 2.0)
    assert value.item() == pytest.approx(expected, rel=2e-5)


def test_the_weights_of_soft_targets_are_constants() -> None:
    student, teacher, labels = draw(1, K).requires_grad_(), draw(1, K, seed=1), torch.tensor([4])
    (ours,) = torch.autograd.grad(losses.weighted_soft_targets(student, teacher, labels, 2.0), student)
    (plain,) = torch.autograd.grad(losses.soft_targets(student, teacher, 2.0), student)
    ratio = ours / plain
    assert torch.allclose(ratio, ratio[0, 0].expand_as(ratio), rtol=1e-4)


def test_entropy_is_in_nats_at_the_temperature() -> None:
    logits = draw(T, B, K)
    rows = [softmax([value / 3.0 for value in row.tolist()]) for row in logits.flatten(0, 1)]
    expected = -sum(p * math.log(p) for row in rows for p in row) / len(rows)
    assert losses.entropy(logits.float(), 3.0).item() == pytest.approx(expected, rel=2e-5)
    assert losses.entropy(torch.zeros(B, K), 1.0).item() == pytest.approx(math.log(K))


def test_distances_by_their_formulas() -> None:
    student, teacher = draw(B, C, H, W), draw(B, C, H, W, seed=1)
    pairs = list(zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True))
    squares = sum((s - t) ** 2 for s, t in pairs)
    partial = sum(0.0 if s <= t <= 0 else (t - s) ** 2 for s, t in pairs)
    assert any(s <= t <= 0 for s, t in pairs)  # the first case occurs
    expected = {
        losses.squared_distance: squares / len(pairs),
        losses.absolute_distance: sum(abs(s - t) for s, t in pairs) / len(pairs),
        losses.partial_squared_distance: partial / len(pairs),
        losses.summed_squared_distance: squares / B,
    }
    for loss, value in expected.items():
        assert loss(student.float(), teacher.float()).item() == pytest.approx(value, rel=2e-5)


def test_partial_distance_by_hand() -> None:
    teacher = torch.tensor([-1.0, -1.0, 2.0, 0.0])
    student = torch.tensor([-3.0, -0.5, 1.0, -1.0]).requires_grad_()
    value = losses.partial_squared_distance(student, teacher)  # free, (0.5)^2, 1^2, free (T = 0)
    assert value.item() == pytest.approx((0.25 + 1.0) / 4)
    (gradient,) = torch.autograd.grad(value, student)
    assert torch.allclose(gradient, torch.tensor([0.0, 2 * 0.5 / 4, -2 * 1.0 / 4, 0.0]))


def test_saliency_is_compared_over_pixels() -> None:
    student, teacher = draw(B, H, W), draw(B, H, W, seed=1)
    expected = sum(kl(s.flatten(), t.flatten(), 2.0) for s, t in zip(student, teacher, strict=True)) / B
    value = losses.saliency_divergence(student.float(), teacher.float(), 2.0)
    assert value.item() == pytest.approx(expected, rel=2e-5)


RESPONSES = {
    "soft": lambda s, t: losses.soft_targets(s, t, 4.0),
    "weighted": lambda s, t: losses.weighted_soft_targets(s, t, torch.arange(B), 2.0),
}
FEATURES = {
    "l2": losses.squared_distance,
    "l1": losses.absolute_distance,
    "partial": losses.partial_squared_distance,
    "summed": losses.summed_squared_distance,
    "saliency": lambda s, t: losses.saliency_divergence(s[:, 0], t[:, 0], 2.0),
}


@pytest.mark.parametrize("name", [*RESPONSES, *FEATURES])
def test_nothing_to_learn_where_student_equals_teacher(name: str) -> None:
    shape = (B, K) if name in RESPONSES else (B, C, H, W)
    teacher = draw(*shape).float()
    student = teacher.clone().requires_grad_()
    value = {**RESPONSES, **FEATURES}[name](student, teacher)
    (gradient,) = torch.autograd.grad(value, student)
    assert abs(value.item()) < 1e-6
    assert gradient.abs().max().item() < 1e-6


@pytest.mark.parametrize("name", [*RESPONSES, *FEATURES])
def test_half_precision_is_computed_in_single(name: str) -> None:
    shape = (B, K) if name in RESPONSES else (B, C, H, W)
    student, teacher = draw(*shape).bfloat16(), draw(*shape, seed=1).bfloat16()
    loss = {**RESPONSES, **FEATURES}[name]
    value = loss(student, teacher)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss(student.float(), teacher.float()).item())
