"""Recipes: every shipped one parses and runs its smoke size; wrong ones are refused in one sentence."""

from pathlib import Path

import pytest
import yaml

from spikedistill.errors import UserError
from spikedistill.recipe import parse
from spikedistill.recipebook import list_recipes, read_recipe, smoke_size
from spikedistill.run import train
from spikedistill.runfolder import read_json

BASE = {"student": {"model": "2conv"}, "method": {"name": "snn"}}


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_is_named_as_its_file_described_and_reruns_from_what_it_writes(name: str) -> None:
    recipe = read_recipe(name)
    assert recipe.name == name
    assert recipe.description
    assert parse(yaml.safe_load(recipe.to_yaml())) == recipe


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_runs_its_smoke_size_to_the_end(name: str, tmp_path: Path) -> None:
    recipe = read_recipe(name, [f"out={tmp_path / 'run'}"], smoke=True)
    summary = train(recipe, verbose=False).summary
    assert summary["epochs"] == recipe.epochs
    assert summary["train_images"] <= 64
    assert 0.0 <= summary["student_accuracy"] <= 100.0
    assert read_json(tmp_path / "run" / "summary.json") == summary


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("methd=1", "unknown recipe key 'methd'; did you mean 'method'"),
        ("optimizer.lrr=1", "unknown recipe key 'optimizer.lrr'; did you mean 'lr'"),
        ("data.pth=x", "unknown recipe key 'data.pth'; did you mean 'path'"),
        ("student.widht=8", "unknown recipe key 'student.widht'; did you mean 'width'"),
        ("student.stem=cifar", "unknown option of model 2conv 'stem'"),
        ("method.alpha=1", "unknown recipe key 'method.alpha'"),
        ("method.name=sakdd", "unknown method 'sakdd'; did you mean 'sakd'"),
        ("student.model=resnet-18", "unknown model 'resnet-18'; did you mean 'resnet18'"),
        ("student={model: vit-tiny}", "model vit-tiny is an ANN only; take spikformer-tiny as the spiking network"),
        ("timesteps=0", "recipe key 'timesteps'"),
        ("timesteps=two", "recipe key 'timesteps'"),
        ("epochs=2.5", "recipe key 'epochs'"),
        ("optimizer.lr=fast", "recipe key 'optimizer.lr'"),
        ("neuron.decay=1.5", "recipe key 'neuron.decay'"),
        ("precision=fp8", "recipe key 'precision'"),
        ("seed=-1", "recipe key 'seed'"),
        ("epochs", "an override is key=value, not 'epochs'"),
        ("epochs.more=1", "'epochs' is a value, not a section"),
        ("name=[", "the value is not valid YAML"),
        ("data.augment=[flipp]", "unknown augmentation 'flipp'; did you mean 'flip'"),
        ("init.kind=copy", "needs a teacher"),
        ("data.path=/nowhere/at/all", "data.path '/nowhere/at/all'"),
        ("student.num_classes=7", "student.num_classes is 7, but data 'digits' has 10"),
        ("student.image_size=9", "student.image_size is 9, but data 'digits' has 8"),
    ],
)
def test_what_is_wrong_is_refused_by_name_and_leaves_no_folder(override: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        train(read_recipe("digits-2conv-snn", [f"out={tmp_path / 'run'}", override]), verbose=False)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", ["- a\n", "a: [", "!!python/object/apply:os.system [echo]\n", "\x00", "3"])
def test_a_file_that_is_no_recipe_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=r"recipe '.*recipe\.yaml'"):
        read_recipe(str(path))


def test_a_recipe_file_takes_its_name_from_the_file_and_a_run_reruns_from_its_config(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(BASE))
    recipe = read_recipe(str(path), [f"out={tmp_path / 'a'}"], smoke=True)
    assert recipe.name == "mine-smoke"
    first = train(recipe, verbose=False)
    again = train(read_recipe(str(tmp_path / "a" / "config.yaml"), [f"out={tmp_path / 'b'}"]), verbose=False)
    same = ("student_accuracy", "firing_rate", "timesteps", "seed", "epochs")
    assert {key: first.summary[key] for key in same} == {key: again.summary[key] for key in same}
    assert (tmp_path / "a" / "student.safetensors").read_bytes() == (
        tmp_path / "b" / "student.safetensors"
    ).read_bytes()


def test_a_runs_own_config_and_a_teacher_of_timms_are_shrunk_as_well() -> None:
    content = {**BASE, "student": {"model": "2conv", "num_classes": 100, "in_channels": 3, "image_size": 32}}
    taught = {"method": {"name": "sakd"}, "teacher": {"model": "timm/resnet18.a1_in1k", "path": "pretrained"}}
    small = smoke_size(parse(content | taught))
    assert small.student is not None and small.teacher is not None
    assert (small.student.num_classes, small.student.in_channels, small.student.image_size) == (None, None, None)
    assert (small.teacher.model, small.teacher.path) == ("2conv", None)
    with pytest.raises(UserError, match="no network to shrink"):
        smoke_size(parse({key: value for key, value in content.items() if key != "student"}))


def test_a_recipe_without_a_teacher_for_a_method_that_needs_one_is_refused(tmp_path: Path) -> None:
    recipe = parse({**BASE, "method": {"name": "kdsnn-response"}, "out": str(tmp_path / "run")})
    with pytest.raises(UserError, match="needs a teacher: add a section 'teacher'"):
        train(recipe, verbose=False)
    assert not (tmp_path / "run").exists()


def test_a_teacher_with_other_classes_is_refused(tmp_path: Path) -> None:
    import spikedistill as sd
    from spikedistill.runfolder import save_network

    weights = tmp_path / "teacher.safetensors"
    save_network(sd.create_model("2conv", num_classes=7, in_channels=1, image_size=8, width=4), weights)
    overrides = [f"out={tmp_path / 'run'}", f"teacher.path={weights}", "teacher.width=4"]
    with pytest.raises(UserError, match=r"'fc2.weight' is \[7, 36\], the network's is \[10, 36\]"):
        train(read_recipe("digits-2conv-kdsnn-response", overrides), verbose=False)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_holds_a_run_is_not_written_over(tmp_path: Path) -> None:
    overrides = [f"out={tmp_path / 'run'}"]
    first = train(read_recipe("digits-2conv-snn", overrides, smoke=True), verbose=False)
    with pytest.raises(UserError, match="already holds a run; go on with --resume"):
        train(read_recipe("digits-2conv-snn", overrides, smoke=True), verbose=False)
    again = train(read_recipe("digits-2conv-snn", overrides, smoke=True), resume=True, verbose=False)
    assert again.summary == first.summary


def test_a_comment_in_an_override_is_not_dropped_in_silence() -> None:
    with pytest.raises(UserError, match=r"what follows ' #' is a comment in YAML; .*'out=\"\.\.\.\"'"):
        read_recipe("digits-2conv-snn", ["out=runs/a #1"])
    assert read_recipe("digits-2conv-snn", ['out="runs/a #1"']).out == "runs/a #1"


def test_a_path_may_begin_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    recipe = read_recipe("digits-2conv-sakd", ["out=~/runs/a", "teacher.path=~/ann", "init.path=~/b", "init.kind=copy"])
    assert recipe.teacher is not None
    assert (recipe.out, recipe.teacher.path, recipe.init.path) == ("/home/me/runs/a", "/home/me/ann", "/home/me/b")
