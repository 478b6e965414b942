"""Files from strangers, one for every reader: no code of theirs runs, no path of theirs leads out, one sentence."""

import hashlib
import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import forked
import pytest
import torch

import spikedistill as sd
from spikedistill.build import load_run, read_config
from spikedistill.data import DataSettings, open_data
from spikedistill.documents import parse_yaml, read_json
from spikedistill.engine.checkpoint import latest_checkpoint
from spikedistill.errors import UserError
from spikedistill.recipebook import read_recipe
from spikedistill.report import find_runs, to_markdown, write_run_report
from spikedistill.run import train
from spikedistill.runfolder import read_state, save_network, write_json

SOURCE = Path(sd.__file__).parent


class Evil:
    """Pickles to a call that makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return (os.mkdir, (str(self.mark),))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    train(forked.recipe(folder, "epochs=1", name="digits-2conv-snn"), verbose=False)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, to be tampered with."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def refused(act: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        act()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 1000
    return message


# --- weights


@pytest.mark.parametrize("write", ["torch", "legacy", "pickle", "zip"])
@pytest.mark.parametrize("name", ["weights.pt", "weights.pth", "weights.bin", "weights.safetensors"])
def test_a_pickle_of_weights_runs_nothing(tmp_path: Path, write: str, name: str) -> None:
    mark, path = tmp_path / "mark", tmp_path / name
    content = {"conv.weight": Evil(mark)}
    if write in ("torch", "legacy"):
        torch.save(content, path, _use_new_zipfile_serialization=write == "torch")
    elif write == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("archive/data.pkl", pickle.dumps(content))
            file.writestr("archive/../../mark", "out")
    assert "cannot be read as a state dict" in refused(lambda: read_state(path))
    assert not mark.exists()
    pickle.loads(pickle.dumps(Evil(mark)))  # the file would have done harm
    assert mark.exists()


def header(content: dict[str, object] | bytes, data: bytes = b"", claim: int | None = None) -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return (len(text) if claim is None else claim).to_bytes(8, "little") + text + data


LYING = {
    "longer than the file": header({}, claim=2**40),
    "negative": header({}, claim=2**64 - 1),
    "no JSON": header(b"{" * 50),
    "nested": header(b'{"a":' * 20_000),
    "offsets behind the end": header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}),
    "more numbers than bytes": header({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 8]}}, b"0" * 8),
    "overlapping": header({k: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for k in ("a", "b")}, b"0" * 8),
    "overflowing": header({"a": {"dtype": "F32", "shape": [2**32, 2**32], "data_offsets": [0, 8]}}, b"0" * 8),
    "unknown type": header({"a": {"dtype": "OBJ", "shape": [1], "data_offsets": [0, 8]}}, b"0" * 8),
    "empty": b"",
}


@pytest.mark.parametrize("lie", LYING)
def test_a_safetensors_file_whose_header_lies_is_refused(run: Path, lie: str) -> None:
    (run / "student.safetensors").write_bytes(LYING[lie])
    assert "student.safetensors' cannot be read as a state dict" in refused(lambda: sd.load(run))


def test_weights_of_other_shapes_names_and_kinds_are_refused(run: Path) -> None:
    from safetensors.torch import save_file

    path = run / "student.safetensors"
    state = read_state(path)
    for changed, said in (
        ({**state, "conv1.weight": state["conv1.weight"][:, :, :2]}, "'conv1.weight' is [4, 1, 2, 3]"),
        ({**state, "more": torch.zeros(1)}, "has a tensor 'more'"),
        ({key: state[key] for key in list(state)[1:]}, "has no tensor"),
    ):
        save_file({key: value.contiguous() for key, value in changed.items()}, path)
        assert said in refused(lambda: sd.load(run))
    weights = run / "weights.pt"
    for kind in (
        state["fc2.weight"].to_sparse(),
        torch.empty(state["fc2.weight"].shape, device="meta"),
    ):
        torch.save({**state, "fc2.weight": kind}, weights)
        network = load_run_of(run, weights)
        assert "cannot be" in refused(network)


def load_run_of(run: Path, weights: Path) -> Callable[[], object]:
    from spikedistill.build import make_network
    from spikedistill.runfolder import load_state

    recipe = read_config(run)
    (run / "student.safetensors").unlink(missing_ok=True)

    def load() -> None:
        assert recipe.student is not None
        load_state(make_network(recipe.student, True, recipe), read_state(weights), "the file")

    return load


def test_a_config_cannot_ask_for_more_memory_than_its_weights_fill(run: Path) -> None:
    config = run / "config.yaml"
    text = config.read_text()
    for width in (10**5, 10**9):
        config.write_text(text.replace("width: 4", f"width: {width}", 1))
        message = refused(lambda: sd.load(run))
        assert "the network's is" in message or "cannot be built" in message


def test_a_checkpoint_of_a_stranger_runs_nothing(run: Path) -> None:
    mark = run / "mark"
    for old in (run / "checkpoints").iterdir():
        old.unlink()
    for content, said in (
        ({"method": Evil(mark)}, "is no checkpoint of spikedistill"),
        ([1, 2], "it holds a list"),
        ({"method": {}}, "are not of this run"),
        ({"method": {}, "optimizer": {}, "position": {"epoch": "x", "b": 1}, "rng": 0, "rng_cuda": []}, "not of this"),
    ):
        buffer = io.BytesIO()
        torch.save(content, buffer)
        body = buffer.getvalue()
        (run / "checkpoints" / "step-0000000001.pt").write_bytes(hashlib.sha256(body).digest() + body)
        (run / "summary.json").unlink(missing_ok=True)
        again = forked.recipe(run, "epochs=1", name="digits-2conv-snn")
        assert said in refused(lambda recipe=again: train(recipe, resume=True, verbose=False))
        assert not mark.exists()
        assert (run / "student.safetensors").exists()
    with pytest.raises(UserError):
        latest_checkpoint(run / "checkpoints") and train(again, resume=True, verbose=False)


# --- recipes and configs

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


PLACES = ["../../out", "/tmp/out", "a/b", "..", "a\x00b", ".hidden", "a\\b"]


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
        r"\b(import_module|__import__|eval|exec|execfile|compile|yaml\.load|full_load|unsafe_load)\(|pickle"
    )
    allowed = {
        # The code of a traced network: made from the modules that the caller has in memory, not from a file.
        ("models/folded.py", "exec(compile("),
    }
    found = []
    for path in SOURCE.rglob("*.py"):
        for line in path.read_text().splitlines():
            code = line.split("#")[0]
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


# --- data


def test_a_data_folder_with_a_script_runs_nothing(tmp_path: Path) -> None:
    folder, mark = tmp_path / "stranger", tmp_path / "mark"
    folder.mkdir()
    (folder / "stranger.py").write_text(f"import os\nos.mkdir({str(mark)!r})\n")
    refused(lambda: open_data(DataSettings(path=str(folder)), 0))
    assert not mark.exists()


def test_a_table_cannot_name_images_outside_its_folder(tmp_path: Path) -> None:
    import datasets
    from PIL import Image

    secret = tmp_path / "secret.png"
    Image.new("L", (8, 8)).save(secret)
    folder = tmp_path / "data"
    folder.mkdir()
    features = datasets.Features({"image": datasets.Image(decode=False), "label": datasets.Value("int64")})
    for part in ("train", "test"):
        rows = {"image": [{"bytes": None, "path": str(secret)}] * 2, "label": [0, 1]}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(str(folder / f"{part}-0.parquet"))
    message = refused(lambda: open_data(DataSettings(path=str(folder), validation=0.0), 0))
    assert "which lies outside" in message


def image_folder(tmp_path: Path, content: bytes, name: str = "0.png") -> Path:
    from PIL import Image

    for part in ("train", "test"):
        place = tmp_path / "images" / part / "cat"
        place.mkdir(parents=True)
        Image.new("L", (8, 8)).save(place / "a.png")
    (tmp_path / "images" / "train" / "cat" / name).write_bytes(content)
    return tmp_path / "images"


def bomb(side: int) -> bytes:
    """A PNG of a few kilobytes that says it has ``side`` x ``side`` pixels."""
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    size = side.to_bytes(4, "big") * 2
    rows = zlib.compress(bytes(1 + side) * 8)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", size + bytes([8, 0, 0, 0, 0]))
        + chunk(b"IDAT", rows)
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [9_000, 12_000, 60_000])
def test_an_image_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, side: int) -> None:
    folder = image_folder(tmp_path, bomb(side))
    message = refused(lambda: open_data(DataSettings(path=str(folder), validation=0.0, size=8), 0))
    assert "0.png" in message
    assert "cannot be read as an image" in message


def test_no_interpreter_is_started_for_an_image(tmp_path: Path) -> None:
    # Pillow would hand PostScript to Ghostscript, whatever the file is called.
    mark = tmp_path / "mark"
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(" + str(mark).encode() + b") (w) file\n"
    folder = image_folder(tmp_path, script)
    assert "cannot be read as an image" in refused(lambda: open_data(DataSettings(path=str(folder), validation=0.0), 0))
    assert not mark.exists()


@pytest.mark.parametrize(
    "content", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff\xe0" + bytes(20), bytes(1000)]
)
def test_images_that_are_none_are_refused(tmp_path: Path, content: bytes) -> None:
    folder = image_folder(tmp_path, content)
    assert "0.png" in refused(lambda: open_data(DataSettings(path=str(folder), validation=0.0), 0))


# --- pages

NASTY = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'`${title}$style</style></title><!--"


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
    assert not re.search(r"<[a-z]+ [^>]*\bon[a-z]+\s*=", page)
    assert "&lt;script&gt;" in page
    assert "http-equiv" not in page
    assert "<script" not in to_markdown(find_runs([run])).replace("\\<", "")


def test_no_control_character_of_a_file_reaches_the_terminal(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    summary["dataset"] = "\x1b]0;title\x07\x1b[31mred"
    write_json(run / "summary.json", summary)
    done = subprocess.run(
        [sys.executable, "-m", "spikedistill", "table", str(run)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert "\x07" not in done.stdout


# --- chips


def hdf5(fill: Callable[[object], None]) -> io.BytesIO:
    h5py = pytest.importorskip("h5py")
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        fill(file)
    buffer.seek(0)
    return buffer


def test_a_nir_file_cannot_reach_out_of_itself_nor_grow(tmp_path: Path) -> None:
    h5py, numpy = pytest.importorskip("h5py"), pytest.importorskip("numpy")
    pytest.importorskip("nir")
    from spikedistill.export.interpreter import read_nir

    secret = tmp_path / "secret"
    secret.write_bytes(bytes(800))
    cases = {
        "is a link to somewhere else": lambda file: file.create_group("node").__setitem__(
            "nodes", h5py.ExternalLink(str(secret), "/")
        ),
        "lie in another file": lambda file: file.create_group("node").create_dataset(
            "weight", shape=(100,), dtype="f8", external=[(str(secret), 0, 800)]
        ),
        "claims to hold more than": lambda file: file.create_group("node").create_dataset(
            "weight", shape=(2**20, 2**20), dtype="f4", chunks=(64, 64)
        ),
        "lies within itself": lambda file: file.create_group("node").__setitem__("again", file["node"]),
        "is not a NIR file": lambda file: file.create_dataset("node", data=numpy.ones(3)),
    }
    for said, fill in cases.items():
        assert said in refused(lambda fill=fill: read_nir(hdf5(fill)))
    assert "is not a NIR file" in refused(lambda: read_nir(io.BytesIO(pickle.dumps(Evil(tmp_path / "mark")))))
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    "changes", [bytes([1, 4, 1, 1]), bytes([2, 4, 2, 1, 4, 1, 2]), bytes([1, 3, 1]), bytes([1, 0, 5, 9])]
)
def test_nir_graphs_with_cycles_or_missing_nodes_are_refused(changes: bytes) -> None:
    pytest.importorskip("nir")
    sys.path.insert(0, str(Path(__file__).parents[2] / "fuzz"))
    try:
        from graphs import written
    finally:
        sys.path.pop(0)
    from spikedistill.export.interpreter import read_nir

    read_nir(io.BytesIO(written(b"")))
    refused(lambda: read_nir(io.BytesIO(written(changes))))


def test_the_search_refuses_a_database_that_is_none(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    from spikedistill.search.bayes import _open

    path = tmp_path / "trials.db"
    path.write_bytes(pickle.dumps(Evil(tmp_path / "mark")) * 100)
    assert "cannot be used" in refused(lambda: _open(path))
    assert not (tmp_path / "mark").exists()


def test_weights_are_written_as_safetensors_only(tmp_path: Path) -> None:
    save_network(torch.nn.Linear(2, 2), tmp_path / "x.safetensors")
    assert (tmp_path / "x.safetensors").read_bytes()[8:9] == b"{"
