"""The supernet: its loss against the formula on extracted subnets, its sampling, its checkpoint, what is refused."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from spikedistill.data.seeds import generator
from spikedistill.engine.checkpoint import latest_checkpoint, save_checkpoint
from spikedistill.errors import UserError
from spikedistill.methods import Progress
from spikedistill.methods.supernet import Supernet, sandwich
from spikedistill.models.elastic import ElasticResNet
from spikedistill.models.subnets import SPACE, Subnet

NOW = Progress(0, 2)


@pytest.fixture
def make(build, images: Tensor):
    """Makes the method on an elastic SNN, every weight of it in use, and a ResNet-14 teacher of other widths."""

    def method(**settings: object) -> tuple[Supernet, ElasticResNet, nn.Module]:
        student, teacher = build("elastic-resnet", spiking=True, timesteps=2), build(seed=1, width=8)
        torch.manual_seed(2)
        chosen = Supernet.Settings(**{"zero_init": False, **settings})
        return Supernet(student, teacher, chosen, images[:2]), student, teacher

    return method


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Subnet]:
    """The subnets of every step, in order."""
    seen: list[Subnet] = []
    choose = ElasticResNet.choose

    def watched(network: ElasticResNet, subnet: Subnet) -> None:
        seen.append(subnet)
        choose(network, subnet)

    monkeypatch.setattr(ElasticResNet, "choose", watched)
    return seen


def standardised(x: Tensor) -> Tensor:
    return (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()


def divergence(student: Tensor, teacher: Tensor, tau: float) -> float:
    p, q = (torch.softmax(logits.double() / tau, -1) for logits in (teacher, student))
    return tau**2 * (p * (p / q).log()).sum(-1).mean().item()


@pytest.mark.parametrize(("side", "distance"), [("before", "l2"), ("after", "l1")])
def test_every_subnet_has_sakds_loss(side: str, distance: str, make, watched, images: Tensor, labels: Tensor) -> None:
    method, student, teacher = make(alpha=0.3, beta=7.0, gamma=2.0, temperature=5.0, side=side, distance=distance)
    method.train()
    subnets = sandwich(SPACE, 2, generator(method.seed, "subnets", 0))
    theirs = {name: watched(teacher, path, side) for name, path in teacher.stages.items()}
    target = teacher(images)
    expected = []
    for subnet in subnets:
        plain = student.extract(subnet)
        ours = {name: watched(plain, plain.stages[name], side) for name in theirs}
        logits = plain(images).detach().double()
        terms = {
            "task": 0.3 * nn.functional.cross_entropy(logits, labels).item(),
            "response": 2.0 * divergence(logits, target, 5.0),
            "feature": 0.0,
        }
        for name, [feature] in ours.items():
            feature = feature.unflatten(0, (2, 4)).mean(0)
            weight = method.regressors[f"feature_{name}"][0].weight.detach().double()[:, : feature.shape[1], 0, 0]
            mapped = standardised(torch.einsum("oc,bchw->bohw", weight, feature))
            difference = nn.functional.adaptive_avg_pool2d(mapped, theirs[name][0].shape[2:]) - theirs[name][0]
            error = difference.square() if distance == "l2" else difference.abs()
            terms["feature"] += 7.0 * error.mean().item()
        expected.append(terms)
    answer, losses = method(images, labels, NOW)
    for term, value in expected[0].items():
        assert losses[term].item() == pytest.approx(value / 4, rel=1e-3), term
    others = sum(sum(terms.values()) for terms in expected[1:])
    assert losses["subnets"].item() == pytest.approx(others / 4, rel=1e-3)
    assert losses.keys() == {"task", "response", "feature", "subnets"}
    assert torch.equal(answer, student.extract(SPACE.largest)(images)), "the answer is the largest's"


def test_in_place_distillation(make, images: Tensor, labels: Tensor) -> None:
    """With ``others=biggest`` the others have the largest's logits for a constant target and nothing else."""
    method, student, _ = make(others="biggest", random=0, temperature=5.0, gamma=2.0, beta=0.0)
    method.train()
    biggest, smallest = (student.extract(subnet)(images) for subnet in (SPACE.largest, SPACE.smallest))
    _, losses = method(images, labels, NOW)
    assert losses.keys() == {"task", "response", "subnets"}
    assert losses["subnets"].item() == pytest.approx(2.0 * divergence(smallest, biggest, 5.0) / 2, rel=1e-3)
    losses["subnets"].backward()
    beyond = student.get_parameter("layer1.4.conv1.weight").grad
    assert beyond is None or not beyond.any(), "the largest is a target, not a student"
    corner = student.get_parameter("layer1.1.conv1.weight").grad
    assert corner is not None
    assert corner[:3, :3].any()
    assert not corner[3:].any()


