"""Reading run folders: what is there, what is missing, and what is broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spikedistill.errors import UserError
from spikedistill.report import find_runs, read_run


def test_a_complete_run_is_read_as_it_was_written(make_run):
    published = {"figure": 93.41, "source": "KDSNN table 1", "timesteps": 4, "note": "another teacher"}
    path = make_run("kdsnn-response", 2, accuracy=97.25, epochs=6, summary={"published": published})
    run = read_run(path)
    assert (run.method, run.model, run.dataset, run.timesteps, run.seed) == ("kdsnn-response", "2conv", "digits", 4, 2)
    assert (run.accuracy, run.teacher_accuracy, run.device, run.commit) == (97.25, 98.2, "cpu", "0123456789")
    assert run.published is not None and (run.published.figure, run.published.note) == (93.41, "another teacher")
    assert run.missing == () and run.finished and run.epochs_done == 6
    assert run.metrics["epoch"] == [1, 2, 3, 4, 5, 6]
    assert {"loss/task", "loss/response", "train_loss", "validation_accuracy"} <= set(run.metrics)
    assert run.evaluation is not None and list(run.accuracy_per_timestep) == [1, 2, 3, 4]
    (path / "evaluation.json").unlink()
    assert read_run(path).accuracy_per_timestep == {}
    assert list(run.evaluation.firing_rate) == ["relu1", "relu2", "relu3"]


def test_a_stopped_run_is_read_as_far_as_it_got(make_run):
    path = make_run("sakd", 1, epochs=5)
    (path / "summary.json").unlink()
    (path / "evaluation.json").unlink()
    run = read_run(path)
    assert run.missing == ("summary.json", "evaluation.json")
    assert not run.finished and run.epochs_done == 5
    assert (run.method, run.model, run.dataset, run.seed, run.timesteps) == ("sakd", "2conv", "digits", 1, 4)


def test_metrics_keep_the_last_of_a_repeated_epoch_and_leave_gaps_empty(make_run):
    path = make_run()
    rows = "epoch,train_loss,validation_accuracy\n1,0.9,\n2,nan,80\n3,0.4,85\n2,0.6,81\n"
    (path / "metrics.csv").write_text(rows)
    metrics = read_run(path).metrics
    assert metrics == {"epoch": [1, 2, 3], "train_loss": [0.9, 0.6, 0.4], "validation_accuracy": [None, 81, 85]}
    (path / "metrics.csv").write_text(rows + "4,inf")
    assert read_run(path).metrics["train_loss"][3] is None


BROKEN = {
    "config.yaml": ["a: [1", "- a list", "!!python/object/apply:os.system ['true']", "\x00"],
    "summary.json": ["", "[1]", '{"student_accuracy": "high"}', '{"seed": true}', '{"published": 93}'],
    "metrics.csv": ["", "lr,loss\n1,2\n", "epoch,lr\n1,fast\n", "epoch,lr\n1,2,3\n"],
    "evaluation.json": [
        "{",
        '{"confusion": [[1, 2]]}',
        '{"confusion": [[NaN]]}',
        '{"confusion": [[1]], "classes": ["a", "b"]}',
        '{"accuracy_per_timestep": {"first": 90}}',
        '{"firing_rate": {"relu1": "often"}}',
        '{"example": {"raster": {"relu1": [[0, 1], [0]]}}}',
        '{"example": {"image": [[[0, 300]]]}}',
        '{"example": {"image": [[0.5]]}}',
        '{"example": {"image": [[]]}}',
        '{"example": {"label": "three"}}',
    ],
}


@pytest.mark.parametrize(("name", "content"), [(name, text) for name, texts in BROKEN.items() for text in texts])
def test_a_broken_file_is_refused_in_one_sentence_with_its_path(make_run, name, content):
    path = make_run()
    (path / name).write_text(content)
    with pytest.raises(UserError) as refusal:
        read_run(path)
    assert str(path / name) in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_folder_without_config_is_refused(make_run):
    path = make_run()
    (path / "config.yaml").unlink()
    with pytest.raises(UserError, match=r"config\.yaml is missing"):
        read_run(path)


def test_runs_are_found_below_folders_without_their_teachers(make_run, tmp_path):
    first = make_run("snn", 0)
    second = make_run("sakd", 0, folder="deep/er/sakd")
    teacher = make_run("ann", 0, timesteps=None, folder=f"{second.name}/teacher")
    inside = make_run("ann", 1, timesteps=None, folder="deep/er/sakd/teacher")
    assert {run.path for run in find_runs(tmp_path / "runs")} == {first, second}
    assert [run.path for run in find_runs([inside, str(teacher)])] == [inside, teacher]
    assert len(find_runs([first, tmp_path / "runs", first.parent / "." / first.name])) == 2


def test_of_several_paths_those_without_runs_are_passed_over(make_run, tmp_path: Path):
    run = make_run("snn", 0)
    (run.parent / "report.html").write_text("<html>")
    (run.parent / "empty").mkdir()
    said: list[str] = []
    assert [found.path for found in find_runs(sorted(run.parent.iterdir()), said.append)] == [run]
    assert len(said) == 1 and "report.html" in said[0] and "empty" in said[0]
    with pytest.raises(UserError, match="no run in"):
        find_runs([run.parent / "report.html", run.parent / "empty"])


def test_paths_without_runs_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match="no run in"):
        find_runs(tmp_path)
    with pytest.raises(UserError, match="no such run folder"):
        find_runs(tmp_path / "absent")


def test_evaluation_of_an_event_image_is_accepted(make_run):
    path = make_run()
    content = json.loads((path / "evaluation.json").read_text())
    content["example"]["image"] = [[[0, 255]] * 3] * 2
    (path / "evaluation.json").write_text(json.dumps(content))
    run = read_run(path)
    assert run.evaluation is not None and run.evaluation.example is not None
    assert run.evaluation.example.image[0][0] == [0, 255]
