"""SAKD: every variant against its formula, the weight's schedule, what is refused, and deep networks."""

from __future__ import annotations

import copy
from itertools import product

import pytest
import torch
from torch import Tensor

from spikedistill.errors import UserError
from spikedistill.methods import Progress
from spikedistill.methods.sakd import SAKD

NOW = Progress(0, 2)


def standardised(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    return (x - x.mean(dims, keepdim=True)) / (x.var(dims, correction=0, keepdim=True) + 1e-5).sqrt()


def test_the_defaults_are_the_papers_for_cifar() -> None:
    defaults = SAKD.Settings()
    assert (defaults.temperature, defaults.alpha, defaults.gamma, defaults.beta) == (20, 0, 1, 100)
    assert (defaults.transform, defaults.distance) == ("conv", "l2")


@pytest.mark.parametrize(
    ("transform", "distance", "level", "side"),
    list(product(("none", "conv", "norm"), ("l2", "l1"), ("stage", "block"), ("before", "after"))),
)
def test_features_by_the_formula(
    transform: str, distance: str, level: str, side: str, build, watched, images: Tensor, labels: Tensor
) -> None:
    student, teacher = build(spiking=True), build(seed=1)
    settings = SAKD.Settings(beta=7.0, transform=transform, distance=distance, level=level, side=side)
    method = SAKD(student, teacher, settings, images)
    points = student.stages if level == "stage" else student.blocks
    ours = {name: watched(student, path, side) for name, path in points.items()}
    theirs = {name: watched(teacher, path, side) for name, path in points.items()}
    _, losses = method(images, labels, NOW)
    expected = dict.fromkeys(("feature/stage1", "feature/stage2", "feature/stage3"), 0.0)
    for name in points:
        feature = ours[name][0].unflatten(0, (student.timesteps, len(labels))).mean(0)
        target = theirs[name][0]
        if transform == "norm":
            feature, target = standardised(feature, (2, 3)), standardised(target, (2, 3))
        if transform == "conv":
            key = f"feature_{name.replace('.', '_')}"
            weight = method.student_transforms[key][0].weight.detach().double()[:, :, 0, 0]
            feature = standardised(torch.einsum("oc,bchw->bohw", weight, feature), (0, 2, 3))
        difference = feature - target
        value = difference.square().mean() if distance == "l2" else difference.abs().mean()
        expected[f"feature/{name[:6]}"] += 7.0 * value.item()
    assert losses.keys() == {"task", "response", *expected}
    for term, value in expected.items():
        assert losses[term].item() == pytest.approx(value, rel=1e-4), term


def test_logits_and_labels_by_the_formula(build, images: Tensor, labels: Tensor) -> None:
    student, teacher = build(spiking=True), build(seed=1)
    method = SAKD(student, teacher, SAKD.Settings(alpha=0.5, gamma=3.0, temperature=2.0), images)
    logits, losses = method(images, labels, NOW)
    z_s, z_t = logits.detach().double(), teacher(images).double()
    p_t, p_s = torch.softmax(z_t / 2, 1), torch.softmax(z_s / 2, 1)
    assert losses["response"].item() == pytest.approx(3 * 4 * (p_t * (p_t / p_s).log()).sum(1).mean().item(), rel=1e-5)
    expected = -torch.log_softmax(z_s, 1)[range(len(labels)), labels].mean().item()
    assert losses["task"].item() == pytest.approx(0.5 * expected, rel=1e-5)


def test_the_feature_weight_drops_after_its_epochs(build, images: Tensor, labels: Tensor) -> None:
    settings = SAKD.Settings(beta=10.0, beta_until=2, beta_after=0.01)
    method = SAKD(build(spiking=True), build(seed=1), settings, images)
    assert [method.beta(Progress(epoch, 4)) for epoch in range(4)] == [10.0, 10.0, 0.01, 0.01]
    values = [method(images, labels, Progress(epoch, 4))[1] for epoch in (1, 2)]
    for term in ("feature/stage1", "feature/stage3"):
        assert values[1][term].item() == pytest.approx(values[0][term].item() / 1000, rel=1e-4)
    assert values[1]["response"].item() == pytest.approx(values[0]["response"].item())
    constant = SAKD(build(spiking=True), build(seed=1), SAKD.Settings(beta=10.0), images)
    assert [constant.beta(Progress(epoch, 4)) for epoch in (0, 3)] == [10.0, 10.0]


@pytest.mark.parametrize("transform", ["none", "norm"])
def test_nothing_to_learn_from_oneself(transform: str, plain, images: Tensor, labels: Tensor) -> None:
    teacher = plain(stages={"early": "act1", "late": "act2"})
    method = SAKD(copy.deepcopy(teacher), teacher, SAKD.Settings(transform=transform), images)
    _, losses = method(images, labels, NOW)
    torch.stack(list(losses.values())).sum().backward()  # alpha is 0: labels have no weight
    assert all(abs(value.item()) < 1e-6 for value in losses.values())
    assert all(p.grad.abs().max() < 1e-5 for p in method.student.parameters())


@pytest.mark.parametrize("transform", ["none", "norm"])
def test_other_channels_need_the_convolution(transform: str, build, images: Tensor, labels: Tensor) -> None:
    student, teacher = build(spiking=True, width=4), build(seed=1, width=6)
    with pytest.raises(UserError, match=f"method.transform={transform} needs features of equal channels.*4.*6"):
        SAKD(student, teacher, SAKD.Settings(transform=transform), images)
    _, losses = SAKD(student, teacher, SAKD.Settings(), images)(images, labels, NOW)
    assert all(torch.isfinite(value) for value in losses.values())


def test_one_pixel_cannot_be_standardised(build, images: Tensor) -> None:
    small = images[..., :8, :8]  # resnet18 brings 8x8 down to 1x1
    with pytest.raises(UserError, match="'stage4' has only one"):
        SAKD(build("resnet18", spiking=True), build("resnet18", seed=1), SAKD.Settings(transform="norm"), small)


@pytest.mark.parametrize("field", ["transform", "distance"])
def test_unknown_choices_are_refused(field: str) -> None:
    with pytest.raises(UserError, match=f"unknown method.{field} 'no'"):
        SAKD.Settings(**{field: "no"})


def test_logits_alone_need_no_features(plain, images: Tensor, labels: Tensor) -> None:
    method = SAKD(plain(), plain(seed=1), SAKD.Settings(beta=0.0), images)
    _, losses = method(images, labels, NOW)
    assert losses.keys() == {"task", "response"}


def test_every_block_of_a_deep_network_gets_a_gradient_of_its_own(build, images: Tensor, labels: Tensor) -> None:
    student, teacher = build("resnet50", spiking=True, timesteps=2), build("resnet50", seed=1)
    method = SAKD(student, teacher, SAKD.Settings(level="block", side="after"), images)
    assert len(method.student_transforms) == len(student.blocks) == 16
    _, losses = method(images, labels, NOW)
    for stage in range(1, 5):
        parameters = [student.get_submodule(f"layer{n}")[-1].bn3.weight for n in range(1, 5)]
        gradients = torch.autograd.grad(
            losses[f"feature/stage{stage}"], parameters, retain_graph=True, allow_unused=True
        )
        # A stage's own term trains its last block, without a path through the stages behind it.
        assert gradients[stage - 1] is not None
        assert gradients[stage - 1].abs().sum() > 0
        assert all(gradient is None for gradient in gradients[stage:])
