"""Optimisers and schedules against values worked out by hand."""

from typing import Any

import pytest
import torch
from torch import nn

from spikedistill.engine.optimisation import (
    OPTIMIZERS,
    SCHEDULES,
    OptimizerSettings,
    ScheduleSettings,
    learning_rate,
    make_optimizer,
)
from spikedistill.engine.sharding import Whole
from spikedistill.errors import UserError
from spikedistill.recipe import parse


@pytest.mark.parametrize(
    ("schedule", "epoch", "expected"),
    [
        (ScheduleSettings("constant"), 3.0, 1.0),
        (ScheduleSettings("cosine"), 0.0, 1.0),
        (ScheduleSettings("cosine"), 5.0, 0.5),
        (ScheduleSettings("cosine"), 10.0, 0.0),
        (ScheduleSettings("cosine", min_lr=0.2), 5.0, 0.6),
        (ScheduleSettings("cosine", warmup=2.0), 1.0, 0.5),
        (ScheduleSettings("cosine", warmup=2.0), 2.0, 1.0),
        (ScheduleSettings("cosine", warmup=2.0), 6.0, 0.5),
        (ScheduleSettings("multistep", milestones=(4, 8)), 3.9, 1.0),
        (ScheduleSettings("multistep", milestones=(4, 8)), 4.0, 0.1),
        (ScheduleSettings("multistep", milestones=(4, 8)), 9.0, 0.01),
        (ScheduleSettings("onecycle"), 1.5, 0.5),
        (ScheduleSettings("onecycle"), 3.0, 1.0),
        (ScheduleSettings("onecycle"), 6.5, 0.5),
        (ScheduleSettings("onecycle"), 10.0, 0.0),
        (ScheduleSettings("onecycle", warmup=5.0), 2.5, 0.5),
        (ScheduleSettings("onecycle", warmup=10.0), 5.0, 0.5),
        (ScheduleSettings("onecycle", warmup=20.0), 10.0, 0.5),
    ],
)
def test_learning_rate_by_hand(schedule: ScheduleSettings, epoch: float, expected: float) -> None:
    assert learning_rate(epoch, 10, 1.0, schedule) == pytest.approx(expected)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_scales_with_its_peak_and_stays_within_it(name: str) -> None:
    schedule = ScheduleSettings(name, warmup=1.0, milestones=(2,))
    for step in range(1, 41):
        rate = learning_rate(step / 10, 4, 0.3, schedule)
        assert 0.0 <= rate <= 0.3
        assert rate == pytest.approx(0.3 * learning_rate(step / 10, 4, 1.0, schedule))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_minimises_a_square(name: str) -> None:
    module = nn.Linear(1, 1, bias=False)
    optimizer = make_optimizer(module, OptimizerSettings(name, lr=0.05, weight_decay=0.0))
    for _ in range(200):
        optimizer.zero_grad()
        (module.weight - 3.0).square().sum().backward()
        optimizer.step()
    assert module.weight.item() == pytest.approx(3.0, abs=0.05)


def test_norms_and_biases_can_be_left_undecayed() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    for parameter in module.parameters():
        nn.init.ones_(parameter)
    optimizer = make_optimizer(
        module, OptimizerSettings("sgd", lr=0.5, momentum=0.0, weight_decay=1.0, decay_norm=False)
    )
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.equal(module[0].weight, torch.full((2, 2), 0.5))
    assert torch.equal(module[0].bias, torch.ones(2))
    assert torch.equal(module[1].weight, torch.ones(2))


