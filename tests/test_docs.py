"""The pages' examples are run as they stand."""

import re
from pathlib import Path

import pytest

from spikedistill.methods import METHODS
from spikedistill.recipebook import read_recipe
from spikedistill.run import train

PAGE = Path(__file__).resolve().parent.parent / "docs" / "adding-a-method.md"


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
