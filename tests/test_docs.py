"""The pages' examples are run as they stand."""

import re
from pathlib import Path

import pytest

from spikedistill.methods import METHODS
from spikedistill.recipebook import read_recipe
from spikedistill.run import train

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = DOCS / "adding-a-method.md"  # its blocks become files of the package
WITH_CODE = [page for page in sorted(DOCS.glob("*.md")) if page != PAGE and "```python" in page.read_text()]


def test_adding_a_method_takes_a_file_a_line_and_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```(python|yaml)\n(.*?)```", PAGE.read_text(), flags=re.S)
    assert [kind for kind, _ in blocks] == ["python", "python", "yaml"]
    (_, file), (_, line), (_, recipe) = blocks
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


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.stem)
def test_a_pages_python_runs_and_prints_what_stands_below(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {"__name__": page.stem}
    for kind, block in re.findall(r"```(python|text)\n(.*?)```", page.read_text(), flags=re.S):
        if kind == "python":
            exec(compile(block, page.name, "exec"), scope)
        else:
            assert capsys.readouterr().out == block


def test_the_page_of_methods_names_each() -> None:
    named = set(re.findall(r"`([a-z-]+)`", (DOCS / "methods.md").read_text()))
    assert named >= set(METHODS)
