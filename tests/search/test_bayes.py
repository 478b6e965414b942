"""The Bayesian search: that it searches, and that an interrupted one comes to the same end."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from spikedistill.errors import UserError
from spikedistill.models.subnets import RESNET34, SPACE, Subnet
from spikedistill.search import Measured, Trial, best_of, check_installed, search
from spikedistill.search.space import coordinates, dimensions, subnet_at

pytest.importorskip("optuna", reason="the extra 'search' is not installed")


def distance(subnet: Subnet) -> float:
    """How far a subnet is from ResNet-34, in steps of the space."""
    ours, goal, choices = coordinates(subnet), coordinates(RESNET34), dimensions(SPACE)
    return sum(abs(choices[name].index(ours[name]) - choices[name].index(goal[name])) for name in choices)


class Measure:
    """Better the nearer to ResNet-34; gives up at call number ``limit``."""

    def __init__(self, limit: int = 10**6) -> None:
        self.seen: list[Subnet] = []
        self.limit = limit

    def __call__(self, subnet: Subnet) -> Measured:
        if len(self.seen) == self.limit:
            raise KeyboardInterrupt
        self.seen.append(subnet)
        return Measured(100.0 - distance(subnet), sum(subnet.widths), 0.5)


Run = Callable[..., list[Trial]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Searches; ``run(measure, trials, file="a.db")``."""

    def start(measure: Measure, trials: int, file: str = "trials.db", name: str = "s", seed: int = 0) -> list[Trial]:
        return search(measure, SPACE, trials, storage=tmp_path / file, name=name, seed=seed)

    return start


def test_coordinates_and_back() -> None:
    assert coordinates(RESNET34) == {
        "channels1": 64,
        "channels2": 128,
        "channels3": 256,
        "channels4": 512,
        "blocks1": 3,
        "blocks2": 4,
        "blocks3": 6,
        "blocks4": 3,
    }
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        subnet = SPACE.sample(generator)
        assert subnet_at(coordinates(subnet)) == subnet
    for options in dimensions(SPACE).values():
        assert tuple(range(options[0], options[-1] + 1, options[1] - options[0])) == options


def test_it_finds_more_than_chance(run: Run) -> None:
    found = run(Measure(), 60)
    assert [trial.number for trial in found] == list(range(60))
    assert all(trial.subnet in SPACE for trial in found)
    generator = torch.Generator().manual_seed(0)
    chance = [distance(SPACE.sample(generator)) for _ in range(1000)]
    later = [distance(trial.subnet) for trial in found[30:]]
    assert sum(later) / len(later) < sum(chance) / len(chance) - 2, "the second half has learned from the first"
    assert distance(best_of(found).subnet) <= sorted(chance)[5]


def test_an_interrupted_search_comes_to_the_same_end(run: Run) -> None:
    whole = run(Measure(), 16, "whole.db")
    for limit in (3, 9):
        with pytest.raises(KeyboardInterrupt):
            run(Measure(limit), 16, "parts.db")
    rest = Measure()
    assert run(rest, 16, "parts.db") == whole
    again = Measure()
    assert run(again, 16, "parts.db") == whole
    assert not again.seen
    assert run(again, 9, "parts.db") == whole[:9]


def test_a_subnet_is_measured_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    same = Subnet((48, 96, 192, 384), (2, 2, 2, 2))
    monkeypatch.setattr("spikedistill.search.bayes.suggest", lambda trial, space: _place(trial, same))
    measure = Measure()
    found = run(measure, 3)
    assert [trial.subnet for trial in found] == [same] * 3
    assert measure.seen == [same]
    assert run(measure, 4)[-1].measured == found[0].measured
    assert measure.seen == [same]


def _place(trial, subnet: Subnet) -> Subnet:
    for name, value in coordinates(subnet).items():
        trial.suggest_int(name, value, value)
    return subnet


def test_searches_of_other_names_and_seeds_are_their_own(run: Run) -> None:
    first = run(Measure(), 3)
    other = run(Measure(), 3, name="t")
    assert [trial.subnet for trial in other] == [trial.subnet for trial in first]
    seeded = run(Measure(), 3, name="u", seed=1)
    assert [trial.subnet for trial in seeded] != [trial.subnet for trial in first]


def test_the_best_of_equals_is_the_smallest() -> None:
    trials = [
        Trial(number, RESNET34, Measured(accuracy, parameters, 1.0))
        for number, (accuracy, parameters) in enumerate([(80.0, 1), (90.0, 7), (90.0, 5), (90.0, 5)])
    ]
    assert best_of(trials).number == 2


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.db").write_text("no database, but long enough to be taken for one" * 30)
    for storage in (tmp_path, tmp_path / "missing" / "trials.db", tmp_path / "text.db", "nosuchdatabase://x/y"):
        with pytest.raises(UserError, match="the search's storage"):
            search(Measure(), SPACE, 1, storage=storage, name="s", seed=0)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "spikedistill.search.bayes.find_spec", lambda name: None if name == "optuna" else find_spec(name)
    )
    with pytest.raises(UserError, match=r"pip install 'spikedistill\[search\]'"):
        check_installed()
