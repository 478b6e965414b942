"""Campaigns: what is made in which order, where it goes on, and what stands on the page."""

import shlex
import shutil
import time
from pathlib import Path

import pytest
import torch

from spikedistill.campaign import run_campaign
from spikedistill.demo import _recipe
from spikedistill.errors import UserError
from spikedistill.experiment import run_experiment
from spikedistill.recipe import parse
from spikedistill.recipebook import read_recipe
from spikedistill.results import GENERATED, unmade, write_page
from spikedistill.resuming import at_home
from spikedistill.runfolder import read_json
from spikedistill.runlist import choose_entries, plan, read_run_list

TINY = ["student.width=4", "data.subset=32", "data.test_subset=32", "data.validation=0.0", "batch_size=16", "epochs=1"]
LIST = """
title: What a teacher is worth
seeds: [0, 1]
runs:
  - {recipe: digits-2conv-ann}
  - {recipe: digits-2conv-snn, seeds: [1], set: {neuron.threshold: 0.5}}
  - {recipe: digits-2conv-sakd, label: taught, teacher: digits-2conv-ann, estimate: a second}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "worth.yaml"
    path.write_text(LIST)
    return path


def test_all_runs_of_a_seed_come_before_the_next_and_share_its_teacher(file, tmp_path):
    planned = plan(read_run_list(file), tmp_path / "out", ["epochs=3"])
    assert [run.name for run in planned] == [
        "digits-2conv-ann-seed0",
        "taught-seed0",
        "digits-2conv-ann-seed1",
        "digits-2conv-snn-seed1",
        "taught-seed1",
    ]
    assert all(run.recipe.epochs == 3 and run.recipe.seed == run.seed for run in planned)
    assert planned[3].recipe.neuron.threshold == 0.5 and planned[4].recipe.neuron.threshold == 1.0
    teachers = [run.recipe.teacher.path if run.recipe.teacher else None for run in planned]
    assert teachers[1] == str(tmp_path / "out" / "digits-2conv-ann-seed0")
    assert teachers[4] == str(tmp_path / "out" / "digits-2conv-ann-seed1")


def test_it_runs_records_and_says_what_is_left(file, tmp_path):
    out, results = tmp_path / "out", tmp_path / "results"
    said: list[str] = []
    # A run that cannot be made does not keep the others from being made.
    tiny = ", ".join(setting.replace("=", ": ") for setting in TINY)
    tet = '  - {recipe: digits-2conv-tet, set: {data.path: /no/such/folder, data.augment: ["shift:1"]}, seeds: [0]}\n'
    file.write_text(f"set: {{{tiny}}}{LIST}{tet}")
    troubles = run_campaign(file, out=out, results=results, say=said.append)
    assert len(troubles) == 1 and "/no/such/folder" in troubles[0] and "digits-2conv-tet-seed0" in troubles[0]
    assert len(said) == 6
    record = results / "runs" / "worth" / "taught-seed1"
    assert sorted(path.name for path in record.iterdir()) == ["config.yaml", "metrics.csv", "summary.json"]
    assert str(tmp_path) not in (record / "config.yaml").read_text()
    accuracy = read_json(out / "taught-seed1" / "summary.json")["student_accuracy"]
    assert read_json(record / "summary.json")["student_accuracy"] == accuracy

    page = (results / "README.md").read_text()
    assert page == (write_page(results), (results / "README.md").read_text())[1]  # made from the records alone
    (row,) = [line for line in page.splitlines() if line.startswith("| digits | 2conv | sakd |")]
    assert "| 2 |" in row
    pending = [line for line in page.splitlines() if "spikedistill train" in line]
    assert len(pending) == 1 and "digits-2conv-tet" in pending[0] and "| tet |" in pending[0]
    command = shlex.split(pending[0].split("`")[1])  # as a shell reads it, it is the run of the list
    assert command[:2] == ["spikedistill", "train"]
    alone, listed = read_recipe(command[2], command[3:]), plan(read_run_list(file), out, [])[2].recipe
    assert alone.model_copy(update={"out": listed.out}) == listed and alone.out == "runs/worth/digits-2conv-tet-seed0"
    assert "What a teacher is worth" in (results / "worth.md").read_text()

    before = {path: path.stat().st_mtime_ns for path in out.glob("*/student.safetensors")}
    run_campaign(file, out=out, results=results, say=said.append)
    assert before == {path: path.stat().st_mtime_ns for path in out.glob("*/student.safetensors")}  # made once

    # A list that asks for more than was made has its runs to make; what was made is shown as what it is.
    file.write_text(file.read_text().replace("epochs: 1", "epochs: 2"))
    shutil.copy(file, results / "campaigns")
    write_page(results)
    page = (results / "worth.md").read_text()
    assert "Still to run (6 of 6 runs)" in page and row in page


def test_what_is_recorded_is_not_made_on_another_machine_but_for_its_teachers(file, tmp_path):
    results, other = tmp_path / "results", tmp_path / "other"
    tiny = ", ".join(setting.replace("=", ": ") for setting in TINY)
    file.write_text(f"set: {{{tiny}}}{LIST}")
    assert not run_campaign(file, out=tmp_path / "out", results=results, say=lambda line: None)
    said: list[str] = []
    assert not run_campaign(file, out=other, results=results, say=said.append)
    assert said == [f"5 runs are among the records of '{results}' already, and are left out"] and not other.exists()
    shutil.rmtree(results / "runs" / "worth" / "taught-seed1")
    assert not run_campaign(file, out=other, results=results, say=said.append)
    assert sorted(path.name for path in other.iterdir()) == ["digits-2conv-ann-seed1", "taught-seed1"]
    assert (results / "runs" / "worth" / "taught-seed1" / "summary.json").is_file()


def test_entries_are_chosen_by_pattern_and_bring_their_teachers(file, tmp_path):
    def names(*only: str) -> list[str]:
        return [entry.name for entry in choose_entries(read_run_list(file), only).runs]

    assert names() == ["digits-2conv-ann", "digits-2conv-snn", "taught"]
    assert names("taught") == ["digits-2conv-ann", "taught"]
    assert names("*-snn") == ["digits-2conv-snn"]
    assert names("*-snn", "t*") == ["digits-2conv-ann", "digits-2conv-snn", "taught"]
    with pytest.raises(UserError, match=r"unknown label .* 'taugth'; did you mean 'taught'"):
        run_campaign(file, out=tmp_path / "out", only=["taught", "taugth"])
    assert not (tmp_path / "out").exists()


def test_it_stops_in_time_and_goes_on(file, tmp_path):
    out = tmp_path / "out"
    long = [*TINY[:-1], "epochs=3000"]
    started = time.monotonic()
    troubles = run_campaign(file, out=out, minutes=0.03, overrides=long, say=lambda line: None)
    assert time.monotonic() - started < 60
    assert len(troubles) == 1 and "digits-2conv-ann-seed0" in troubles[0] and "time is up" in troubles[0]
    first = sorted((out / "digits-2conv-ann-seed0" / "checkpoints").iterdir())
    assert first
    run_campaign(file, out=out, minutes=0.03, overrides=long, say=lambda line: None)
    second = sorted((out / "digits-2conv-ann-seed0" / "checkpoints").iterdir())
    assert second[-1].name > first[-1].name


def _epochs(capfd) -> list[str]:
    """The lines of progress, without the seconds that an epoch took."""
    return sorted(line.rpartition("  ")[0] for line in capfd.readouterr().err.splitlines() if "  epoch 1/1  " in line)


def test_runs_side_by_side_are_the_same_runs_and_wait_for_their_teachers(file, tmp_path, capfd):
    """One of the list is refused, which stops no other; the taught ones cannot begin before the ANN has ended."""
    file.write_text(LIST + "  - {recipe: digits-2conv-tet, set: {data.path: /no/such/folder}, seeds: [0]}\n")
    alone, beside = tmp_path / "alone", tmp_path / "beside"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as each of several processes has; more threads add in another order
    try:
        first = run_campaign(file, out=alone, overrides=TINY, say=lambda line: None)
    finally:
        torch.set_num_threads(threads)
    told = _epochs(capfd)
    assert len(told) == 5 and any(line.startswith("taught-seed1  epoch 1/1  loss ") for line in told)
    said: list[str] = []
    second = run_campaign(file, out=beside, overrides=TINY, workers=2, say=said.append)
    assert len(said) == 6
    assert _epochs(capfd) == told, "each line names its run, whichever process it comes from"
    assert second == first
    for weights in sorted(alone.glob("*/student.safetensors")):
        assert weights.read_bytes() == (beside / weights.parent.name / weights.name).read_bytes()
    assert run_campaign(file, out=beside, overrides=TINY, workers=2, minutes=0.0, say=said.append)[:-1] == []


def test_a_run_that_has_no_memory_keeps_no_other_from_being_made(file, tmp_path, monkeypatch, capsys):
    from spikedistill import run

    def failing(recipe, train=run.train, **settings):
        if recipe.name == "digits-2conv-ann" and recipe.seed == 0:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore words")
        return train(recipe, **settings)

    monkeypatch.setattr(run, "train", failing)
    file.write_text("seeds: [0, 1]\nruns: [{recipe: digits-2conv-ann}]")
    (trouble,) = run_campaign(file, out=tmp_path, overrides=TINY, say=print)
    assert "digits-2conv-ann-seed0: OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB." in trouble
    assert "Traceback" in capsys.readouterr().err  # a fault of ours must be findable
    assert (tmp_path / "digits-2conv-ann-seed1" / "summary.json").is_file()


def test_where_a_run_was_computed_is_not_what_its_recipe_says(tmp_path):
    """As on a machine with several GPUs, where runs of ``device: auto`` are dealt out."""
    from spikedistill.evalrun import open_run
    from spikedistill.run import train

    recipe = read_recipe("digits-2conv-snn", [*TINY, "device=cuda:7", f"out={tmp_path / 'run'}"])
    with pytest.raises(UserError, match="cuda:7"):
        train(recipe, verbose=False)
    run = train(recipe, verbose=False, device="cpu")
    assert "device: cuda:7" in (run.folder / "config.yaml").read_text()
    assert open_run(run.folder).device.type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_a_list_that_is_stopped_begins_no_other_run(file, tmp_path):
    troubles = run_campaign(
        file,
        out=tmp_path / "out",
        overrides=[*TINY[:-1], "epochs=3000"],
        workers=2,
        minutes=0.05,
        say=lambda line: None,
    )
    assert len(troubles) == 2
    assert all("time is up" in trouble for trouble in troubles)


def test_the_seeds_of_a_list_can_be_chosen_among(file, tmp_path):
    planned = plan(read_run_list(file), tmp_path, ["seed=1"])
    assert [run.name for run in planned] == ["digits-2conv-ann-seed1", "digits-2conv-snn-seed1", "taught-seed1"]
    with pytest.raises(UserError, match="seed 5 is none of the list's: 0 1"):
        plan(read_run_list(file), tmp_path, ["seed=5"])


def test_a_folder_of_somebody_elses_pages_is_left_alone(file, tmp_path):
    page = tmp_path / "README.md"
    page.write_text("# Mine\n")
    with pytest.raises(UserError, match="not made by this command"):
        run_campaign(file, out=tmp_path / "out", results=tmp_path, overrides=TINY)
    assert page.read_text() == "# Mine\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("runs: []", "runs"),
        ("title: 3\nruns: [{recipe: digits-2conv-snn}]", "title"),
        ("runs: [{recipe: digits-2conv-snn}, {recipe: digits-2conv-snn}]", "two entries 'digits-2conv-snn'"),
        ("runs: [{recipe: digits-2conv-sakd, teacher: digits-2conv-ann}]", "teacher of 'digits-2conv-sakd'"),
        ("runs: [{recipe: digits-2conv-snn, speed: 1}]", "runs.0.speed"),
        ("runs: [{recipe: digits-2conv-snn, seeds: [-1]}]", "seeds"),
        ("runs: {", "YAML"),
        ("- a", "the file"),
    ],
)
def test_mistakes_are_named(tmp_path, content, said):
    file = tmp_path / "wrong.yaml"
    file.write_text(content)
    with pytest.raises(UserError, match=said):
        read_run_list(file)


def test_what_a_list_asks_of_recipes_is_checked_before_anything_runs(tmp_path):
    file = tmp_path / "wrong.yaml"
    file.write_text("runs: [{recipe: digits-2conv-snn}, {recipe: digits-2conv-snnn}]")
    with pytest.raises(UserError, match="digits-2conv-snn"):
        run_campaign(file, out=tmp_path / "out")
    file.write_text("runs: [{recipe: digits-2conv-ann}, {recipe: digits-2conv-snn, teacher: digits-2conv-ann}]")
    with pytest.raises(UserError, match="no section 'teacher'"):
        run_campaign(file, out=tmp_path / "out")
    with pytest.raises(UserError, match="no list of runs"):
        run_campaign(tmp_path / "none.yaml")
    file.write_text("runs: [{recipe: digits-2conv-snn}]")
    with pytest.raises(UserError, match="--smoke"):
        run_campaign(file, results=tmp_path / "results", smoke=True)
    assert not (tmp_path / "out").exists()


SHIPPED = sorted((Path(__file__).resolve().parent.parent / "results" / "campaigns").glob("*.yaml"))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_the_committed_campaigns_can_be_planned(file, tmp_path):
    for run in plan(read_run_list(file), tmp_path, []):
        assert parse(run.recipe.model_dump(mode="json")).seed == run.seed
        assert run.entry.estimate


def test_the_committed_page_is_what_the_records_say(tmp_path):
    results = SHIPPED[0].parent.parent
    copied = tmp_path / "results"
    shutil.copytree(results, copied)
    write_page(copied)
    pages = sorted(page for page in copied.glob("*.md") if page.name != "speed.md")  # which `bench` writes
    assert {page.stem for page in pages} >= {"README", *(file.stem for file in SHIPPED)}
    for page in pages:
        committed = (results / page.name).read_text()
        assert committed.startswith(GENERATED)
        assert page.read_text() == committed, f"{page.name}: run `spikedistill campaign` again, or write_page"


def test_a_record_of_other_settings_is_not_told_as_the_lists(file, tmp_path):
    results = tmp_path / "results"
    tiny = ", ".join(setting.replace("=", ": ") for setting in TINY)
    file.write_text(f"set: {{{tiny}}}{LIST}".replace("seeds: [0, 1]", "seeds: [0]"))
    assert not run_campaign(file, out=tmp_path / "out", results=results, say=lambda line: None)
    page = results / f"{file.stem}.md"
    assert "Of other settings" not in page.read_text()
    changed = file.read_text().replace(
        "- {recipe: digits-2conv-ann}", "- {recipe: digits-2conv-ann, set: {optimizer.lr: 0.02}}"
    )
    (results / "campaigns" / file.name).write_text(changed)
    write_page(results)
    own, _, others = page.read_text().partition("Of other settings than this list's")
    assert "| ANN |" in others.partition("Still to run")[0] and "| ANN |" not in own


def test_numbers_that_make_no_run_are_refused(file, tmp_path):
    for options, said in (({"workers": 0}, "--workers must be at least 1"), ({"minutes": -1.0}, "--minutes must be")):
        with pytest.raises(UserError, match=said):
            run_campaign(file, out=tmp_path, **options)
    said: list[str] = []
    with pytest.raises(UserError, match=r"data\.path '/no/where' is not a folder"):
        run_campaign(file, out=tmp_path, overrides=["data.path=/no/where"], say=said.append)
    assert not said, "once, and before any run"


def test_a_pupil_is_made_again_with_another_teacher(file, tmp_path):
    results = tmp_path / "results"
    tiny = ", ".join(setting.replace("=", ": ") for setting in TINY)
    other = "  - {recipe: digits-2conv-ann, label: other, set: {optimizer.lr: 0.01}}\n"
    text = f"set: {{{tiny}}}{LIST}".replace("seeds: [0, 1]", "seeds: [0]").replace(
        "  - {recipe: digits-2conv-snn", other + "  - {recipe: digits-2conv-snn"
    )
    file.write_text(text)
    assert not run_campaign(file, out=tmp_path / "out", results=results, say=lambda line: None)

    def left(changed: str) -> list[str]:
        file.write_text(changed)
        records = results / "runs" / "worth"
        return [run.name for run in unmade(plan(read_run_list(file), tmp_path / "elsewhere", []), records)]

    assert left(text) == []
    assert left(text.replace("teacher: digits-2conv-ann", "teacher: other")) == ["taught-seed0"]
    again = text.replace("- {recipe: digits-2conv-ann}", "- {recipe: digits-2conv-ann, set: {optimizer.lr: 0.02}}")
    assert left(again) == ["digits-2conv-ann-seed0", "taught-seed0"]


def test_a_teacher_that_has_not_the_pupils_seed_is_refused(file):
    file.write_text(LIST.replace("{recipe: digits-2conv-ann}", "{recipe: digits-2conv-ann, seeds: [0]}"))
    with pytest.raises(UserError, match="'taught' has seed 1, its teacher 'digits-2conv-ann' has not"):
        read_run_list(file)


def test_a_record_that_is_cut_short_is_not_the_new_settings(file, tmp_path, monkeypatch):
    """The figure that stands there is of other settings; without it the run counts as still to be made."""
    import spikedistill.results as results

    tiny = ", ".join(setting.replace("=", ": ") for setting in TINY)
    file.write_text(f"set: {{{tiny}}}\nruns:\n  - {{recipe: digits-2conv-snn}}\n")
    assert not run_campaign(file, out=tmp_path / "out", say=lambda line: None)
    (run,) = plan(read_run_list(file), tmp_path / "out", [])
    record = tmp_path / "records" / run.name
    results.record_run(run.recipe.folder(), record)
    config = run.recipe.folder() / "config.yaml"
    config.write_text(config.read_text().replace("epochs: 1\n", "epochs: 30\n"))
    (later,) = plan(read_run_list(file), tmp_path / "out", ["epochs=30"])
    assert results.is_made(run, record.parent) and not results.is_made(later, record.parent)

    def full(*_: object) -> None:
        raise OSError("no space")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(results, "read_text", full)
        results.record_run(run.recipe.folder(), record)
    assert not results.is_made(run, record.parent) and not results.is_made(later, record.parent)


def test_a_smoke_run_and_the_real_one_do_not_meet(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file.write_text("runs:\n  - {recipe: digits-2conv-snn}\n")
    assert not run_campaign(file, smoke=True, say=lambda line: None)
    assert [path.name for path in Path("runs").iterdir()] == ["worth-smoke"]


def test_a_list_called_yml_has_its_page(file, tmp_path):
    other = file.rename(file.with_suffix(".yml"))
    results = tmp_path / "results"
    other.write_text("title: Worth it\nruns:\n  - {recipe: digits-2conv-snn, set: {data.path: /no/where}}\n")
    with pytest.raises(UserError, match="/no/where"):
        run_campaign(other, out=tmp_path / "out", results=results)
    other.write_text("title: Worth it\nruns:\n  - {recipe: digits-2conv-snn}\n")
    run_campaign(other, out=tmp_path / "out", results=results, minutes=1e-9, say=lambda line: None)
    assert "# Worth it" in (results / "worth.md").read_text() and "## Worth it" in (results / "README.md").read_text()


def test_a_list_that_cannot_be_read_any_more_ends_a_campaign_before_its_first_run(file, tmp_path):
    stale = tmp_path / "results" / "campaigns" / "stale.yaml"
    stale.parent.mkdir(parents=True)
    stale.write_text("runs:\n  - {recipe: one-that-was-renamed}\n")
    with pytest.raises(UserError, match="one-that-was-renamed"):
        run_campaign(file, out=tmp_path / "out", results=tmp_path / "results")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["README.md", "worth.md"])
def test_pages_of_somebody_else_are_not_lost(file, tmp_path, name):
    page = tmp_path / name
    page.write_text("# My project\n")
    sweep = tmp_path / "worth.yml"
    sweep.write_text("title: x\nsource: y\nstudy: grid\nsmoke: [a]\nruns: [{recipe: digits-2conv-snn, label: a}]")
    lost = f"{name}' was not made by this command and would be lost"
    with pytest.raises(UserError, match=lost):
        run_campaign(file, out=tmp_path / "out", results=tmp_path)
    with pytest.raises(UserError, match=lost):
        run_experiment(str(sweep), out=tmp_path / "out", results=tmp_path)
    assert page.read_text() == "# My project\n" and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["a #1", "a: b", "2024", "\U0001f9e0", "~", "null", "\x85", "'x\""])
def test_a_folder_may_be_called_anything(file, tmp_path, name):
    out = tmp_path / name
    (first, *_) = plan(read_run_list(file), out, [])
    assert first.recipe.folder().parent == out
    demo = _recipe(out, "ann", 0)
    assert demo.folder().parent == out
    (out / "run" / "checkpoints").mkdir(parents=True)
    (out / "run" / "config.yaml").write_text(first.recipe.to_yaml(), encoding="utf-8")
    config = str(out / "run" / "config.yaml")
    assert read_recipe(config, at_home(config, [])).folder() == out / "run"


def test_what_a_campaign_would_take_the_place_of_is_not_lost(file, tmp_path):
    results = tmp_path / "results"
    (results / "campaigns").mkdir(parents=True)
    (results / "campaigns" / "worth.yaml").write_text(LIST.replace("What a teacher is worth", "Something else"))
    with pytest.raises(UserError, match="is a list of another title, and would be lost"):
        run_campaign(file, out=tmp_path / "out", results=results)
    (results / "campaigns" / "worth.yaml").unlink()
    (results / "experiments" / "worth").mkdir(parents=True)
    with pytest.raises(UserError, match=r"worth.md' is an experiment's page"):
        run_campaign(file, out=tmp_path / "out", results=results)
    assert not (tmp_path / "out").exists()


def test_a_teacher_named_twice_is_refused(file, tmp_path):
    with pytest.raises(UserError, match=r"'taught' names a teacher and is given teacher\.path too"):
        plan(read_run_list(file), tmp_path, ["teacher.path=elsewhere"])


def test_commands_of_a_list_with_spaces_in_its_name_can_be_typed(file, tmp_path):
    spaced = file.rename(file.with_name("my list.yaml"))
    run_campaign(spaced, out=tmp_path / "out", results=tmp_path / "results", minutes=1e-9, say=lambda line: None)
    page = (tmp_path / "results" / "my list.md").read_text()
    assert "'out=runs/my list/taught-seed0' 'teacher.path=runs/my list/digits-2conv-ann-seed0'" in page
    assert "spikedistill campaign 'results/campaigns/my list.yaml' --results results" in page
