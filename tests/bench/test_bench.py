"""The benchmark: what it counts, how it compares, and that every piece of work has the candidates its aims name."""

import json

import pytest
import torch
from torch import nn

from spikedistill.bench import bench, timing
from spikedistill.bench.networks import Shape, convolutions_alone, method_step
from spikedistill.bench.page import to_markdown
from spikedistill.bench.peers import PEERS, installed
from spikedistill.bench.timing import interleaved, saved_bytes
from spikedistill.bench.works import WORKS, Setup
from spikedistill.errors import UserError

CPU = torch.device("cpu")
SMALL = Setup(CPU, (), small=True)


def test_ratios_are_of_the_same_round(monkeypatch):
    # One candidate takes 2, 4, 6 s and the other half of it plus 0, 1, 0 s: ratios 0.5, 0.75, 0.5 in their rounds.
    clock, calls = [0.0], {"slow": 0, "quick": 0}
    durations = {"slow": [2.0, 4.0, 6.0], "quick": [1.0, 3.0, 3.0]}
    monkeypatch.setattr(timing, "WARM_UP", 0)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

    def step(name):
        def run():
            clock[0] += durations[name][calls[name]]
            calls[name] += 1

        return run

    found = interleaved({name: step(name) for name in durations}, "slow", 3, CPU)
    assert (found["slow"].seconds, found["slow"].ratio) == (4.0, 1.0)
    assert (found["quick"].seconds, found["quick"].ratio) == (3.0, 0.5)
    assert (found["quick"].lowest, found["quick"].highest) == (0.5, 0.75)


def test_bytes_count_each_storage_once_and_no_parameter():
    x = torch.ones(10, requires_grad=True)
    weight = nn.Parameter(torch.ones(10))

    def step():
        y = x.sin()  # keeps x: 40 bytes
        z = y * weight  # keeps y (40) and a parameter (not counted)
        (z * x[:5].repeat(2)).sum().backward()  # keeps z (40) and the repeated part (40)

    assert saved_bytes(step) == 160


@pytest.mark.parametrize("name", WORKS)
def test_every_aim_names_candidates_of_its_work(name):
    work = WORKS[name]
    steps = work.candidates(SMALL)
    for target in (*work.targets, *work.gpu_targets):
        assert target.candidate in steps
        assert target.to is None or target.to in steps
    assert work.baseline in steps or work.baseline in PEERS
    next(iter(steps.values()))()


def test_the_floor_has_nothing_but_convolutions():
    shape = Shape("resnet18", 8, 8, 3, 2, 2)
    convolutions = sum(isinstance(m, nn.Conv2d) for m in shape.network(CPU).modules())
    step = convolutions_alone(shape, CPU)(torch.float32)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiled:
        step()
    count = {event.key: event.count for event in profiled.key_averages()}
    assert count["aten::conv2d"] == convolutions
    assert not any("batch_norm" in key or "relu" in key or "threshold" in key for key in count)


def test_a_methods_step_leaves_no_gradient_behind():
    shape = Shape("resnet18", 8, 8, 3, 2, 2)
    method_step("sakd", {"alpha": 1.0, "beta": 1.0, "temperature": 4.0}, shape, CPU, torch.float32)()


def test_the_command_measures_and_writes(tmp_path, capsys):
    page = tmp_path / "speed.md"
    found = bench(["neuron"], device="cpu", rounds=1, small=True, out=page)
    (result,) = found["results"]
    rows = {row["candidate"]: row for row in result["rows"]}
    assert result["baseline"] in rows and rows[result["baseline"]]["ratio"] == 1.0
    assert json.loads(page.with_suffix(".json").read_text()) == json.loads(json.dumps(found))
    assert to_markdown(found) == page.read_text()
    assert result["aims"] == [] and "LIF alone" in capsys.readouterr().out


def test_mistakes_are_refused():
    with pytest.raises(UserError, match="neuron"):
        bench(["nevron"])
    with pytest.raises(UserError, match="rounds"):
        bench(["neuron"], rounds=0)


@pytest.mark.parametrize("peer", PEERS)
def test_a_peers_neuron_spikes_as_ours_does(peer):
    if peer not in installed():
        pytest.skip(f"{peer} is not installed (make bench sets up an environment that has it)")
    x = torch.rand(4, 3, 5) * 2  # no value at the threshold, where snnTorch and we differ
    from spikedistill.spiking import LIF

    scale = 2.0 if peer == "Norse" else 1.0  # it multiplies its input by 1 - decay
    assert torch.equal(PEERS[peer](CPU)(x * scale).detach(), LIF(decay=0.5)(x))
