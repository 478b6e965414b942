"""Recipes, run folders and their pages from strangers: nothing runs, leads out, blows up or steers."""

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from harm import refused

import spikedistill as sd
from spikedistill.build import load_run
from spikedistill.documents import parse_yaml, read_json
from spikedistill.recipebook import read_recipe
from spikedistill.report import find_runs, print_table, to_markdown, write_run_report
from spikedistill.runfolder import write_json

SOURCE = Path(sd.__file__).parent

TAGS = (
    "!!python/object/apply:os.mkdir [{mark}]",
    "!!python/object/new:os.mkdir [{mark}]",
    "!!python/name:os.system",
    "!!python/module:os",
    "!!python/object:spikedistill.recipe.Recipe {{}}",
    "!include /etc/passwd",
)


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("where", ["{}", "method: {{name: {}}}", "name: x\nout: {}\nmethod: {{name: snn}}"])
def test_no_tag_of_a_recipe_or_config_makes_anything(run: Path, tag: str, where: str) -> None:
    mark = run / "mark"
    text = where.format(tag.format(mark=mark))
    path = run / "recipe.yaml"
    path.write_text(text)
    (run / "config.yaml").write_text(text)
    assert "is not valid YAML" in refused(lambda: read_recipe(str(path)))
    assert "is not valid YAML" in refused(lambda: load_run(run))
    assert "is not valid YAML" in refused(lambda: find_runs([run]))
    assert "is not valid YAML" in refused(lambda: read_recipe("digits-2conv-snn", [f"name={tag.format(mark=mark)}"]))
    assert not mark.exists()


def test_a_slip_of_the_indent_is_found_by_its_line() -> None:
    message = refused(lambda: parse_yaml("name: x\nmethod:\n  name: sakd\n   beta: 3\n", "recipe 'x.yaml'"))
    assert message == "recipe 'x.yaml' is not valid YAML: mapping values are not allowed here (line 4, column 8)"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("epochs: 2\nseed: 1\nepochs: 3\n", "'epochs' twice in one section: lines 1 and 3"),
        ("method: {name: sakd, beta: 1, beta: 2}", "'beta' twice in one section: lines 1 and 1"),
        ("runs:\n  - recipe: x\n    set: {a: 1}\n    set: {b: 1}\n", "'set' twice in one section: lines 3 and 4"),
    ],
)
def test_a_key_that_stands_twice_is_not_decided_in_silence(text: str, lines: str) -> None:
    assert refused(lambda: parse_yaml(text, "recipe 'x.yaml'")) == f"recipe 'x.yaml' has the key {lines}"


def test_a_key_may_stand_once_in_each_of_two_sections() -> None:
    text = "a: {model: x}\nb: &b {model: y}\nc: {<<: *b, model: z}\n"
    assert parse_yaml(text, "it") == {"a": {"model": "x"}, "b": {"model": "y"}, "c": {"model": "z"}}


