"""SAMD and NLD: the maps by hand and against the classical CAM, the noise's statistics, the losses' formulas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from spikedistill.errors import UserError
from spikedistill.methods import Progress
from spikedistill.methods.attention import SAMDNLD, ClassMaps, smoothed, spike_map

NOW = Progress(0, 2)


def unit(maps: Tensor) -> Tensor:
    return torch.stack([(m - m.min()) / (m.max() - m.min()) if m.max() > m.min() else m * 0 for m in maps])


def test_a_spike_map_counts_spikes_by_hand() -> None:
    spikes = torch.zeros(2 * 2, 3, 1, 4)  # T=2, B=2
    spikes[0, :, 0, 1] = 1  # image 0, step 0: three channels at pixel 1
    spikes[2, 0, 0, 1] = 1  # image 0, step 1: one more
    spikes[2, 1, 0, 3] = 1  # and one at pixel 3
    expected = torch.tensor([[[0, 1, 0, 0.25]], [[0, 0, 0, 0]]])
    assert torch.equal(spike_map(spikes, 2, 2), expected)
    rates = spikes.unflatten(0, (2, 2)).mean(0)  # what the method's taps give
    assert torch.equal(spike_map(rates, 2, 2), expected)
    alone = torch.zeros(1, 1, 1, 2)
    alone[..., 0] = 0.25  # one spike in four steps
    assert torch.equal(spike_map(alone, 1, 4), torch.tensor([[[1.0, 0.0]]]))


def test_a_silent_map_keeps_its_gradient_small() -> None:
    spikes = torch.zeros(4, 3, 2, 2, requires_grad=True)
    spike_map(spikes, 2, 2)[0, 0, 0].backward()
    assert torch.isfinite(spikes.grad).all()
    assert spikes.grad.abs().max() <= 1.0


def test_grad_cam_is_the_classical_map_behind_a_linear_head(build, watched, images: Tensor) -> None:
    teacher = build(seed=1).eval().requires_grad_(False)
    plain_answer = teacher(images)
    maps_of = ClassMaps(teacher, {"stage3": teacher.stages["stage3"]})
    logits, maps = maps_of(images)
    assert torch.equal(logits, plain_answer)
    maps_of.close()
    seen = watched(teacher, teacher.stages["stage3"], "after")
    teacher(images)
    rows = teacher.fc.weight[plain_answer.argmax(1)].double()
    expected = unit(torch.relu((seen[0] * rows[:, :, None, None]).sum(1)))
    assert torch.allclose(maps["stage3"].double(), expected, atol=1e-5)
    assert maps["stage3"].amax() == 1.0


def test_grad_cam_of_several_stages_and_of_activations_in_place(plain, images: Tensor) -> None:
    points = {"early": "act1", "late": "act2"}
    teacher = plain(seed=1).eval().requires_grad_(False)
    _, both = ClassMaps(teacher, points)(images)
    early = teacher.act1(teacher.conv1(images)).requires_grad_()
    late = torch.relu(teacher.conv2(early))
    score = teacher.fc(late.mean((2, 3))).amax(1).sum()
    for name, feature, gradient in zip(both, (early, late), torch.autograd.grad(score, (early, late)), strict=True):
        expected = torch.relu((gradient.mean((2, 3), keepdim=True) * feature).sum(1)).detach()
        assert torch.allclose(both[name], unit(expected), atol=1e-4), name


def test_the_losses_by_their_formulas(build, watched, images: Tensor, labels: Tensor) -> None:
    student, teacher = build(spiking=True), build(seed=1)
    settings = SAMDNLD.Settings(beta=3.0, gamma=2.0, noise=0.0, map_temperature=1.5, temperature=4.0)
    method = SAMDNLD(student, teacher, settings, images)
    spikes = watched(student, student.stages["stage3"], "after")
    features = watched(teacher, teacher.stages["stage3"], "after")
    logits, losses = method(images, labels, NOW)
    assert losses.keys() == {"task", "response", "map/stage3"}
    z_t = teacher(images).double()
    rows = teacher.fc.weight[z_t.argmax(1)].double()
    cam = unit(torch.relu((features[0] * rows[:, :, None, None]).sum(1))).flatten(1)
    sam = unit(spikes[0].unflatten(0, (student.timesteps, len(labels))).sum(0).sum(1)).flatten(1)
    p, q = torch.softmax(cam / 1.5, 1), torch.softmax(sam / 1.5, 1)
    expected = 3.0 * 1.5**2 * (p * (p / q).log()).sum(1).mean()
    assert losses["map/stage3"].item() == pytest.approx(expected.item(), rel=1e-3)
    p, q = torch.softmax(z_t / 4, 1), torch.softmax(logits.detach().double() / 4, 1)
    assert losses["response"].item() == pytest.approx(2.0 * 16 * (p * (p / q).log()).sum(1).mean().item(), rel=1e-5)


def test_the_noise_has_the_logits_statistics() -> None:
    torch.manual_seed(0)
    logits = (torch.randn(1, 6) * 3 + 1).requires_grad_()
    noise = (smoothed(logits.expand(20000, 6), 0.1) - logits).detach() / 0.1
    assert noise.mean().item() == pytest.approx(logits.mean().item(), abs=0.05)
    assert noise.std().item() == pytest.approx(logits.std().item(), rel=0.02)
    flat = torch.zeros(2, 5, requires_grad=True)  # equal logits: no noise, and no gradient that is not a number
    smoothed(flat, 0.1).sum().backward()
    assert torch.equal(flat.grad, torch.ones(2, 5))


def test_the_default_is_the_last_stage_with_pixels_to_compare(build, images: Tensor, labels: Tensor) -> None:
    small = images[..., :8, :8]  # resnet18 brings 8x8 down to 1x1 in stage4
    student, teacher = build("resnet18", spiking=True), build("resnet18", seed=1)
    method = SAMDNLD(student, teacher, SAMDNLD.Settings(), small)
    assert "map/stage3" in method(small, labels, NOW)[1]
    method.close()
    with pytest.raises(UserError, match="stages with more: stage1, stage2, stage3"):
        SAMDNLD(student, teacher, SAMDNLD.Settings(stages=("stage4",)), small)


def test_the_teacher_gets_no_gradients_and_answers_as_before(build, images: Tensor, labels: Tensor) -> None:
    student, teacher = build(spiking=True), build(seed=1)
    before = teacher.eval()(images)
    method = SAMDNLD(student, teacher, SAMDNLD.Settings(stages=("stage1", "stage3")), images)
    _, losses = method(images, labels, NOW)
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert torch.equal(teacher(images), before)
    assert {"map/stage1", "map/stage3"} < losses.keys()
