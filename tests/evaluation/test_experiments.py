"""Every experiment by name: its file, its smoke run, and going on where it stopped."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import spikedistill as sd
from spikedistill.errors import TrainingFailed, UserError
from spikedistill.experiment import run_experiment
from spikedistill.report import find_runs, write_report
from spikedistill.report.experiment import RECORD
from spikedistill.results import write_page
from spikedistill.study import STUDIES
from spikedistill.sweep import PAPER, SCALES, SMALL, list_experiments, plan, read_sweep

EXPERIMENTS = list_experiments()
ASKED_FOR = {
    "noise",
    "noise-mnist",
    "convergence",
    "depth",
    "position",
    "transform-distance",
    "beta",
    "teachers",
    "teachers-kdsnn",
    "init-logits-features",
    "joint-ablation",
    "energy",
    "attribution",
    "latency",
    "depth-cifar100",
    "idsnn-ablation",
    "idsnn-ablation-cifar100",
}


def test_all_experiments_are_there():
    assert set(EXPERIMENTS) >= ASKED_FOR


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_can_be_planned_at_every_scale(name):
    sweep = read_sweep(name)
    assert sweep.study in STUDIES
    assert sweep.small.about
    small, paper = plans = [plan(sweep, scale, Path("out"), []) for scale in SCALES]
    for planned in plans:
        assert len({one.recipe.folder() for one in planned}) == len(planned)
        for one in planned:
            teacher = one.recipe.teacher
            if one.cell.teacher is not None:
                assert teacher is not None
                assert teacher.path == f"out/{one.cell.teacher}-seed{one.seed}"
    assert all(one.recipe.published is None for one in small), "figures of another size stand in the table alone"
    assert sum(one.recipe.epochs for one in small) < sum(one.recipe.epochs for one in paper)


# experiment -> row and column to the figure that the paper prints there
PRINTED = {
    "depth": {  # SAKD table 4, CIFAR-10
        ("ResNet-18", "ANN"): 95.65,
        ("ResNet-34", "plain SNN"): 93.50,
        ("ResNet-50", "SAKD"): 95.55,
        ("ResNet-101", "plain SNN"): 55.83,
        ("ResNet-152", "plain SNN"): 10.00,
        ("ResNet-152", "SAKD"): 95.36,
    },
    "depth-cifar100": {("ResNet-18", "SAKD"): 77.85, ("ResNet-101", "plain SNN"): 35.72},  # SAKD table 4, CIFAR-100
    "idsnn-ablation": {("alone", "accuracy"): 93.54, ("initialised", "accuracy"): 93.64},  # IDSNN table 3
    "idsnn-ablation-cifar100": {("taught", "accuracy"): 73.71, ("initialised and taught", "accuracy"): 75.41},
    "beta": {("1", "SAKD"): 75.98, ("100", "SAKD"): 77.85, ("500", "SAKD"): "unstable"},  # SAKD table 8
    "position": {  # SAKD table 10
        ("ResNet-18", "stage, after the spike"): 77.78,
        ("ResNet-34", "stage, before the spike"): 78.41,
        ("ResNet-101", "block, after the spike"): 79.41,
        ("ResNet-101", "stage, after the spike"): "unstable",
    },
    "transform-distance": {("ResNet-18", "as they are"): 76.00, ("ResNet-34", "standardised"): 77.88},  # SAKD table 5
    "teachers": {("ResNet-101", "ResNet-50 taught by it"): 79.62},  # SAKD table 2
    "teachers-kdsnn": {("WRN16-2, feature", "Pyramidnet18"): 92.10, ("ResNet-14", "no teacher"): 87.46},  # table 1
    "init-logits-features": {  # SAKD table 7
        ("nothing", "ResNet-34"): 64.40,
        ("initialisation, logits, features", "ResNet-50"): 71.71,
    },
    "joint-ablation": {("joint: CE, KLD, norm", "accuracy"): 94.52},  # Joint A-SNN table 4
    "convergence": {("IDSNN", "steps at 10, 20, 30"): 73.02, ("plain SNN", "steps at 60, 120, 160"): 71.31},  # IDSNN 4
    "noise-mnist": {("turned digits", "KDSNN"): 95.34, ("turned digits", "ANN"): 96.01},  # KDSNN table 2
}


@pytest.mark.parametrize("name", PRINTED)
def test_published_figures_stand_in_their_places(name):
    planned = plan(read_sweep(name), PAPER, Path("out"), [])
    found = {(one.cell.row, one.cell.column): one.published for one in planned}
    for place, figure in PRINTED[name].items():
        assert found[place] == figure


def test_the_small_scale_changes_the_papers_recipes_and_the_user_both(tmp_path):
    sweep = read_sweep("depth")
    snn = {one.cell.label: one.recipe for one in plan(sweep, SMALL, tmp_path, ["student.width=5", "teacher.width=6"])}
    assert snn["resnet18-snn"].student is not None
    assert snn["resnet18-snn"].student.width == 5
    assert snn["resnet18-snn"].teacher is None, "a teacher's setting makes no teacher"
    assert snn["resnet18-ann"].student is not None
    assert snn["resnet18-ann"].student.width == 6, "the teacher's run is the recipe's teacher"
    assert snn["resnet18-ann"].method == {"name": "ann"}
    paper = {one.cell.label: one.recipe for one in plan(sweep, PAPER, tmp_path, [])}
    assert paper["resnet18-snn"].epochs == 200
    assert paper["resnet18-snn"].student is not None
    assert paper["resnet18-snn"].student.width is None


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_smoke_run_leaves_table_picture_and_page(name, tmp_path):
    said: list[str] = []
    assert run_experiment(name, smoke=True, out=tmp_path, say=said.append) == []
    record = json.loads((tmp_path / RECORD).read_text())
    assert record["scale"] == "smoke"
    assert record["command"] == f"spikedistill experiment {name} --smoke"
    assert record["runs"]["finished"] == record["runs"]["planned"] == len(read_sweep(name).smoke)
    assert record["tables"]
    assert all(table["rows"] for table in record["tables"])
    assert record["pictures"]
    for picture in record["pictures"]:
        for file in picture["files"]:
            assert (tmp_path / file).stat().st_size > 1000
    page = (tmp_path / "report.html").read_text()
    assert 'id="experiment"' in page
    assert "data:image/svg+xml;base64," in page
    text = (tmp_path / "tables.md").read_text()
    assert record["tables"][0]["title"] in text
    assert record["commit"][0][:10] in text


def test_seeds_of_the_users_own_take_the_place_of_the_scales(tmp_path):
    seeds = {one.seed for one in plan(read_sweep("depth"), SMALL, tmp_path, ["seed=4,2"])}
    assert seeds == {2, 4}
    with pytest.raises(UserError, match=r"'seed=a' is no list of seeds; write seed=0 or seed=0,1,2"):
        plan(read_sweep("depth"), SMALL, tmp_path, ["seed=a"])
    with pytest.raises(UserError, match="'out=x' would put all runs into one folder"):
        plan(read_sweep("depth"), SMALL, tmp_path, ["out=x"])


def test_a_finished_experiment_is_recorded_and_its_page_made_from_the_record_alone(tmp_path):
    out, results = tmp_path / "out", tmp_path / "results"
    with pytest.raises(UserError, match="--smoke shrinks runs to seconds, which are no results"):
        run_experiment("depth", smoke=True, out=out, results=results)
    tiny = ["student.width=4", "teacher.width=4", "data.name=digits", "data.subset=40", "data.test_subset=40"]
    tiny += ["epochs=1", "teacher.epochs=1", "timesteps=2", "optimizer.lr=0.01", "seed=7"]
    file = tmp_path / "short.yaml"
    file.write_text(SHORT)
    assert run_experiment(str(file), out=out, results=results, overrides=tiny, say=lambda line: None) == []
    record = results / "experiments" / "short"
    assert {path.name for path in (record / "runs").iterdir()} == {"ann-seed7", "taught-seed7"}
    assert sorted(path.name for path in (record / "runs" / "ann-seed7").iterdir()) == [
        "config.yaml",
        "metrics.csv",
        "summary.json",
    ]
    assert str(tmp_path) not in (record / "runs" / "taught-seed7" / "config.yaml").read_text()
    page = (results / "short.md").read_text()
    picture = re.search(r"!\[.*\]\((experiments/short/.*\.png)\)", page)
    assert picture is not None
    assert (results / picture[1]).stat().st_size > 1000
    (results / "short.md").unlink()
    write_page(results)
    assert (results / "short.md").read_text() == page
    assert page.split("# A short one\n\n")[1] in (results / "README.md").read_text()
    assert "Changed by the command: student.width=4" in page and "seed=7" not in page.partition("Made by")[0]
    assert "40 test images" in page
    assert "`spikedistill experiment depth --results results`" in (results / "README.md").read_text(), "still to run"
    written = write_report(find_runs(record), tmp_path / "page.html").read_text()
    assert 'id="experiment"' in written and "A short one" in written
    assert "teacher.path=RUN_OF/ann-seed7" in written, "a record does not say where its teacher lies"
    with pytest.raises(UserError, match="is a record without the trained network"):
        sd.load(record / "runs" / "taught-seed7")


def test_a_missing_extra_is_told_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr("spikedistill.evaluation.maps.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs captum: pip install 'spikedistill\[attribution\]'"):
        run_experiment("attribution", smoke=True, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


SHORT = """
title: A short one
source: nobody
study: grid
smoke: [ann]
runs:
  - {recipe: sakd-cifar10-resnet18, label: ann, trains: teacher, row: ResNet-18, column: ANN}
  - {recipe: sakd-cifar10-resnet18, label: taught, teacher: ann, row: ResNet-18, column: SAKD}
