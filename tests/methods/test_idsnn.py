"""IDSNN: the loss against its formula, and the four rows of its ablation from two switches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from spikedistill.errors import UserError
from spikedistill.methods import Progress
from spikedistill.methods.idsnn import IDSNN
from spikedistill.recipe import InitSettings
from spikedistill.transfer import TRANSFERS

NOW = Progress(0, 2)


def test_defaults_are_the_authors() -> None:
    settings = IDSNN.Settings()
    assert (settings.alpha, settings.temperature) == (0.3, 4.0)
    with pytest.raises(UserError, match=r"method\.alpha must be at least 0"):
        IDSNN.Settings(alpha=-1.0)


def test_loss_is_equation_8(build, images: Tensor, labels: Tensor) -> None:
    student, teacher = build(spiking=True), build(seed=1)
    method = IDSNN(student, teacher, IDSNN.Settings(alpha=0.7, temperature=3.0), images)
    logits, losses = method(images, labels, NOW)
    z_s, z_t = logits.detach().double(), teacher(images).double()
    p = torch.softmax(z_t / 3, 1)
    kl = (p * (p.log() - torch.log_softmax(z_s / 3, 1))).sum(1).mean()
    ce = -torch.log_softmax(z_s, 1)[range(len(labels)), labels].mean()
    assert losses["task"].item() == pytest.approx(ce.item(), rel=1e-5)
    assert losses["response"].item() == pytest.approx(0.7 * 9 * kl.item(), rel=1e-5)
    assert losses.keys() == {"task", "response"}


def test_alpha_zero_asks_no_teacher(build, images: Tensor, labels: Tensor) -> None:
    student, teacher = build(spiking=True), build(seed=1)
    method = IDSNN(student, teacher, IDSNN.Settings(alpha=0.0), images)
    asked = []
    teacher.register_forward_hook(lambda *_: asked.append(1))
    assert method(images, labels, NOW)[1].keys() == {"task"}
    assert not asked


@pytest.mark.parametrize("alpha", [0.0, 0.3])
@pytest.mark.parametrize("kind", ["random", "resample"])
def test_two_switches_make_the_ablation(kind: str, alpha: float, build, images: Tensor, labels: Tensor) -> None:
    teacher, student = build("resnet20", seed=1), build("resnet14", spiking=True)
    start = student.layer2[1].conv1.weight.clone()
    report = TRANSFERS[kind](teacher, student, InitSettings(kind=kind))
    assert (report is not None) == (kind == "resample")
    expected = teacher.layer2[1].conv1.weight if kind == "resample" else start
    assert torch.equal(student.layer2[1].conv1.weight, expected)
    method = IDSNN(student, teacher, IDSNN.Settings(alpha=alpha), images).train()
    _, losses = method(images, labels, NOW)
    sum(losses.values()).backward()
    assert ("response" in losses) == bool(alpha)
    assert all(p.grad is not None for p in student.parameters())
