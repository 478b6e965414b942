"""The documentation's figures come out of records and recipes as they lie there."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from spikedistill.methods import METHODS
from spikedistill.recipe import Recipe
from spikedistill.recipebook import read_recipe

ROOT = Path(__file__).resolve().parent.parent
ROW = "joint-cifar10-vgg16-t1"
CAMPAIGN = f"""
title: Three seeds
seeds: [0, 1, 2]
set: {{precision: bf16}}
runs:
  - {{recipe: {ROW}}}
  - {{recipe: {ROW}, label: shorter, seeds: [0], set: {{epochs: 3}}}}
"""


def loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_figures", ROOT / "scripts" / "site_figures.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


site: Any = loaded()


def record(folder: Path, overrides: list[str], seed: int, accuracy: float) -> None:
    recipe = read_recipe(ROW, ["precision=bf16", f"seed={seed}", *overrides])
    assert recipe.student is not None
    recipe.student.num_classes = 10  # a run's config has what the data say
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(recipe.to_yaml())
    summary = {"method": "joint-asnn", "student_accuracy": accuracy, "seed": seed, "timesteps": 1, "torch": "9.9"}
    summary |= {"dataset": "cifar10", "model": "vgg16", "published": recipe.model_dump()["published"]}
    (folder / "summary.json").write_text(json.dumps(summary))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    (folder / "campaigns").mkdir()
    (folder / "campaigns" / "three.yaml").write_text(CAMPAIGN)
    (folder / "three.md").write_text(
        "# Three seeds\n\n![curve](experiments/c.svg) [more](speed.md) [code](../src/a.py)\n"
    )
    (folder / "speed.md").write_text("# Speed\n")
    (folder / "README.md").write_text("# All\n")
    (folder / "deep.md").write_text("# Deep networks\n")
    record(folder / "experiments" / "deep" / "runs" / "a", ["epochs=1"], 0, 20.0)
    told = {"title": "Deep networks", "runs": {"finished": 1, "planned": 1}}
    (folder / "experiments" / "deep" / "experiment.json").write_text(json.dumps(told))
    (folder / "experiments" / "c.svg").write_text("<svg/>")
    record(folder / "runs" / "three" / f"{ROW}-seed0", [], 0, 90.0)
    record(folder / "runs" / "three" / f"{ROW}-seed1", [], 1, 92.0)
    record(folder / "runs" / "three" / "shorter-seed0", ["epochs=3"], 0, 10.0)
    return folder


def test_a_methods_figures_are_its_records_mean_and_spread(results: Path) -> None:
    text = site.our_figures("joint-asnn", results)
    assert text.startswith("[Three seeds](../results/three.md):")
    assert "| 91.00 ± 1.41 |" in text and "| 93.79 | −2.79 |" in text and "| 10.00 |" in text
    assert "Experiments with it: [Deep networks](../results/deep.md)." in text
    assert text.endswith("Still to run: [Three seeds](../results/three.md) (1 of 4 runs).")
    assert site.our_figures("tet", results) == "No run of this method is among the records yet."


def test_ours_beside_a_published_row_is_of_the_recipe_as_it_ships(results: Path) -> None:
    line = next(line for line in site.published_figures("joint-asnn", results).splitlines() if f"`{ROW}`" in line)
    assert "| 93.79" in line and "| 91.00 ± 1.41 (n 2) |" in line
    assert sum("(n " in line for line in site.published_rows("all", results).splitlines()) == 1


def test_every_result_page_is_found_and_counted(results: Path) -> None:
    assert set(site.result_pages(results)) == {"deep.md", "three.md", "speed.md"}
    assert site.result_list("all", results).splitlines()[2:] == [
        "| [Deep networks](results/deep.md) | 1 of 1 |",
        "| [Speed](results/speed.md) | – |",
        "| [Three seeds](results/three.md) | 3 of 4 |",
    ]


def test_links_of_a_result_page_lead_somewhere_on_the_site(results: Path) -> None:
    page, files = site.listed((results / "three.md").read_text(), results)
    assert page.endswith("![curve](experiments/c.svg) [more](speed.md) code (`../src/a.py`)\n")
    assert files == ["experiments/c.svg"]


def test_every_published_row_is_listed_under_each_of_its_tables() -> None:
    shipped = (ROOT / "src/spikedistill/recipes").glob("*.yaml")
    published = {path.stem for path in shipped if re.search("^published:", path.read_text(), flags=re.M)}
    assert published == {recipe.name for recipe in site.recipes()} and len(published) > 100
    rows = [line.strip("| ").split(" | ") for line in site.published_rows("all", ROOT / "results").splitlines()]
    for recipe in site.recipes():
        figures = [row[3].partition(" ")[0] for row in rows if row[-1] == f"`{recipe.name}`"]
        assert figures == [f"{recipe.published.figure:.2f}"] * len(site.places(recipe))
    assert site.places(Recipe.model_validate(two_tables())) == ["SAKD table 2", "SAKD table 10"]


def two_tables() -> dict[str, Any]:
    return {"method": {"name": "snn"}, "published": {"figure": 1.0, "source": "SAKD tables 2 and 10"}}


def test_every_page_of_the_repository_can_be_filled() -> None:
    asked: set[tuple[str, str]] = set()
    for page in (ROOT / "docs").rglob("*.md"):
        text = page.read_text()
        asked |= {(marker[1], marker[2]) for marker in site.MARKER.finditer(text)}
        assert not site.MARKER.search(site.filled(text))
    assert {what for maker, what in asked if maker == "our-figures"} == set(METHODS) - {"ann"}


def test_what_comes_from_another_machine_is_seen() -> None:
    assert site.ELSEWHERE.search('<script src="https://example.org/a.js">')
    assert site.ELSEWHERE.search("<link rel=stylesheet href=//example.org/a.css>")
    assert not site.ELSEWHERE.search('<a href="https://example.org">there</a><script src="assets/a.js">')


def test_the_navigation_has_the_section_the_pages_go_into() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    assert any(site.SECTION in entry for entry in nav)