"""


def test_the_same_command_goes_on_and_makes_the_same_table(tmp_path):
    said: list[str] = []
    stopped = run_experiment("depth", smoke=True, out=tmp_path, overrides=["batch_size=20"], say=said.append)
    assert stopped == []
    weights = (tmp_path / "resnet18-sakd-seed0" / "student.safetensors").stat().st_mtime_ns
    before = json.loads((tmp_path / RECORD).read_text())
    assert run_experiment("depth", smoke=True, out=tmp_path, overrides=["batch_size=20"], say=said.append) == []
    assert (tmp_path / "resnet18-sakd-seed0" / "student.safetensors").stat().st_mtime_ns == weights
    assert json.loads((tmp_path / RECORD).read_text()) == before


def test_time_that_is_up_is_told(tmp_path):
    with pytest.raises(TrainingFailed, match="time is up"):
        run_experiment("depth", smoke=True, out=tmp_path, minutes=0.0, say=lambda line: None)


MISTAKES = [
    ("dept", {}, "did you mean 'depth'"),
    ("depth", {"scale": "large"}, "scale"),
    ("depth", {"overrides": ["epochz=3"]}, "epochz"),
]


@pytest.mark.parametrize(("name", "settings", "said"), MISTAKES)
def test_mistakes_are_refused(name, settings, said, tmp_path):
    with pytest.raises(UserError, match=said):
        run_experiment(name, out=tmp_path, say=lambda line: None, **settings)
    assert not list(tmp_path.iterdir())


WRONG = [
    ("title: x", "source"),
    ("runs: [", "YAML"),
    ("like: dept", "did you mean 'depth'"),
    ("like: depth\nrecipes: [a]", "must map the beginnings of recipes' names"),
    ("like: depth\nrecipez: {a: b}", "recipez"),
    ("title: x\nsource: y\nstudy: grid\nsmoke: [b]\nruns: [{recipe: digits-2conv-snn, label: a}]", "'b'"),
    ("title: x\nsource: y\nstudy: grids\nsmoke: [a]\nruns: [{recipe: digits-2conv-snn, label: a}]", "'grids'"),
    (
        "title: x\nsource: y\nstudy: grid\nsmoke: [a]\nruns: [{recipe: digits-2conv-snn, label: a, trains: teacher}]",
        "no section 'teacher'",
    ),
    (
        "title: x\nsource: y\nstudy: grid\nsmoke: [a]\nruns: [{recipe: digits-2conv-snn, label: a, teacher: b}]",
        "teacher of 'a'",
    ),
]


@pytest.mark.parametrize(("text", "said"), WRONG)
def test_a_wrong_file_is_refused(text, said, tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=said):
        run_experiment(str(file), out=tmp_path / "out", say=lambda line: None)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seeds: [0, -1]\n", "seeds.1"),
        ("small: {seeds: [-1]}\n", "small.seeds.0"),
        ("small: {without: [a]}\n", "every run that is asked for is among those that scale 'small' leaves out"),
    ],
)
def test_a_file_that_plans_what_cannot_be_made_is_refused(text, said, tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text(
        f"title: x\nsource: y\nstudy: grid\nsmoke: [a]\nruns: [{{recipe: digits-2conv-snn, label: a}}]\n{text}"
    )
    with pytest.raises(UserError, match=re.escape(said)):
        run_experiment(str(file), smoke=True, out=tmp_path / "out", say=lambda line: None)


def test_a_seed_that_is_named_twice_is_one_run(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text(
        "title: x\nsource: y\nstudy: grid\nseeds: [0, 0, 1]\nsmoke: [a]\nruns: [{recipe: digits-2conv-snn, label: a}]"
    )
    assert [one.seed for one in plan(read_sweep(str(file)), "small", tmp_path, [])] == [0, 1]


def test_a_smoke_run_on_events_has_as_many_frames_as_steps(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text(
        "title: x\nsource: y\nstudy: grid\nsmoke: [a]\n"
        "runs: [{recipe: digits-2conv-snn, label: a, set: {data.simulator: {}}}]"
    )
    (one,) = plan(read_sweep(str(file)), "small", tmp_path, [], smoke=True)
    assert one.recipe.timesteps == one.recipe.data.frames == 2


def test_a_file_of_ones_own(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text(
        "title: Two seeds\nsource: nowhere\nstudy: grid\nseeds: [0, 1]\nsmoke: [a]\n"
        "runs: [{recipe: digits-2conv-snn, label: a, row: digits, column: SNN, published: 50}]\n"
    )
    small = ["data.subset=60", "data.test_subset=40", "epochs=1", "student.width=4", "timesteps=2"]
    assert run_experiment(str(file), out=tmp_path / "out", overrides=small, say=lambda line: None) == []
    (table,) = json.loads((tmp_path / "out" / RECORD).read_text())["tables"]
    assert table["heads"] == ["", "SNN", "published"]
    ((name, ours, published),) = table["rows"]
    assert (name, published) == ("digits", "50.00")
    assert " ± " in ours, "two seeds"


def test_runs_of_other_settings_are_not_counted(tmp_path):
    said: list[str] = []
    assert not run_experiment("latency", smoke=True, out=tmp_path, say=said.append)
    with pytest.raises(TrainingFailed, match="no finished run yet"):
        run_experiment("latency", smoke=True, out=tmp_path, overrides=["neuron.threshold=0.7"], say=said.append)
    assert "threshold" not in (tmp_path / "tables.md").read_text()


@pytest.mark.parametrize("name", list_experiments())
@pytest.mark.parametrize("scale", SCALES)
def test_pictures_are_cut_out_of_what_they_are_resized_to(name, scale, tmp_path):
    """ImageNet's 256 before 224; at another size of the images what stays of it would be a patch of some pixels."""
    for one in plan(read_sweep(name), scale, tmp_path, []):
        data = one.recipe.data
        assert data.resize is None or (data.size is not None and data.size <= data.resize < 2 * data.size)
