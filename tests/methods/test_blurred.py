"""BKDSNN: the losses against their formulas, what the blur drops, and a restoration that has nothing to learn."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikedistill.errors import UserError
from spikedistill.methods import Progress
from spikedistill.methods.blurred import BKDSNN, Restoration

NOW = Progress(0, 2)


def test_the_blur_drops_whole_channels_of_single_images() -> None:
    torch.manual_seed(0)
    blurred = Restoration(400, 400, 0.15).blur(torch.full((10, 400, 2, 2), 0.75))
    assert set(blurred.unique().tolist()) == {0.0, 0.75}  # kept ones are not scaled up
    dropped = (blurred == 0).flatten(2)
    assert torch.equal(dropped.any(2), dropped.all(2))
    assert dropped.float().mean().item() == pytest.approx(0.15, abs=0.02)
    assert not torch.equal(blurred[0], blurred[1])


@pytest.mark.parametrize(
    ("width", "rescale", "pool"),
    [(4, False, False), (4, True, False), (6, False, False), (4, False, True), (4, True, True), (6, False, True)],
)
def test_the_feature_term_by_the_formula(
    width: int, rescale: bool, pool: bool, build, watched, images: Tensor, labels: Tensor
) -> None:
    student, teacher = build(spiking=True, width=4), build(seed=1, width=width)
    settings = BKDSNN.Settings(alpha=0.3, ratio=0.5, rescale=rescale, pool=pool)
    method = BKDSNN(student, teacher, settings, images)
    spikes = watched(student, student.stages["stage3"], "after")
    features = watched(teacher, teacher.stages["stage3"], "after")
    torch.manual_seed(4)
    _, losses = method(images, labels, NOW)
    rates = spikes[0].unflatten(0, (student.timesteps, len(labels))).mean(0)
    restoration = copy.deepcopy(method.restorations["feature_stage3"]).double()
    aligned = rates
    if width != 4:
        aligned = F.conv2d(rates, restoration.align.weight, restoration.align.bias)
    torch.manual_seed(4)
    mask = (torch.rand(aligned.shape[:2]) >= 0.5).double()[:, :, None, None]
    first, _, second = restoration.restore
    hidden = F.conv2d(mask * aligned, first.weight, first.bias, padding=1).clamp(min=0)
    restored = F.conv2d(hidden, second.weight, second.bias, padding=1)
    target = features[0]
    if pool:
        restored, target = restored.flatten(2).mean(2), target.flatten(2).mean(2)
    if rescale:
        target = target / target.max() * rates.max()
    expected = 0.3 * ((target - restored) ** 2).sum() / len(labels)
    assert losses["feature/stage3"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert losses.keys() == {"task", "response", "feature/stage3"}


def test_pooled_maps_are_restored_at_the_students_own_size(plain, watched, images: Tensor, labels: Tensor) -> None:
    student, teacher = plain(width=8, stages={"late": "act1"}), plain(seed=1, stages={"late": "act2"})
    ours, theirs = watched(student, "act1", "after"), watched(teacher, "act2", "after")
    method = BKDSNN(student, teacher, BKDSNN.Settings(alpha=0.3, ratio=0.0, pool=True), images)
    ours.clear(), theirs.clear()  # of the pass that learns the shapes
    _, losses = method(images, labels, NOW)
    assert ours[0].shape[2:] == (16, 16) and theirs[0].shape[2:] == (8, 8)
    restored = copy.deepcopy(method.restorations["feature_late"].restore).double()(ours[0])
    expected = 0.3 * ((theirs[0].mean((2, 3)) - restored.mean((2, 3))) ** 2).sum() / len(labels)
    assert losses["feature/late"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_the_logits_term_by_the_formula(build, images: Tensor, labels: Tensor) -> None:
    student, teacher = build(spiking=True), build(seed=1)
    logits, losses = BKDSNN(student, teacher, BKDSNN.Settings(gamma=1.5), images)(images, labels, NOW)
    z_s, z_t = logits.detach().double(), teacher(images).double()
    ce_s, ce_t = (-torch.log_softmax(z, 1)[range(len(labels)), labels] for z in (z_s, z_t))
    p, q = torch.softmax(z_t / 2, 1), torch.softmax(z_s / 2, 1)
    expected = 1.5 * 4 * ((1 - torch.exp(-ce_s / ce_t)) * (p * (p / q).log()).sum(1)).mean()
    assert losses["response"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert losses["task"].item() == pytest.approx(ce_s.mean().item(), rel=1e-5)


def test_nothing_to_learn_from_a_restoration_that_is_right(plain, images: Tensor, labels: Tensor) -> None:
    teacher = plain(stages={"late": "act2"})
    method = BKDSNN(copy.deepcopy(teacher), teacher, BKDSNN.Settings(ratio=0.0), images)
    restore = method.restorations["feature_late"].restore
    for layer in (restore[0], restore[2]):
        nn.init.dirac_(layer.weight)
        nn.init.zeros_(layer.bias)
    _, losses = method(images, labels, NOW)
    distilled = losses["feature/late"] + losses["response"]
    distilled.backward()
    assert abs(distilled.item()) < 1e-6
    assert all(p.grad.abs().max() < 1e-6 for p in method.parameters())


def test_the_default_is_the_last_stage_in_common(build, images: Tensor, labels: Tensor) -> None:
    student, teacher = build("resnet14", spiking=True), build("resnet18", seed=1)
    _, losses = BKDSNN(student, teacher, BKDSNN.Settings(), images)(images, labels, NOW)
    assert "feature/stage3" in losses
    chosen = BKDSNN.Settings(stages=("stage1", "stage2"))
    _, losses = BKDSNN(build(spiking=True), teacher, chosen, images)(images, labels, NOW)
    assert losses.keys() == {"task", "response", "feature/stage1", "feature/stage2"}


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(UserError, match=r"method\.ratio must be between 0 and 1, not 1\.5"):
        BKDSNN.Settings(ratio=1.5)
