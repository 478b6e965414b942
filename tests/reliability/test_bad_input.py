"""What is not fit to be read is refused by the command line: exit code 2, one sentence, nothing half-written."""

import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import readers
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from spikedistill.cli import main
from spikedistill.data import Loader, from_datasets
from spikedistill.errors import UserError
from spikedistill.runfolder import load_state


@pytest.fixture(autouse=True)
def _undone(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a program's ``main`` may change, and caches of our own."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    shown = warnings.formatwarning
    monkeypatch.setenv("SPIKEDISTILL_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("hub"))
    yield
    warnings.formatwarning = shown
    for number, handler in handlers.items():
        signal.signal(number, handler)


def cut(file: Path, kept: float = 0.5) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content))])


def pets(file: str = "", harm: Callable[[Path], object] = cut) -> Callable[[Path, Path], list[str]]:
    """Training on an image folder in which a file was harmed."""

    def arguments(folder: Path, run: Path) -> list[str]:
        readers.image_folder(".png")(folder, run)
        harm(folder / "pets" / "train" / "cat" / "0.png")
        return ["train", "digits-2conv-snn", f"data.path={folder / 'pets'}", "data.validation=0"]

    return arguments


def huge(file: Path) -> None:
    from test_strangers_data import bomb

    file.write_bytes(bomb(60_000))


def of_real_numbers(file: Path) -> None:
    from PIL import Image

    Image.new("F", (9, 8), 0.5).save(file.with_suffix(".tif"))


def empty_class(file: Path) -> None:
    shutil.rmtree(file.parent)
    file.parent.mkdir()


def no_test_part(file: Path) -> None:
    shutil.rmtree(file.parents[2] / "test")


def table(change: Callable[[Any], Any]) -> Callable[[Path, Path], list[str]]:
    """Training on a parquet table that was changed."""

    def arguments(folder: Path, run: Path) -> list[str]:
        (folder / "table").mkdir()
        for part in ("train", "test"):
            change(readers.table(0)).to_parquet(str(folder / "table" / f"{part}-0.parquet"))
        return ["train", "digits-2conv-snn", f"data.path={folder / 'table'}", "data.validation=0"]

    return arguments


def labelled(*labels: int) -> Callable[[Any], Any]:
    def change(rows: Any) -> Any:
        from datasets import Value

        return rows.remove_columns("label").add_column("label", list(labels), feature=Value("int64"))

    return change


def recordings(folder: Path, run: Path) -> list[str]:
    from spikedistill.data.recordings import CIFAR10

    for name in CIFAR10:
        (folder / "dvs" / name).mkdir(parents=True)
        for number in range(2):
            file = readers.recording(".aedat")(folder, run)
            file.rename(folder / "dvs" / name / f"{number}.aedat")
    cut(folder / "dvs" / "cat" / "0.aedat", 0.95)
    small = ["data.size=8", "data.validation=0", "data.frames=2", "timesteps=2"]
    return ["train", "digits-2conv-snn", "data.name=cifar10-dvs", f"data.path={folder / 'dvs'}", *small]


def teacher(write: Callable[[Path], object]) -> Callable[[Path, Path], list[str]]:
    """Training under a teacher whose weights are a stranger's."""

    def arguments(folder: Path, run: Path) -> list[str]:
        write(folder / "weights.safetensors")
        return ["train", "digits-2conv-kdsnn-response", f"teacher.path={folder / 'weights.safetensors'}"]

    return arguments


def of_other_shapes(file: Path) -> None:
    from safetensors.torch import save_file

    save_file({"conv1.weight": torch.zeros(1)}, file)


def lying(file: Path) -> None:
    file.write_bytes((2**40).to_bytes(8, "little") + b"{}")


def file_of(text: str, *command: str) -> Callable[[Path, Path], list[str]]:
    def arguments(folder: Path, run: Path) -> list[str]:
        (folder / "file.yaml").write_text(text)
        return [*command, str(folder / "file.yaml")]

    return arguments


def run_with(name: str, content: bytes, *command: str) -> Callable[[Path, Path], list[str]]:
    """A command on a finished run in which a file was exchanged."""

    def arguments(folder: Path, run: Path) -> list[str]:
        shutil.copytree(run, folder / "run")
        (folder / "run" / name).write_bytes(content)
        return [*command, str(folder / "run")]

    return arguments


