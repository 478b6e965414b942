"""Every method of the registry trains, leaves its teacher alone, and leaves nothing of itself behind."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from spikedistill.errors import UserError
from spikedistill.methods import METHODS, Method, Progress
from spikedistill.methods.base import FROZEN_TEACHER, JOINT_TEACHER, NO_TEACHER

Make = Callable[[str], tuple[Method, nn.Module, nn.Module | None]]


@pytest.fixture
def make(build, images: Tensor) -> Make:
    """Makes a method with its default settings, its student and its teacher (None where it has none)."""

    def method(name: str) -> tuple[Method, nn.Module, nn.Module | None]:
        kind = METHODS[name]
        # A method that trains networks of one family only names one of them.
        model = getattr(kind, "student_model", "resnet14")
        student = build(model, spiking=kind.spiking_student)
        teachers = {
            NO_TEACHER: lambda: None,
            FROZEN_TEACHER: lambda: build(seed=1),
            JOINT_TEACHER: lambda: build(model),
        }
        teacher = teachers[kind.teacher_role]()
        torch.manual_seed(2)
        return kind(student, teacher, kind.Settings(), images[:2]), student, teacher

    return method


def checksum(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def hooks(network: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in network.modules() for kind in kinds)


def steps(method: Method, images: Tensor, labels: Tensor, count: int = 2) -> dict[str, Tensor]:
    """Trains a few steps as the engine does; returns the last one's losses."""
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.05)
    losses: dict[str, Tensor] = {}
    method.train()
    for epoch in range(count):
        logits, losses = method(images, labels, Progress(epoch, count))
        assert logits.shape == (len(labels), 5)
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return losses


@pytest.mark.parametrize("name", sorted(METHODS))
def test_two_steps_train_the_student_only(name: str, make: Make, images: Tensor, labels: Tensor) -> None:
    method, _, teacher = make(name)
    kind, before = METHODS[name], copy.deepcopy(method.deployable().state_dict())
    theirs = checksum(teacher) if teacher is not None else ""
    losses = steps(method, images, labels)
    assert losses
    assert all(value.dim() == 0 and torch.isfinite(value) for value in losses.values())
    after = method.deployable().state_dict()
    changed = [key for key, value in before.items() if not torch.equal(value, after[key])]
    assert any(key.endswith("weight") for key in changed)
    if kind.teacher_role == FROZEN_TEACHER:
        assert teacher is not None
        assert checksum(teacher) == theirs
        assert not any(module.training for module in teacher.modules())
        assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
        assert not {id(p) for p in teacher.parameters()} & {id(p) for p in method.parameters()}


@pytest.mark.parametrize("name", sorted(METHODS))
def test_nothing_of_the_method_is_left(name: str, make: Make, build, images: Tensor, labels: Tensor) -> None:
    method, student, teacher = make(name)
    steps(method, images, labels)
    kind = METHODS[name]
    plain = build(getattr(kind, "student_model", "resnet14"), spiking=kind.spiking_student)
    deployed = method.deployable()
    assert {k: v.shape for k, v in deployed.state_dict().items()} == {k: v.shape for k, v in plain.state_dict().items()}
    plain.load_state_dict(deployed.state_dict())
    method.close()
    assert hooks(student) == hooks(deployed) == (hooks(teacher) if teacher is not None else 0) == 0
    assert torch.allclose(plain.eval()(images), method.deployable().eval()(images), atol=1e-5)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_method_goes_on_from_its_state(name: str, make: Make, images: Tensor, labels: Tensor) -> None:
    first, _, _ = make(name)
    steps(first, images, labels)
    second, _, _ = make(name)
    second.load_state_dict(first.state_dict())
    results = []
    for method in (first, second):
        torch.manual_seed(3)
        results.append(steps(method, images, labels))
    assert results[0].keys() == results[1].keys()
    for term, value in results[0].items():
        assert torch.equal(value, results[1][term]), term


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_deep_copy_trains_on_its_own(name: str, make: Make, images: Tensor, labels: Tensor) -> None:
    method, student, _ = make(name)
    twin, before = copy.deepcopy(method), checksum(student)
    torch.manual_seed(3)
    theirs = steps(twin, images, labels)
    assert checksum(student) == before
    torch.manual_seed(3)
    ours = steps(method, images, labels)
    assert {term: value.item() for term, value in ours.items()} == {term: v.item() for term, v in theirs.items()}


@pytest.mark.parametrize("name", sorted(METHODS))
def test_extras_are_not_the_students(name: str, make: Make) -> None:
    method, _, _ = make(name)
    extras = [key for key in method.state_dict() if not key.startswith("student.")]
    assert not set(extras) & set(method.deployable().state_dict())
    assert METHODS[name].summary


@pytest.mark.parametrize("name", sorted(n for n, kind in METHODS.items() if kind.teacher_role != NO_TEACHER))
def test_a_method_without_its_teacher_is_refused(name: str, build, images: Tensor) -> None:
    kind = METHODS[name]
    student = build(getattr(kind, "student_model", "resnet14"), spiking=True)
    with pytest.raises(UserError, match="needs a teacher"):
        kind(student, None, kind.Settings(), images)


@pytest.mark.parametrize("name", METHODS)
def test_a_sequence_that_shows_the_image_at_every_step_gives_the_images_losses(
    make: Make, name: str, images: Tensor, labels: Tensor
) -> None:
    """Event frames come as sequences; the student takes them step by step, an ANN sees their mean."""
    method, student, _ = make(name)
    timesteps = getattr(student, "timesteps", None) or 3
    losses = []
    for given in (images, images.expand(timesteps, *images.shape)):
        torch.manual_seed(4)
        again = copy.deepcopy(method).train()
        losses.append(again(given, labels, Progress(0, 2))[1])
    assert losses[0].keys() == losses[1].keys()
    for term, value in losses[0].items():
        assert torch.allclose(value, losses[1][term], rtol=1e-4, atol=1e-5), term
