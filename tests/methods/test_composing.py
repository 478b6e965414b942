"""Initialisation, distillation and joint training as axes of their own: each with the others, none left out."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

import spikedistill as sd
from spikedistill.assembly import assemble, start
from spikedistill.errors import UserError
from spikedistill.methods import METHODS, Progress
from spikedistill.methods.base import FROZEN_TEACHER, Lesson
from spikedistill.methods.joint import JointASNN
from spikedistill.recipebook import read_recipe
from spikedistill.run import train
from spikedistill.transfer import resample_weights

NOW = Progress(0, 2)
TEACH = [name for name, one in METHODS.items() if one.teacher_role == FROZEN_TEACHER and one.teacher_may_learn]
SMALL = ["student.width=4", "data.subset=64", "data.test_subset=32", "epochs=1", "batch_size=16"]


def joint(build, images: Tensor, name: str, chosen: dict | None = None, **settings) -> JointASNN:
    kind = METHODS[name]
    lesson = Lesson(name, kind, kind.Settings(**(chosen or {})))
    student, ann = build(spiking=True), build(seed=1)
    torch.manual_seed(2)
    return JointASNN(student, ann, JointASNN.Settings(distil=lesson, **settings), images[:2]).train()


def test_most_methods_can_teach_in_a_joint_training() -> None:
    assert {"kdsnn-response", "kdsnn-feature", "sakd", "idsnn", "twld", "bkdsnn"} <= set(TEACH)


@pytest.mark.parametrize("factorise", [False, True])
@pytest.mark.parametrize("name", TEACH)
def test_what_the_ann_teaches_is_a_target_and_its_own_loss_trains_it(
    name: str, factorise: bool, build, images: Tensor, labels: Tensor
) -> None:
    """Of the lesson's terms none has a gradient to the ANN's own parameters; the ANN's cross-entropy has, to all."""
    method = joint(build, images, name, factorise=factorise, kld=0.0, norm=0.0)
    of_the_ann = [p for p in method.ann.parameters() if p.requires_grad]
    _, losses = method(images, labels, NOW)
    own = losses.pop("ann")
    del losses["branches"]
    lesson = torch.stack(list(losses.values())).sum()
    to_ann = torch.autograd.grad(lesson, of_the_ann, allow_unused=True, retain_graph=True)
    assert all(gradient is None for gradient in to_ann)
    to_student = torch.autograd.grad(
        lesson, [p for p in method.student.parameters() if p.requires_grad], allow_unused=True, retain_graph=True
    )
    assert sum(gradient is not None for gradient in to_student) > len(to_student) / 2
    assert all(gradient is not None for gradient in torch.autograd.grad(own, of_the_ann))


def test_a_lessons_terms_are_those_of_the_factorised_networks(build, images: Tensor, labels: Tensor) -> None:
    chosen = {"alpha": 0.25, "temperature": 2.0}
    method = joint(build, images, "kdsnn-response", chosen)
    with torch.no_grad():  # the two are no longer alike
        for group in method.factors.groups:
            for parameter in group.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    weights = method.factors.compose()
    ann, snn = (
        functional_call(copy.deepcopy(network), composed, (images,)).detach().double()
        for network, composed in zip((method.ann, method.student), weights, strict=True)
    )
    _, losses = method(images, labels, NOW)
    teacher = torch.softmax(ann / 2, 1)
    divergence = (teacher * (teacher.log() - torch.log_softmax(snn / 2, 1))).sum(1).mean().item()
    assert losses["task"].item() == pytest.approx(0.75 * F.cross_entropy(snn, labels).item(), rel=1e-4)
    assert losses["response"].item() == pytest.approx(0.25 * 4 * divergence, rel=1e-3)


def test_a_copy_in_the_middle_of_training_goes_on_alone(build, images: Tensor, labels: Tensor) -> None:
    method = joint(build, images, "sakd")
    method(images, labels, NOW)
    copied = copy.deepcopy(method)
    torch.manual_seed(0)
    _, first = method(images, labels, NOW)
    torch.manual_seed(0)
    _, second = copied(images, labels, NOW)
    assert {name: loss.item() for name, loss in first.items()} == {name: loss.item() for name, loss in second.items()}