BOMBS = {
    "aliases": "a: &a ["
    + "1," * 30
    + "]\n"
    + "".join(f"{b}: &{b} [{('*' + a + ',') * 30}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)),
    "a value within itself": "a: &a {b: *a}\nmethod: {name: snn}",
    "depth": "[" * 5000,
    "depth of mappings": "{a: " * 900 + "1" + "}" * 900,
    "length": "a: " + "x" * 2_000_000,
    "a date": "epochs: 2001-01-01",
    "bytes": "name: !!binary aGVsbG8=",
    "a set": "name: !!set {a, b}",
    "a key that is no text": "{1: 2}",
    "no number": "seed: .nan",
    "infinity": "clip: .inf",
    "digits": "seed: " + "9" * 10_000,
    "sixties": "seed: " + ":".join(["59"] * 3000),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_in_yaml_is_refused_at_once(bomb: str) -> None:
    assert refused(lambda: parse_yaml(BOMBS[bomb], "the file")).startswith("the file ")


def test_json_and_csv_of_a_stranger_are_refused_in_a_sentence(run: Path) -> None:
    (run / "summary.json").write_text("[" * 100_000)
    refused(lambda: read_json(run / "summary.json", "it"))
    refused(lambda: find_runs([run]))
    (run / "summary.json").write_text('{"seed": ' + "9" * 4000 + "}")
    find_runs([run])
    (run / "metrics.csv").write_text('epoch,a\n1,"' + "x" * 200_000)
    refused(lambda: find_runs([run]))
    (run / "metrics.csv").write_bytes(b"epoch\xff\xfe\x00")
    refused(lambda: find_runs([run]))


PLACES = ["../../out", "/tmp/out", "a/b", "a\x00b", "a\\b", "a\x1b[31m"]


@pytest.mark.parametrize("name", PLACES)
def test_a_recipes_name_cannot_lead_out_of_runs(name: str) -> None:
    assert "'name'" in refused(lambda: read_recipe("digits-2conv-snn", [f"name={json.dumps(name)}"]))


def test_a_run_folders_config_leads_nowhere_when_it_is_loaded(run: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    text = (run / "config.yaml").read_text()
    changed = re.sub(r"^out: .*$", f"out: {outside}", text, flags=re.M)
    changed = changed.replace("path: null", f"path: {outside}").replace(
        "teacher: null", f"teacher: {{path: {outside}}}"
    )
    changed = changed.replace("kind: random", "kind: copy")
    assert changed.count(str(outside)) >= 3
    (run / "config.yaml").write_text(changed)
    opened: list[str] = []

    def note(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and noting:
            opened.append(str(arguments[0]))

    noting = True
    sys.addaudithook(note)
    sd.load(run)
    find_runs([run])
    write_run_report(run)
    noting = False
    assert opened
    assert not [path for path in opened if path.startswith(str(outside))]
    assert not outside.exists()


def test_a_recipe_imports_and_runs_nothing() -> None:
    # Whatever a recipe says is looked up in dicts: nothing in the package turns text into code or modules.
    pattern = re.compile(
        r"\b(import_module|__import__|eval|exec|execfile|compile|yaml\.load|full_load|unsafe_load|yaml\.(Full|Unsafe|C|CFull|CUnsafe)?Loader)\(|pickle"
    )
    allowed = {
        # The code of a traced network: made from the modules that the caller has in memory, not from a file.
        ("models/folded.py", "exec(compile("),
    }
    found = []
    for path in SOURCE.rglob("*.py"):
        for line in path.read_text().splitlines():
            code = line.split("#")[0].replace("allow_pickle=False", "")
            name = str(path.relative_to(SOURCE))
            if pattern.search(code) and not re.search(r"\.(eval|compile)\(|def (eval|compile)|^\s*\"\"\"", code):
                found.append((name, code.strip()))
    unexpected = [entry for entry in found if not any(entry[0] == at and text in entry[1] for at, text in allowed)]
    assert not unexpected


def test_every_reader_of_pickles_is_safe() -> None:
    for path in SOURCE.rglob("*.py"):
        text = path.read_text()
        for call in re.findall(r"torch\.load\((?:[^()]|\([^()]*\))*\)", text):
            assert "weights_only=True" in call, f"{path}: {call}"
        for call in re.findall(r"np\.load\([^)]*\)", text):
            assert "allow_pickle=False" in call, f"{path}: {call}"


@pytest.mark.parametrize("name", ["hf-hub:somebody/thing", "hf_hub:a/b", "local-dir:/tmp/x", "../x", "a/b", ""])
def test_no_weights_come_from_anybody_by_the_way_of_timm(name: str) -> None:
    from spikedistill.models.elsewhere import from_timm

    assert "is none of timm's own" in refused(lambda: from_timm(f"timm/{name}", 2, 3, pretrained=True))


NASTY = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'`${title}$style</style></title><!--"


class Parts(HTMLParser):
    """The tags, attributes and addresses of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.addresses: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.addresses |= {value or "" for name, value in attrs if name in ("href", "src", "data", "xlink:href")}


def test_no_name_from_outside_becomes_a_part_of_the_page(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    for key, value in summary.items():
        if isinstance(value, str):
            summary[key] = NASTY + key
    summary["published"] = {"figure": 1.0, "source": NASTY, "note": NASTY}
    write_json(run / "summary.json", summary)
    evaluation = json.loads((run / "evaluation.json").read_text())
    evaluation["classes"] = [f"{NASTY}{index}" for index in range(len(evaluation["classes"]))]
    evaluation["firing_rate"] = {NASTY + name: rate for name, rate in evaluation["firing_rate"].items()}
    evaluation["example"]["raster"] = {NASTY + name: rows for name, rows in evaluation["example"]["raster"].items()}
    write_json(run / "evaluation.json", evaluation)
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("description: ", f"description: {json.dumps(NASTY)} #", 1))
    metrics = (run / "metrics.csv").read_text().replace("loss/task", '"loss/' + NASTY.replace('"', '""') + '"')
    (run / "metrics.csv").write_text(metrics)
    page = write_run_report(run).read_text()
    assert "<script" not in page
    assert "<img src=x" not in page
    parts = Parts()
    parts.feed(page)
    assert "script" not in parts.tags
    assert not [
        name for name in parts.attributes if name.startswith("on") or name in ("srcdoc", "action", "formaction")
    ]
    known = ("#", "data:image/png;base64,", "data:,")
    assert not [address for address in parts.addresses if not address.startswith(known)]
    assert "&lt;script&gt;" in page
    assert "<script" not in to_markdown(find_runs([run])).replace("\\<", "")


def test_no_control_character_of_a_file_reaches_the_terminal(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = json.loads((run / "summary.json").read_text())
    steering = "\x1b]0;title\x07\x1b[31mred\x9b1m\u202egnp"
    summary["dataset"] = summary["model"] = steering
    write_json(run / "summary.json", summary)
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("name: digits-2conv-snn", f"name: {json.dumps(steering)}"))
    print_table(find_runs([run]))
    shown = capsys.readouterr().out + to_markdown(find_runs([run]))
    shown += refused(lambda: read_recipe("digits-2conv-snn", [f"epochs={json.dumps(steering)}"]))
    shown += refused(lambda: sd.load(run))
    assert "red" in shown
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", shown)
