"""The command: from a recipe to a picture, a table and a network that loads."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import spikedistill as sd
from spikedistill import architecture
from spikedistill.architecture import search_recipe
from spikedistill.cli import app
from spikedistill.data import open_data
from spikedistill.errors import UserError
from spikedistill.models.elastic import ElasticResNet
from spikedistill.models.resnet import ResNet
from spikedistill.models.subnets import RESNET34, SPACE, Subnet
from spikedistill.recipe import parse
from spikedistill.recipebook import list_recipes, read_recipe
from spikedistill.search import Measured, Trial, draw

pytest.importorskip("optuna", reason="the extra 'search' is not installed")

RECIPE = """
epochs: 1
batch_size: 16
timesteps: 2
data: {name: digits, subset: 48, test_subset: 16, validation: 0.33}
student: {model: elastic-resnet, width: 4}
neuron: {threshold: 0.5}
method: {name: supernet, random: 1, side: before, others: teacher, zero_init: false}
teacher: {model: resnet14, width: 4, epochs: 1, batch_size: 16}
optimizer: {name: adamw, lr: 0.002}
"""


class Unreadable:
    """A test part that nobody may look at."""

    def __len__(self) -> int:
        raise AssertionError("the search looked at the test images")

    def __getattr__(self, name: str) -> object:
        raise AssertionError("the search looked at the test images")


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a searched supernet, and what the command printed."""
    folder = tmp_path_factory.mktemp("search")
    (folder / "tiny.yaml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:

        def without_test(settings, seed):
            return dataclasses.replace(open_data(settings, seed), test=Unreadable())

        patch.setattr(architecture, "open_data", without_test)
        arguments = ["search", str(folder / "tiny.yaml"), f"out={folder / 'run'}", "--trials", "5"]
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return folder / "run", result.output


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "search" / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def test_it_leaves_every_trial_and_what_was_found(searched: tuple[Path, str]) -> None:
    folder, printed = searched
    table, found = rows(folder), json.loads((folder / "search" / "best.json").read_text())
    assert [row["trial"] for row in table] == list("01234")
    accuracies = [float(row["validation_accuracy"]) for row in table]
    assert found["best"]["validation_accuracy"] == max(accuracies) == found["highest"]
    assert (found["lowest"], found["trials"], found["seed"]) == (min(accuracies), 5, 0)
    row = table[found["best"]["trial"]]
    assert found["best"]["widths"] == [int(row[f"channels{stage}"]) for stage in range(1, 5)]
    assert found["best"]["depths"] == [int(row[f"blocks{stage}"]) for stage in range(1, 5)]
    assert found["reference"]["subnet"] == str(RESNET34) == "64-128-256-512/3-4-6-3"
    assert (folder / "search" / "search.png").read_bytes().startswith(b"\x89PNG")
    assert found["best"]["subnet"] in printed
    assert str(folder / "search") in printed.replace("\n", "")


def test_the_best_subnet_loads_as_a_plain_network(searched: tuple[Path, str]) -> None:
    folder, _ = searched
    found = json.loads((folder / "search" / "best.json").read_text())["best"]
    network, supernet = sd.load(folder / "search" / "best"), sd.load(folder)
    assert type(network) is ResNet
    assert isinstance(supernet, ElasticResNet)
    assert sum(parameter.numel() for parameter in network.parameters()) == found["parameters"]
    subnet = Subnet.parse(found["subnet"])
    weights = dict(supernet.extract(subnet).named_parameters())
    assert all(torch.equal(value, weights[name]) for name, value in network.named_parameters())
    recipe = read_recipe(str(folder / "search" / "best" / "config.yaml"))
    data = open_data(recipe.data, recipe.seed)
    assert isinstance(data.validation, sd.data.ImageSet)
    pixels = data.validation.images.float() / 255
    mean, std = (torch.tensor(value)[:, None, None] for value in (data.info.mean, data.info.std))
    with torch.no_grad():
        hits = (network((pixels - mean) / std).argmax(-1) == data.validation.labels).float().mean()
    assert 100 * hits.item() == pytest.approx(found["validation_accuracy"], abs=1e-3)


def test_the_bests_recipe_trains_it_alone(searched: tuple[Path, str]) -> None:
    folder, _ = searched
    recipe = read_recipe(str(folder / "search" / "best" / "config.yaml"))
    assert recipe.method == parse({"method": {"name": "sakd", "side": "before"}}).method
    assert recipe.teacher is not None
    assert recipe.teacher.path == str(folder / "teacher")
    out = folder / "alone"
    run = sd.run.train(recipe.model_copy(update={"out": str(out)}), verbose=False)
    assert type(run.student) is ResNet


def test_a_finished_run_is_searched_on(searched: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = searched
    before, weights = rows(folder), (folder / "student.safetensors").read_bytes()
    calls: list[Subnet] = []
    measured = architecture.Meter.__call__
    monkeypatch.setattr(
        architecture.Meter, "__call__", lambda self, subnet: calls.append(subnet) or measured(self, subnet)
    )
    search_recipe(str(folder), trials=6, verbose=False)
    assert rows(folder)[:5] == before
    assert len(rows(folder)) == 6
    assert len(calls) <= 2, "the new trial and the reference"
    assert (folder / "student.safetensors").read_bytes() == weights


@pytest.mark.parametrize(
    ("recipe", "overrides", "options", "message"),
    [
        ("digits-2conv-snn", [], {}, "takes a recipe of method 'supernet'; 'digits-2conv-snn' has method 'snn'"),
        ("digits-supernet", ["data.validation=0"], {}, "set data.validation to their share"),
        ("digits-supernet", [], {"trials": 0}, "--trials must be at least 1, not 0"),
        ("digits-supernets", [], {}, "unknown recipe 'digits-supernets'; did you mean 'digits-supernet'"),
    ],
)
def test_refusals(recipe, overrides, options, message, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        search_recipe(recipe, overrides, verbose=False, **options)
    assert not list(tmp_path.iterdir())


def test_refused_folders(searched: tuple[Path, str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a run folder"):
        search_recipe(str(tmp_path))
    with pytest.raises(UserError, match="a run folder is searched as it is"):
        search_recipe(str(searched[0]), smoke=True)


def test_the_shipped_recipes_are_of_table_1() -> None:
    names = [name for name in list_recipes() if name.endswith("supernet")]
    assert {"digits-supernet", "sakd-cifar10-supernet"} <= set(names)
    for name in names:
        recipe = read_recipe(name)
        assert recipe.method["name"] == "supernet"
        assert recipe.data.validation > 0
        assert recipe.student is not None
        assert recipe.student.model == "elastic-resnet"
        assert recipe.teacher is not None
        assert recipe.teacher.model == "resnet34"


def test_the_picture(tmp_path: Path) -> None:
    """Two panels; in each a line a subnet, the darkest for the best, and the teacher's architecture in red on top."""
    generator = torch.Generator().manual_seed(0)
    subnets = [SPACE.sample(generator) for _ in range(7)]
    trials = [Trial(i, subnet, Measured(90.0 + i, 1, 1.0)) for i, subnet in enumerate(subnets)]
    draw(trials, (RESNET34, Measured(93.5, 1, 1.0)), SPACE, tmp_path / "search.svg")
    svg = (tmp_path / "search.svg").read_text()
    lines = re.findall(r'<path d="(M [^"]*)" clip-path[^>]*stroke: (#[0-9a-f]{6})', svg.replace("\n", " "))
    long = [(path, colour) for path, colour in lines if path.count("L") == 4]
    assert len(long) == 2 * (7 + 1)
    for panel in (long[:8], long[8:]):
        assert panel[-1][1] == "#d62728"
        blues = [colour for _, colour in panel[:-1]]
        brightness = [sum(bytes.fromhex(colour[1:])) for colour in blues]
        assert brightness == sorted(brightness, reverse=True)
        assert len(set(blues)) == 7
    # ResNet-34 has the middle of every width: a level line up to the accuracy axis.
    heights = [float(y) for y in re.findall(r"[ML] [\d.]+ ([\d.]+)", long[7][0])]
    assert heights[:4] == [heights[0]] * 4