def test_nothing_of_a_lesson_is_left_in_the_two_networks(build, images: Tensor, labels: Tensor) -> None:
    method = joint(build, images, "kdsnn-feature")
    method(images, labels, NOW)
    method.close()
    for network, plain in ((method.deployable(), build(spiking=True)), (method.byproducts()["ann"], build())):
        assert list(network.state_dict()) == list(plain.state_dict())
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
        assert all(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("name", [name for name in METHODS if name not in TEACH])
def test_a_method_that_needs_another_teacher_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"method.distil is '{name}', by which no ANN can teach that is trained itself"):
        read_recipe("digits-2conv-joint-asnn", [f"method.distil.name={name}"])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("method.distil.alfa=1", "unknown recipe key 'method.distil.alfa'; did you mean 'alpha'?"),
        ("method.distil.alpha=much", "recipe key 'method.distil.alpha': input should be a valid number"),
        ("method.distil.name=sakt", "unknown method 'sakt'; did you mean 'sakd'?"),
        ("method.distil=sakd", "recipe key 'method.distil' must be a section with a name"),
        ("method.distil={alpha: 1}", "the recipe's section 'method.distil' needs a name"),
    ],
)
def test_a_mistake_in_a_lesson_is_named_where_it_stands(override: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        read_recipe("digits-2conv-joint-asnn", ["method.distil.name=sakd", override])
    assert said in str(refused.value)


def test_a_run_with_a_lesson_goes_on_and_is_known_again(tmp_path: Path) -> None:
    overrides = [*SMALL, "epochs=2", "method.distil.name=sakd", "method.distil.beta=1", f"out={tmp_path / 'run'}"]
    recipe = read_recipe("digits-2conv-joint-asnn", overrides)
    whole = train(recipe.model_copy(update={"out": str(tmp_path / "whole")}), verbose=False)
    with pytest.raises(Exception, match="time is up"):
        train(recipe, verbose=False, deadline=0.0)
    run = train(read_recipe(str(tmp_path / "run" / "config.yaml")), resume=True, verbose=False)
    for name in ("student", "ann"):
        files = [folder / f"{name}.safetensors" for folder in (run.folder, whole.folder)]
        assert files[0].read_bytes() == files[1].read_bytes()
    assert "loss/feature" in (run.folder / "metrics.csv").read_text()
    other = read_recipe("digits-2conv-joint-asnn", [*overrides, "method.distil.beta=2"])
    with pytest.raises(UserError, match=r"was begun with method.distil.beta=1.0, not 2.0"):
        train(other, resume=True, verbose=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a trained 2conv ANN of width 8."""
    folder = tmp_path_factory.mktemp("ann") / "run"
    train(read_recipe("digits-2conv-ann", [*SMALL, "student.width=8", f"out={folder}"]), verbose=False)
    return folder


def equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_an_ann_that_is_trained_along_starts_at_its_path(trained: Path, tmp_path: Path) -> None:
    wide = [*SMALL, "student.width=8", f"out={tmp_path / 'run'}"]
    parts = assemble(read_recipe("digits-2conv-joint-asnn", [*wide, f"teacher.path={trained}"]))
    assert parts.teacher is not None
    assert equal(parts.teacher.state_dict(), sd.load(trained).state_dict())
    fresh = assemble(read_recipe("digits-2conv-joint-asnn", wide))
    assert fresh.teacher is not None
    assert not equal(fresh.teacher.state_dict(), parts.teacher.state_dict())
    run = train(read_recipe("digits-2conv-joint-asnn", [*wide, f"teacher.path={trained}", "epochs=2"]), verbose=False)
    alone = train(
        read_recipe("digits-2conv-joint-asnn", [*wide, "epochs=2", f"out={tmp_path / 'alone'}"]), verbose=False
    )
    assert run.summary["teacher_accuracy"] > alone.summary["teacher_accuracy"]


def test_both_of_a_joint_training_start_from_a_larger_network(trained: Path) -> None:
    """IDSNN's start and Joint A-SNN's training in one recipe."""
    overrides = [*SMALL, "init.kind=resample", f"init.path={trained}"]
    parts = assemble(read_recipe("digits-2conv-joint-asnn", overrides))
    assert parts.teacher is not None
    source, expected = sd.load(trained), sd.create_model("2conv", num_classes=10, in_channels=1, image_size=8, width=4)
    resample_weights(source, expected)
    report = start(parts, parts.teacher)
    assert report is not None and {entry.action for entry in report} >= {"resampled"}
    for name, weight in expected.state_dict().items():
        if name.endswith("weight") and "fc" not in name:
            assert torch.equal(parts.teacher.state_dict()[name], weight)
            assert torch.equal(parts.student.state_dict()[name], weight)


def test_one_network_starts_the_student_and_another_teaches_it(trained: Path, tmp_path: Path) -> None:
    """The teacher is trained by the recipe; the start is the larger network's."""
    overrides = [*SMALL, "teacher.epochs=1", "init.kind=resample", f"init.path={trained}", f"out={tmp_path / 'run'}"]
    recipe = read_recipe("digits-2conv-kdsnn-response", overrides)
    run = train(recipe, verbose=False)
    told = json.loads((run.folder / "transfer.json").read_text())
    assert any(entry["action"] == "resampled" for entry in told)
    assert (run.folder / "teacher" / "student.safetensors").is_file()
    plain = train(
        read_recipe("digits-2conv-snn", [*SMALL, *overrides[-3:-1], f"out={tmp_path / 'plain'}"]), verbose=False
    )
    assert (plain.folder / "transfer.json").is_file(), "a start needs no teacher"


def test_a_smoke_run_follows_no_path(tmp_path: Path) -> None:
    overrides = ["init.kind=copy", "init.path=/no/such/run", f"out={tmp_path / 'run'}"]
    run = train(read_recipe("digits-2conv-snn", overrides, smoke=True), verbose=False)
    assert run.summary["epochs"] == 2


def test_in_python_too(trained: Path, tmp_path: Path) -> None:
    snn = sd.create_model("2conv", num_classes=10, in_channels=1, image_size=8, width=4, spiking=True, timesteps=2)
    method = {"name": "joint-asnn", "distil": {"name": "kdsnn-response"}}
    quick = {"epochs": 1, "verbose": False, "device": "cpu", "out": tmp_path / "run"}
    start_there = {"kind": "resample", "path": str(trained)}
    run = sd.distill(None, snn, "digits", method=method, init=start_there, **quick)
    assert "loss/response" in (run.folder / "metrics.csv").read_text()
    assert (run.folder / "transfer.json").is_file()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["teacher.path=/no/such/run"], "no teacher at teacher.path '/no/such/run'"),
        (["teacher.model=2conv", "teacher.epochs=3"], "teacher.epochs has no effect"),
        (["teacher.model=2conv", "teacher.optimizer.lr=0.5"], "teacher.optimizer has no effect"),
        (["init.path=/no/such/run"], "say how as well: init.kind=copy, or resample"),
        (["init.kind=copy", "init.path=/no/such/run"], "no run folder at init.path '/no/such/run'"),
    ],
)
def test_what_would_have_no_effect_is_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(UserError) as refused:
        assemble(read_recipe("digits-2conv-joint-asnn", [*SMALL, *overrides]))
    assert said in str(refused.value)


def test_a_start_that_does_not_fit_is_refused_before_anything_is_trained(trained: Path) -> None:
    recipe = read_recipe("digits-2conv-joint-asnn", [*SMALL, "init.kind=copy", f"init.path={trained}"])
    with pytest.raises(UserError, match="conv1"):
        assemble(recipe)