CASES: dict[str, Callable[[Path, Path], list[str]]] = {
    "no YAML": file_of("a: [", "train"),
    "no recipe": file_of("- a", "train"),
    "a recipe's name that leads out": file_of("name: ../x\nmethod: {name: snn}\nstudent: {model: 2conv}", "train"),
    "a path that none can be": lambda folder, run: ["train", "digits-2conv-snn", "data.path=" + "x" * 300],
    "half of a character": lambda folder, run: ["train", "digits-2conv-snn", r'data.path="\ud800"'],
    "an override of nothing": lambda folder, run: ["train", "digits-2conv-snn", "epochs"],
    "an override of a bomb": lambda folder, run: ["train", "digits-2conv-snn", "data.mean=" + "[" * 5000],
    "an image cut short": pets(),
    "an image of no bytes": pets(harm=lambda file: file.write_bytes(b"")),
    "a huge image": pets(harm=huge),
    "an image of real numbers": pets(harm=of_real_numbers),
    "an image that is a link to itself": pets(harm=lambda file: (file.unlink(), file.symlink_to(file.name))),
    "an empty class": pets(harm=empty_class),
    "no test part": pets(harm=no_test_part),
    "labels out of range": table(labelled(0, 1, 2**40, 0)),
    "labels below zero": table(labelled(0, 1, -1, 0)),
    "a class without an image": table(labelled(0, 3, 0, 3)),
    "a table without labels": table(lambda rows: rows.remove_columns("label")),
    "a table without images": table(lambda rows: rows.remove_columns("image")),
    "a recording cut short": recordings,
    "weights whose header lies": teacher(lying),
    "weights of other shapes": teacher(of_other_shapes),
    "no weights": teacher(lambda file: file.write_bytes(b"")),
    "no list of runs": file_of("runs: 3", "campaign"),
    "a run that leads out of its list's folder": file_of("runs: [{recipe: digits-2conv-snn, label: ../x}]", "campaign"),
    "a list of runs with a bomb": file_of("a: &a [1, 1]\nruns: &b [*a, *a, *b]", "campaign"),
    "no experiment": file_of("title: 3", "experiment"),
    "a run that leads out of its experiment's folder": file_of(
        "{title: x, source: x, study: grid, smoke: [../x], runs: [{recipe: digits-2conv-snn, label: ../x}]}",
        *("experiment", "--smoke"),
    ),
    "a run's weights": run_with("student.safetensors", b"\0" * 100, "eval"),
    "a run's config": run_with("config.yaml", b"method: {name: snn, alpha: 1}", "energy"),
    "a run's summary": run_with("summary.json", b"[]", "table"),
    "a run's figures": run_with("summary.json", b'{"student_accuracy": "high"}', "table"),
    "a run's metrics": run_with("metrics.csv", b"epoch,a\n1,x\n", "report"),
    "a run's evaluation": run_with("evaluation.json", b'{"classes": 3}', "report"),
    "a run's energy": run_with("energy.json", b'{"student": {"total": 1e400}}', "report"),
    "the classes of what is exported": run_with("evaluation.json", b"[", "export"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_refused_with_two_and_leaves_nothing(
    case: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if case.startswith("the classes of what is exported"):
        pytest.importorskip("nir")
    folder = tmp_path / "in"
    folder.mkdir()
    arguments = CASES[case](folder, finished)
    capfd.readouterr()
    before = {path: path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["spikedistill", *arguments])
    with pytest.raises(SystemExit) as left, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main()
    said = capfd.readouterr().err
    assert left.value.code == 2, said
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("spikedistill: ")
    assert len(said.splitlines()[-1]) < 600
    assert {path: path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")} == before
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


KINDS = st.sampled_from(
    [torch.float32, torch.float64, torch.float16, torch.uint8, torch.int64, torch.bool, torch.cfloat]
)
SIZES = st.sampled_from((0, 1, 2, 3, 8))
NUMBERS = st.sampled_from([0.0, 1.0, -1.0, 255.0, 3.0, 1e30, float("nan"), float("inf")])


@st.composite
def tensors(draw: Any, dimensions: st.SearchStrategy[int], sizes: Any = SIZES) -> Tensor:
    """Of any kind and shape."""
    shape = [draw(sizes) for _ in range(draw(dimensions))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.full(shape, draw(NUMBERS)).to(draw(KINDS))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(tensors(st.integers(1, 5)), tensors(st.integers(0, 2)), st.sampled_from([None, 2, 0, ("a", "b"), -1]))
@example(images=torch.zeros(1, 0, 0, 0), labels=torch.zeros(1, dtype=torch.uint8), classes=None)
def test_a_data_set_of_any_tensors_is_refused_or_read(images: Tensor, labels: Tensor, classes: Any) -> None:
    if images.shape[0] != (labels.shape[0] if labels.dim() else -1):
        return  # torch itself refuses to make a data set of them
    dataset = TensorDataset(images, labels)
    try:
        data = from_datasets(dataset, dataset, validation=0.0, seed=0, classes=classes)
        loader = Loader(data.train, data.info, batch_size=4, device=torch.device("cpu"), shuffle=True, seed=0)
        batches = list(loader.epoch(0))
    except UserError as error:
        assert "\n" not in str(error)
        return
    for batch, wanted in batches:
        assert batch.dtype == torch.float32
        assert wanted.dtype == torch.int64
        assert int(wanted.min()) >= 0
        assert int(wanted.max()) < len(data.info.classes)


KEYS = st.sampled_from(["weight", "bias", "more", ""])


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(st.dictionaries(KEYS, tensors(st.integers(0, 3), st.sampled_from((2, 3))), max_size=4))
def test_a_state_of_any_tensors_is_refused_or_loaded(state: dict[str, Tensor]) -> None:
    network = nn.Linear(2, 3)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, at complex numbers
            load_state(network, state, "it")
    except UserError as error:
        assert "\n" not in str(error)
        return
    assert state.keys() == {"weight", "bias"}
    assert (state["weight"].shape, state["bias"].shape) == ((3, 2), (3,))
