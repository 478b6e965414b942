"""The command line as a person meets it: exit codes, one sentence for a mistake, no traceback."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import spikedistill as sd


def spikedistill(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "spikedistill", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=280)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "run"
    done = spikedistill("train", "digits-2conv-kdsnn-response", "--smoke", f"out={folder}")
    assert done.returncode == 0, done.stderr
    assert "kdsnn-response" in done.stdout
    assert "teacher" in done.stdout
    assert "epoch 2/2" in done.stderr
    return folder


def test_eval_prints_what_the_summary_says(run_folder: Path) -> None:
    done = spikedistill("eval", run_folder, "--json")
    result = json.loads(done.stdout)
    summary = json.loads((run_folder / "summary.json").read_text())
    assert result["accuracy"] == summary["student_accuracy"]
    assert result["mean_firing_rate"] == pytest.approx(summary["firing_rate"])
    assert list(result["accuracy_per_timestep"]) == ["1", "2"]
    one = json.loads(spikedistill("eval", run_folder, "--timesteps", 1, "--json").stdout)
    assert one["accuracy"] == result["accuracy_per_timestep"]["1"]


def test_it_says_its_version_and_helps_in_short_too() -> None:
    assert spikedistill("--version").stdout == f"spikedistill {sd.__version__}\n"
    assert spikedistill("eval", "-h").stdout == spikedistill("eval", "--help").stdout


def test_table_and_report_read_the_run(run_folder: Path, tmp_path: Path) -> None:
    table = spikedistill("table", run_folder, "--markdown")
    assert table.returncode == 0
    assert "kdsnn-response" in table.stdout
    page = tmp_path / "page.html"
    assert spikedistill("report", run_folder, "-o", page).returncode == 0
    assert "<html" in page.read_text()


@pytest.mark.parametrize("what", ["models", "methods", "recipes", "data"])
def test_lists_have_a_line_each(what: str) -> None:
    done = spikedistill("list", what)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) >= 4


MISTAKES = [
    (["train", "mnist-2conv-kdsn"], "did you mean 'mnist-2conv-kdsnn'"),
    (["train", "nosuch"], "are accepted, among them"),
    (
        ["train", "digits-2conv-snn", "--epochs", "3"],
        "no option '--epochs' (see --help); a recipe's setting is written epochs=VALUE",
    ),
    (["experiment", "depth", "--worker", "2"], "no option '--worker'"),
    (["train", "digits-2conv-snn", "timesteps=0"], "timesteps"),
    (["train", "digits-2conv-snn", "epochs=many"], "epochs"),
    (["train", "digits-2conv-snn", "data.path=missing"], "data.path 'missing'"),
    (["train", "digits-2conv-kdsnn-response", "teacher.path=missing"], "no teacher at teacher.path 'missing'"),
    (["eval", "missing"], "'missing' is not a run folder"),
    (["table", "missing"], "missing"),
    (["report", "missing"], "missing"),
    (["list", "model"], "did you mean 'models'"),
]


@pytest.mark.parametrize(
    ("arguments", "said"), MISTAKES, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_a_mistake_is_one_sentence_and_exit_code_two(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = spikedistill(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_teacher_of_other_classes_is_refused_from_its_run_folder(run_folder: Path, tmp_path: Path) -> None:
    teacher = tmp_path / "teacher"
    config = yaml.safe_load((run_folder / "teacher" / "config.yaml").read_text())
    assert config["student"]["num_classes"] == 10
    import spikedistill as sd
    from spikedistill.runfolder import save_network

    config["student"]["num_classes"] = 4
    teacher.mkdir()
    (teacher / "config.yaml").write_text(yaml.safe_dump(config))
    width = config["student"]["width"]
    save_network(
        sd.create_model("2conv", num_classes=4, in_channels=1, image_size=8, width=width),
        teacher / "student.safetensors",
    )
    done = spikedistill("train", "digits-2conv-kdsnn-response", f"teacher.path={teacher}", f"out={tmp_path / 'run'}")
    assert done.returncode == 2
    assert "the teacher answers with 4 classes and the student with 10" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["demo", "train", "eval", "export", "table", "report", "list"])
def test_every_command_has_help_with_an_example(command: str) -> None:
    done = spikedistill(command, "--help")
    assert done.returncode == 0
    assert f"spikedistill {command}" in done.stdout
    assert "Example" in done.stdout


def test_demo_quick_ends_with_a_table_and_a_page(tmp_path: Path) -> None:
    done = spikedistill("demo", "--quick", "--out", tmp_path / "demo")
    assert done.returncode == 0, done.stderr
    assert "kdsnn-response" in done.stdout
    assert "plain SNN" in done.stdout
    assert (tmp_path / "demo" / "report.html").is_file()
