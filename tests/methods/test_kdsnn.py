"""KDSNN: the two losses against their formulas, any set of stages, any pair of architectures."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from spikedistill.errors import UserError
from spikedistill.methods import METHODS, Progress
from spikedistill.methods.features import FeaturePairs
from spikedistill.methods.kdsnn import KDSNNFeature, KDSNNResponse

NOW = Progress(0, 2)


def batch_norm(x: Tensor) -> Tensor:
    """Training-mode BatchNorm at its initial weight and bias."""
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt()


def partial(student: Tensor, teacher: Tensor) -> float:
    pairs = zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True)
    return sum(0.0 if s <= t <= 0 else (t - s) ** 2 for s, t in pairs) / student.numel()


def test_response_is_soft_targets_and_labels(build, images: Tensor, labels: Tensor) -> None:
    student, teacher = build(spiking=True), build(seed=1)
    method = KDSNNResponse(student, teacher, KDSNNResponse.Settings(alpha=0.3, temperature=5.0), images)
    logits, losses = method(images, labels, NOW)
    z_s, z_t = logits.detach().double(), teacher(images).double()
    p = torch.softmax(z_t / 5, 1)
    kl = (p * (torch.log(p) - torch.log_softmax(z_s / 5, 1))).sum() / len(labels)
    ce = -torch.log_softmax(z_s, 1)[range(len(labels)), labels].mean()
    assert losses["response"].item() == pytest.approx(0.3 * 25 * kl.item(), rel=1e-5)
    assert losses["task"].item() == pytest.approx(0.7 * ce.item(), rel=1e-5)
    assert losses.keys() == {"task", "response"}


def test_feature_is_the_partial_distance_of_regressed_rates(build, watched, images: Tensor, labels: Tensor) -> None:
    student, teacher = build(spiking=True, width=4), build(seed=1, width=6)
    method = KDSNNFeature(student, teacher, KDSNNFeature.Settings(alpha=2.0), images)
    spikes = {name: watched(student, path, "after") for name, path in student.stages.items()}
    currents = {name: watched(teacher, path, "before") for name, path in teacher.stages.items()}
    _, losses = method(images, labels, NOW)
    assert losses.keys() == {"task", "feature/stage1", "feature/stage2", "feature/stage3"}
    for name in student.stages:
        (folded,), (target,) = spikes[name], currents[name]
        rates = folded.unflatten(0, (student.timesteps, len(labels))).mean(0)
        weight = method.regressors[f"feature_{name}"][0].weight.detach().double()[:, :, 0, 0]
        mapped = batch_norm(torch.einsum("oc,bchw->bohw", weight, rates))
        assert losses[f"feature/{name}"].item() == pytest.approx(2.0 * partial(mapped, target), rel=1e-4)


@pytest.mark.parametrize("stages", [("stage2",), ("stage3", "stage1")])
def test_any_set_of_stages(stages: tuple[str, ...], build, images: Tensor, labels: Tensor) -> None:
    method = KDSNNFeature(build(spiking=True), build(seed=1), KDSNNFeature.Settings(stages=stages), images)
    _, losses = method(images, labels, NOW)
    assert losses.keys() == {"task", *(f"feature/{stage}" for stage in stages)}


@pytest.mark.parametrize("pair", [("2conv", "resnet18"), ("resnet14", "wrn16-2"), ("vgg11", "pyramidnet18")])
def test_any_pair_of_architectures(pair: tuple[str, str], build, images: Tensor, labels: Tensor) -> None:
    options = {"image_size": 16} if pair[0] in ("2conv", "vgg11") else {}
    student, teacher = build(pair[0], spiking=True, **options), build(pair[1], seed=1)
    method = KDSNNFeature(student, teacher, KDSNNFeature.Settings(), images)
    _, losses = method(images, labels, NOW)
    assert all(torch.isfinite(value) for value in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is not None for p in method.regressors.parameters())


def test_sequences_are_features_too(build, images: Tensor, labels: Tensor) -> None:
    sequence = torch.stack([images, images.roll(1, 0)])
    method = KDSNNFeature(build(spiking=True), build(seed=1), KDSNNFeature.Settings(), sequence)
    logits, losses = method(sequence, labels, NOW)
    assert logits.shape == (len(labels), 5)
    assert all(torch.isfinite(value) for value in losses.values())


def test_networks_of_a_users_own(plain, images: Tensor, labels: Tensor) -> None:
    points = {"early": "act1", "late": "act2"}
    student, teacher = plain(4, stages=points), plain(6, seed=1, stages=points)
    _, losses = KDSNNFeature(student, teacher, KDSNNFeature.Settings(), images)(images, labels, NOW)
    assert losses.keys() == {"task", "feature/early", "feature/late"}
    with pytest.raises(UserError, match="names no features"):
        KDSNNFeature(plain(), teacher, KDSNNFeature.Settings(), images)
    with pytest.raises(UserError, match=r"unknown feature \(stage\) 'lat'; did you mean 'late'"):
        KDSNNFeature(student, teacher, KDSNNFeature.Settings(stages=("lat",)), images)
    with pytest.raises(UserError, match="the student's attribute 'stages' is of type list; it must be a dict"):
        KDSNNFeature(plain(stages=["act1"]), teacher, KDSNNFeature.Settings(), images)
    with pytest.raises(UserError, match=r"no module 'act' in the network for feature 'early'; did you mean 'act[12]'"):
        KDSNNFeature(plain(stages={"early": "act"}), teacher, KDSNNFeature.Settings(), images)
    with pytest.raises(UserError, match="takes maps"):
        flat = plain(stages={"early": "fc"})
        KDSNNFeature(flat, teacher, KDSNNFeature.Settings(), images)


def test_nothing_to_learn_from_oneself(plain, images: Tensor, labels: Tensor) -> None:
    teacher = plain()
    method = KDSNNResponse(copy.deepcopy(teacher), teacher, KDSNNResponse.Settings(alpha=1.0), images)
    _, losses = method(images, labels, NOW)
    losses["response"].backward()
    assert abs(losses["response"].item()) < 1e-6
    assert all(p.grad.abs().max() < 1e-6 for p in method.student.parameters())


def test_the_teacher_answers_first(build, watched, images: Tensor, labels: Tensor) -> None:
    for name in ("kdsnn-response", "kdsnn-feature", "sakd", "twld", "samd-nld", "bkdsnn"):
        student, teacher = build(spiking=True), build(seed=1)
        kind, order = METHODS[name], []
        method = kind(student, teacher, kind.Settings(), images)
        student.register_forward_pre_hook(lambda *_, seen=order: seen.append("student"))
        teacher.register_forward_pre_hook(lambda *_, seen=order: seen.append("teacher"))
        method(images, labels, NOW)
        assert order == ["teacher", "student"], name


@pytest.mark.parametrize("name", ["alpha", "temperature"])
def test_settings_out_of_range_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"method.{name} must be .*, not -1"):
        KDSNNResponse.Settings(**{name: -1})


class Teaches(nn.Module):
    """A teacher as people write them: what an activation has made is written over."""

    def __init__(self, rows: int = 1) -> None:
        super().__init__()
        self.a, self.relu, self.b, self.fc = nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 1), nn.Linear(6, 3)
        self.stages, self.rows = {"stage1": "relu"}, rows

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.a(x).unflatten(1, (self.rows, -1)).flatten(0, 1))
        h += 5
        return self.fc(h.unflatten(0, (len(x), -1)).flatten(1, 2).mean((2, 3)))


def test_a_feature_that_the_teacher_writes_over_is_taken_as_it_left_its_activation(images: Tensor) -> None:
    student, teacher = Teaches(), Teaches()
    pairs = FeaturePairs(student, teacher.eval(), images, sides=("after", "after"))
    teacher(images)
    student(images)
    target = pairs.take(len(images))["stage1"][1]
    torch.testing.assert_close(target, teacher.relu(teacher.a(images)))
    assert float(target.min()) == 0.0


def test_an_activation_with_several_rows_for_an_image_is_no_feature(images: Tensor) -> None:
    with pytest.raises(UserError, match=r"feature 'stage1' of the network Teaches has shape \[.*\] for .* images"):
        FeaturePairs(Teaches(), Teaches(rows=2), images, sides=("after", "after"))