def test_a_subnet_that_equals_its_teacher_has_nothing_to_learn(make, build, images: Tensor, labels: Tensor) -> None:
    method, student, _ = make(others="biggest", random=0, beta=0.0, gamma=1.0)
    with torch.no_grad():
        student.fc.weight.zero_()
    _, losses = method(images, labels, NOW)
    assert losses["subnets"].item() == pytest.approx(0.0, abs=1e-6)


def test_the_sandwich(make, drawn: list[Subnet], images: Tensor, labels: Tensor) -> None:
    method, student, _ = make(beta=0.0, others="biggest", random=3)
    drawn.clear()
    method(images, labels, NOW)
    assert drawn[:2] == [SPACE.largest, SPACE.smallest]
    assert len(drawn) == 6, "the largest again at the end"
    assert student.chosen == SPACE.largest
    assert len(set(drawn)) == 5


def test_subnets_are_a_function_of_seed_and_step(
    make, drawn: list[Subnet], tmp_path, images: Tensor, labels: Tensor
) -> None:
    """A method that goes on from a checkpoint file draws what the one that was not interrupted draws."""

    def steps(method: Supernet, count: int) -> list[Subnet]:
        drawn.clear()
        for _ in range(count):
            torch.rand(7)  # what else draws numbers does not matter
            method(images, labels, NOW)
        return list(drawn)

    first, _, _ = make(beta=0.0, random=1)
    whole = steps(first, 3)
    assert len(set(whole)) == 5
    second, _, _ = make(beta=0.0, random=1)
    assert steps(second, 1) == whole[:4]
    save_checkpoint(tmp_path, 1, {"method": second.state_dict()})
    torch.manual_seed(99)
    third = copy.deepcopy(first)
    third.seed, third.step = 5, 0
    state = latest_checkpoint(tmp_path)
    assert state is not None
    third.load_state_dict(state["method"])
    assert steps(third, 2) == whole[4:]


def test_the_running_statistics_are_the_largests(make, images: Tensor, labels: Tensor) -> None:
    method, student, _ = make(beta=0.0)
    plain = student.extract(SPACE.largest).train()
    method.train()
    method(images, labels, NOW)
    plain(images)
    assert all(torch.equal(value, plain.state_dict()[key]) for key, value in student.state_dict().items())


def test_blocks_start_as_the_identity(build, images: Tensor) -> None:
    """Spikes pass through them, so that depth makes no difference before training; a trained block is left alone."""
    student = build("elastic-resnet", spiking=True)
    trained = student.get_submodule("layer1.0.bn2")
    with torch.no_grad():
        trained.weight[1] = 0.5
    answers = {}
    for zero_init in (False, True):
        Supernet(student, build(seed=1), Supernet.Settings(zero_init=zero_init), images[:2])
        for depths in ((5, 5, 8, 5), (2, 3, 4, 2)):
            student.choose(Subnet((64, 128, 256, 512), depths))
            answers[zero_init, depths] = student(images, per_step=True)
    assert not torch.equal(answers[False, (5, 5, 8, 5)], answers[False, (2, 3, 4, 2)])
    assert torch.equal(answers[True, (5, 5, 8, 5)], answers[True, (2, 3, 4, 2)])
    assert answers[True, (2, 3, 4, 2)].std((0, 1)).min() > 0
    assert trained.weight.tolist() == [1.0, 0.5, 1.0, 1.0, 1.0]
    assert not student.get_submodule("layer1.1.bn2").weight.any()


def test_the_defaults_are_sakds_and_bignass() -> None:
    defaults = Supernet.Settings()
    assert (defaults.temperature, defaults.alpha, defaults.gamma, defaults.beta) == (20, 0, 1, 100)
    assert (defaults.random, defaults.others, defaults.zero_init) == (2, "teacher", True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"random": -1}, "method.random must be at least 0, not -1"),
        ({"temperature": 0.0}, "method.temperature must be above 0"),
        ({"others": "biggets"}, "unknown method.others 'biggets'; did you mean 'biggest'"),
        ({"distance": "l3"}, "unknown method.distance 'l3'"),
    ],
)
def test_refused_settings(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Supernet.Settings(**settings)  # type: ignore[arg-type]


def test_a_student_without_subnets_is_refused(build, images: Tensor) -> None:
    for student in (build(spiking=True), build("elastic-resnet", spiking=True, subnet="48-96-192-384/2-2-2-2")):
        with pytest.raises(UserError, match=r"set student\.model=elastic-resnet, without its option 'subnet'"):
            Supernet(student, build(seed=1), Supernet.Settings(), images)