@pytest.mark.parametrize("decay_norm", [True, False])
def test_a_module_with_a_decay_of_its_own_is_left_alone(decay_norm: bool) -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2)))
    module[1].undecayed = True
    optimizer = make_optimizer(module, OptimizerSettings(weight_decay=1.0, decay_norm=decay_norm))
    decayed = [p for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]]
    assert {id(p) for p in decayed} == {id(p) for p in (module[0].parameters() if decay_norm else [module[0].weight])}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 4


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'adamw'"):
        OptimizerSettings("adamww")
    with pytest.raises(UserError, match="did you mean 'cosine'"):
        ScheduleSettings("cosin")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"lr": 0.0}, r"optimizer\.lr must be above 0, not 0\.0"),
        ({"weight_decay": -1.0}, r"optimizer\.weight_decay must be at least 0"),
        ({"momentum": 1.0}, r"optimizer\.momentum must be at least 0 and below 1"),
        ({"name": "adam", "betas": (0.9, 1.5)}, r"optimizer\.betas .* not \[0\.9, 1\.5\]"),
        ({"nesterov": True, "momentum": 0.0}, r"optimizer\.nesterov needs a momentum"),
    ],
)
def test_what_no_optimizer_takes_is_refused_before_a_teacher_is_trained(wrong: dict[str, Any], sentence: str) -> None:
    """torch says it where the optimiser is made, which is behind the teacher's training."""
    with pytest.raises(UserError, match=sentence):
        parse({"method": {"name": "snn"}, "optimizer": wrong})
    with pytest.raises(UserError, match=sentence):
        parse({"method": {"name": "sakd"}, "teacher": {"model": "resnet18", "optimizer": wrong}})
    with pytest.raises(UserError, match=r"schedule\.warmup must be at least 0"):
        parse({"method": {"name": "snn"}, "schedule": {"warmup": -1}})


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_takes_torchs_plain_steps(name: str) -> None:
    """What runs fused on a CPU against torch's loop over the parameters, in float64."""
    settings = OptimizerSettings(name, lr=0.05, momentum=0.8, nesterov=True, betas=(0.8, 0.95), weight_decay=0.1)
    start = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    ours, theirs = nn.Linear(5, 7, bias=False), nn.Linear(5, 7, bias=False).double()
    for module in (ours, theirs):
        module.weight.data.copy_(start)
    plain = {
        "sgd": lambda: torch.optim.SGD(
            theirs.parameters(), 0.05, momentum=0.8, nesterov=True, weight_decay=0.1, foreach=False
        ),
        "adam": lambda: torch.optim.Adam(theirs.parameters(), 0.05, (0.8, 0.95), weight_decay=0.1, foreach=False),
        "adamw": lambda: torch.optim.AdamW(theirs.parameters(), 0.05, (0.8, 0.95), weight_decay=0.1, foreach=False),
    }
    optimizers = make_optimizer(ours, settings), plain[name]()
    generator = torch.Generator().manual_seed(1)
    for _ in range(10):
        grad = torch.randn(7, 5, generator=generator)
        for module, optimizer in zip((ours, theirs), optimizers, strict=True):
            module.weight.grad = grad.to(module.weight.dtype)
            optimizer.step()
    torch.testing.assert_close(ours.weight.double(), theirs.weight, rtol=1e-5, atol=1e-6)


def test_a_states_layout_is_the_parameters_wherever_it_was_written() -> None:
    """Sharded runs leave contiguous moments; a fused step runs through memory, where weights may be channels-last."""
    module = nn.Conv2d(4, 6, 3)
    module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
    plain = nn.Conv2d(4, 6, 3)
    plain.load_state_dict(module.state_dict())
    settings = OptimizerSettings("sgd", lr=0.1, momentum=0.9)
    ours, theirs = make_optimizer(module, settings), torch.optim.SGD(plain.parameters(), 0.1, 0.9, weight_decay=5e-4)
    generator = torch.Generator().manual_seed(0)
    for step in range(3):
        if step == 1:  # goes on from what the plain one, whose tensors are contiguous, has left
            Whole(None, nn.Module()).restore(ours, theirs.state_dict())  # type: ignore[arg-type]
            assert ours.param_groups[0]["fused"] is True
        for each, optimizer in ((module, ours), (plain, theirs)):
            grads = [torch.randn(p.shape, generator=generator.manual_seed(step)) for p in each.parameters()]
            for parameter, grad in zip(each.parameters(), grads, strict=True):
                parameter.grad = torch.empty_like(parameter).copy_(grad)
            optimizer.step()
    torch.testing.assert_close(module.weight, plain.weight)
