"""One framework for both structures: an ordinary Vision Transformer teaches a spiking transformer by every method."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from spikedistill.errors import UserError
from spikedistill.methods import METHODS, Progress
from spikedistill.methods.base import FROZEN_TEACHER

# Methods for one family only do not take a transformer.
TEACHING = [n for n, k in METHODS.items() if k.teacher_role == FROZEN_TEACHER and not hasattr(k, "student_model")]
WITH_FEATURES = {"kdsnn-feature", "sakd", "bkdsnn"}


@pytest.fixture
def student(build) -> nn.Module:
    return build("spikformer-tiny", spiking=True, width=16, depth=2, heads=2)


@pytest.fixture
def teacher(build) -> nn.Module:
    network = build("vit-tiny", seed=1, width=12, depth=6, heads=3, image_size=16)
    # Fresh blocks, of small weights, hardly add to the stream: nothing would tell one stage's feature from the next.
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return network


def test_the_methods_of_the_claim_are_among_them() -> None:
    assert {"kdsnn-response", "kdsnn-feature", "sakd", "idsnn"} <= set(TEACHING)


@pytest.mark.parametrize("name", TEACHING)
def test_two_steps_teach_the_student_and_leave_the_teacher(
    name: str, student: nn.Module, teacher: nn.Module, images: Tensor, labels: Tensor
) -> None:
    kind = METHODS[name]
    before, theirs = copy.deepcopy(student.state_dict()), copy.deepcopy(teacher.state_dict())
    method = kind(student, teacher, kind.Settings(), images[:2])
    method.train()
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.01)
    for epoch in range(2):
        optimizer.zero_grad(set_to_none=True)
        logits, losses = method(images, labels, Progress(epoch, 2))
        assert logits.shape == (len(labels), 5)
        assert all(value.dim() == 0 and value.isfinite() for value in losses.values()), losses
        torch.stack(list(losses.values())).sum().backward()
        for key, parameter in student.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), key
            assert parameter.grad.any(), key
        optimizer.step()
    if name in WITH_FEATURES:
        assert {term for term in losses if term.startswith("feature/")}, "features were compared"
    after = student.state_dict()
    assert any(not torch.equal(value, after[key]) for key, value in before.items() if key.endswith("weight"))
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert not any(module.training for module in teacher.modules())
    assert all(torch.equal(value, theirs[key]) for key, value in teacher.state_dict().items())


@pytest.mark.parametrize("name", ["kdsnn-feature", "sakd"])
def test_each_stage_of_the_student_is_held_against_the_teachers_of_that_name(
    name: str, student: nn.Module, teacher: nn.Module, images: Tensor, labels: Tensor, watched
) -> None:
    """The loss of a stage, worked out from what a bystander sees: which features meet, and at which size."""
    kind = METHODS[name]
    settings = kind.Settings(alpha=1.0) if name == "kdsnn-feature" else kind.Settings(beta=1.0)
    method = kind(student, teacher, settings, images[:2])
    assert [tuple(ours[1:]) for ours, _ in method.pairs.shapes.values()] == [(8, 16, 16), (16, 8, 8), (16, 4, 4)]
    assert [tuple(theirs[1:]) for _, theirs in method.pairs.shapes.values()] == [(12, 4, 4)] * 3
    spikes = {stage: watched(student, path, "after") for stage, path in student.stages.items()}
    targets = {stage: watched(teacher, path, "after") for stage, path in teacher.stages.items()}
    method.eval()  # BatchNorm of the regressors at its running statistics: zero mean, unit variance
    with torch.no_grad():
        _, losses = method(images, labels, Progress(0, 1))
    layers = method.regressors if name == "kdsnn-feature" else method.student_transforms
    for stage in student.stages:
        weight = layers[f"feature_{stage}"][0].weight.detach().double()[:, :, 0, 0]
        rates = spikes[stage][0].unflatten(0, (-1, len(images))).mean(0)
        mapped = torch.einsum("oc,bchw->bohw", weight, rates) / (1 + 1e-5) ** 0.5
        side = mapped.shape[-1] // 4
        mapped = mapped.unflatten(3, (4, side)).unflatten(2, (4, side)).mean((3, 5))
        target = targets[stage][0]
        distance = (target - mapped) ** 2
        if name == "kdsnn-feature":
            distance[(mapped <= target) & (target <= 0)] = 0.0
        torch.testing.assert_close(losses[f"feature/{stage}"].double(), distance.mean(), rtol=1e-4, atol=1e-6)


def test_weights_of_another_structure_are_not_taken_over(student: nn.Module, teacher: nn.Module) -> None:
    from spikedistill.transfer.copy import copy_weights
    from spikedistill.transfer.resample import resample_weights

    with pytest.raises(UserError, match=r"init\.kind=copy needs teacher and student of one architecture"):
        copy_weights(teacher, student)
    with pytest.raises(UserError, match="finds nothing in the teacher for any block of the student"):
        resample_weights(teacher, student)
