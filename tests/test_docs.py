"""The pages' examples are run as they stand, their commands are known, and what they say of settings is so."""

import dataclasses
import re
import shlex
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch
import typer.main
import yaml

import spikedistill as sd
from spikedistill.methods import METHODS
from spikedistill.recipe import parse
from spikedistill.recipebook import read_recipe
from spikedistill.run import train
from spikedistill.runlist import parse_run_list, plan

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
ADDING = DOCS / "adding-a-method.md"  # its blocks become files of the package
ELSEWHERE = (ADDING, DOCS / "export.md")  # run below, and in tests/export
WITH_CODE = [page for page in PAGES if page not in ELSEWHERE and "```python" in page.read_text()]
WITH_PEERS = [page for page in PAGES if "```py\n" in page.read_text()]
WITH_SETTINGS = [name for name in METHODS if dataclasses.fields(METHODS[name].Settings)]
BASELINES = ("ann", "snn")
STARTERS = ("spikedistill", "torchrun", "srun")


@pytest.fixture(autouse=True)
def _plain_and_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIKEDISTILL_KERNELS", "plain")
    torch.manual_seed(0)


def named(page: Path) -> str:
    return page.relative_to(DOCS).with_suffix("").as_posix()


def blocks(page: Path, kinds: str) -> list[tuple[str, str]]:
    return re.findall(rf"^```({kinds})\n(.*?)^```$", page.read_text(), flags=re.S | re.M)


def test_adding_a_method_takes_a_file_a_line_and_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = blocks(ADDING, "python|yaml")
    assert [kind for kind, _ in found] == ["python", "python", "yaml"]
    (_, file), (_, line), (_, recipe) = found
    known = dict(METHODS)
    scope: dict[str, object] = {"METHODS": known, "__name__": "logit_mse"}
    exec(compile(file, "logit_mse.py", "exec"), scope)
    exec(line, scope)
    monkeypatch.setitem(METHODS, "logit-mse", known["logit-mse"])
    path = tmp_path / "digits-2conv-logit-mse.yaml"
    path.write_text(recipe)
    run = train(read_recipe(str(path), [f"out={tmp_path / 'run'}"], smoke=True), verbose=False)
    assert run.summary["method"] == "logit-mse"
    assert "loss/logits" in (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0]


@pytest.mark.parametrize("page", WITH_CODE, ids=named)
def test_a_pages_python_runs_and_prints_what_stands_below(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {"__name__": page.stem}
    for kind, block in blocks(page, "python|text"):
        if kind == "python":
            exec(compile(block, page.name, "exec"), scope)
        else:
            assert capsys.readouterr().out == block


@pytest.mark.filterwarnings("ignore")  # the peers' own
@pytest.mark.parametrize("page", WITH_PEERS, ids=named)
def test_a_pages_other_side_runs_where_the_peer_is_installed(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "".join(block for _, block in blocks(page, "py"))
    imported = set(re.findall(r"^(?:import|from) (\w+)", code, flags=re.M))
    missing = [name for name in sorted(imported) if find_spec(name) is None]
    assert "assert" in code
    if missing:
        pytest.skip(f"{', '.join(missing)} is a peer, not a dependency; tests/spiking/test_peers.py has its answers")
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {"__name__": page.stem}
    for _, block in blocks(page, "python|py"):
        exec(compile(block, page.name, "exec"), scope)


def commands() -> Iterator[tuple[str, list[str]]]:
    for page in PAGES:
        for _, block in blocks(page, "console|sh"):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words and words[0] in STARTERS:
                    yield named(page), words[words.index("spikedistill") + 1 :]


def test_every_command_is_one_and_its_recipes_and_keys_exist() -> None:
    from spikedistill.cli import app

    known: Any = typer.main.get_command(app)
    seen = set()
    for page, (command, *words) in commands():
        assert command in known.commands, page
        given = known.commands[command].make_context(command, list(words)).params
        if command in ("train", "search") and Path(given["recipe"]).name == given["recipe"]:
            read_recipe(given["recipe"], given["overrides"] or [])
        if command == "experiment":
            assert (ROOT / "src/spikedistill/experiments" / f"{given['name']}.yaml").is_file(), page
        seen.add(command)
    assert seen >= {"train", "eval", "energy", "export", "search", "campaign", "experiment", "table", "report", "demo"}


def test_every_recipe_and_list_of_runs_can_be_read(tmp_path: Path) -> None:
    seen = {"recipe": 0, "runs": 0}
    for page in PAGES:
        for _, block in blocks(page, "yaml"):
            content = yaml.safe_load(block)
            kind = "runs" if "runs" in content else "recipe"
            seen[kind] += 1
            if kind == "runs":
                plan(parse_run_list(content, named(page)), tmp_path, [])
            elif page != ADDING:
                assert parse(content, named(page)).method_settings()
    assert min(seen.values()) > 0


def test_the_page_of_methods_links_to_each() -> None:
    text = (DOCS / "methods.md").read_text()
    assert set(re.findall(r"`([a-z-]+)`", text)) >= set(METHODS)
    linked = dict(re.findall(r"\[`([a-z-]+)`\]\(methods/([a-z-]+)\.md\)", text))
    pages = {path.stem for path in (DOCS / "methods").glob("*.md")}
    assert linked == {name: name for name in pages} == {name: name for name in METHODS if name not in BASELINES}


@pytest.mark.parametrize("name", [name for name in METHODS if name not in BASELINES])
def test_a_methods_page_has_its_parts(name: str) -> None:
    page = DOCS / "methods" / f"{name}.md"
    text = page.read_text()
    parts = re.findall(r"^## (.*)$", text, flags=re.M)
    assert [part for part in parts if not part.startswith("Where it differs from the paper")] == [
        *("Formula", "Settings", "Example", "Our figures", "Published figures")
    ]
    assert len(parts) == 6
    assert f"<!-- our-figures: {name} -->" in text
    trained = [
        words[1] for where, words in commands() if where == f"methods/{name}" and words[0] in ("train", "search")
    ]
    assert name in {read_recipe(recipe).method["name"] for recipe in trained}


@pytest.mark.parametrize("name", WITH_SETTINGS)
def test_a_methods_settings_are_the_codes(name: str) -> None:
    settings = METHODS[name].Settings
    section = (DOCS / "methods" / f"{name}.md").read_text().partition("\n## Settings\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| `(.+?)` \| (.+) \|$", section, flags=re.M)
    written = {key: yaml.safe_load(default) for key, default, _ in rows}
    fields = dataclasses.fields(settings)
    assert list(written) == [field.name for field in fields]
    types = get_type_hints(settings)
    meanings = {key: meaning for key, _, meaning in rows}
    for field in fields:
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        assert (written[field.name], type(written[field.name])) == (default, type(default)), field.name
        if get_origin(types[field.name]) is Literal:
            assert set(get_args(types[field.name])) <= set(re.findall(r"`(\w+)`", meanings[field.name])), field.name


def test_every_page_has_its_place_in_the_navigation() -> None:
    def leaves(entry: Any) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        else:
            for inner in entry.values() if isinstance(entry, dict) else entry:
                yield from leaves(inner)

    placed = list(leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert sorted(placed) == sorted(f"{named(page)}.md" for page in PAGES)


def test_the_citation_is_of_this_version_and_licence() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert citation["title"].startswith("spikedistill") and citation["message"] and citation["authors"]
    assert citation["version"] == sd.__version__
    assert f'license = "{citation["license"]}"' in (ROOT / "pyproject.toml").read_text()
    assert f"## {sd.__version__}" in (ROOT / "CHANGELOG.md").read_text()
