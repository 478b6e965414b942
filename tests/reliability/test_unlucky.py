"""Bad luck around runs: folders that move, clocks that run backwards, two of a kind at once, kills between runs."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import forked
import pytest
import torch
from comparing import Undisturbed, check_same

from spikedistill.cli import main
from spikedistill.data import DataSettings, open_data
from spikedistill.engine.checkpoint import OLD, latest_checkpoint, sweep_below
from spikedistill.errors import Stopped, TrainingFailed, UserError
from spikedistill.run import train


def begun(folder: Path, *overrides: str) -> Path:
    """A run that was stopped after its first step."""
    with pytest.raises(Stopped):
        train(forked.recipe(folder, *overrides), verbose=False, deadline=0.0)
    return folder


def test_a_run_folder_may_be_moved_and_called_anything(
    undisturbed: Undisturbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(tmp_path / "first")
    moved = tmp_path / "zweiter Ort" / "走行 $(touch x) 'a\"b"
    moved.parent.mkdir()
    (tmp_path / "first").rename(moved)
    command = ["train", str(moved / "config.yaml"), "--resume"]
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(sys, "argv", ["spikedistill", *command])
    with pytest.raises(SystemExit) as left:
        main()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    assert left.value.code == 0
    assert not (tmp_path / "first").exists()
    check_same(moved, undisturbed.folder)


def test_a_clock_that_runs_backwards_costs_nothing(
    undisturbed: Undisturbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()

    def backwards() -> float:
        nonlocal now
        now -= 3600.0
        return now

    monkeypatch.setattr(time, "time", backwards)
    monkeypatch.setattr(time, "time_ns", lambda: int(backwards() * 1e9))
    train(forked.recipe(begun(tmp_path / "run")), resume=True, verbose=False)
    check_same(tmp_path / "run", undisturbed.folder)


@pytest.mark.parametrize("change", ["epochs: 3\n", "seed: 0\n", "method: 3\n", "new: {a: 1}\n", "- no settings\n"])
def test_a_config_changed_by_hand_is_refused_and_nothing_is_lost(tmp_path: Path, change: str) -> None:
    folder = begun(tmp_path / "run")
    config = (folder / "config.yaml").read_text()
    changed = re.sub(rf"^{change[:4]}.*\n", change.replace("3", "7").replace("0", "7"), config, flags=re.M)
    (folder / "config.yaml").write_text(changed if changed != config else change + config)
    checkpoints = {path: path.read_bytes() for path in folder.rglob("*.pt")}
    assert checkpoints
    with pytest.raises(UserError, match=r"with epochs=7, not 3|with seed=7, not 0|'new'|valid YAML"):
        train(forked.recipe(folder), resume=True, verbose=False)
    assert {path: path.read_bytes() for path in folder.rglob("*.pt")} == checkpoints


@pytest.mark.parametrize("name", ["checkpoints", "teacher"])
def test_nothing_is_written_through_a_link_out_of_a_run_folder(tmp_path: Path, name: str) -> None:
    folder, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "step-0000000001.pt").write_text("mine")
    folder.mkdir()
    (folder / name).symlink_to(elsewhere)
    for resume in (True, False):
        with pytest.raises(UserError, match=f"{name}' is a link out of the run folder"):
            train(forked.recipe(folder), resume=resume, verbose=False)
    assert [path.name for path in elsewhere.iterdir()] == ["step-0000000001.pt"]
    assert [path.name for path in folder.iterdir() if path.name != ".lock"] == [name]


@pytest.mark.parametrize("name", ["metrics.csv", "summary.json", "student.safetensors", "config.yaml", "report.html"])
def test_a_link_under_a_files_name_is_replaced_not_followed(tmp_path: Path, name: str) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / name).symlink_to(tmp_path / "nowhere" if name in ("summary.json", "config.yaml") else precious)
    train(forked.recipe(folder, "epochs=1", name="digits-2conv-snn"), verbose=False)
    assert precious.read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()
    assert not (folder / name).is_symlink()


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting a file system takes rights that this process does not have")
    try:
        folder = begun(disk / "run")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(TrainingFailed, match=rf"'{folder}.* cannot be written: Read-only file system"):
            train(forked.recipe(folder), resume=True, verbose=False)
        with pytest.raises(UserError, match=r"other' cannot be made: Read-only file system; choose another with out="):
            train(forked.recipe(disk / "other"), verbose=False)
        assert latest_checkpoint(folder / "teacher" / "checkpoints") is not None
    finally:
        subprocess.run(["umount", str(disk)], check=True)


SMALL = "{student.width: 4, data.subset: 64, data.test_subset: 32, data.validation: 0.0, batch_size: 16, epochs: 1}"
LIST = f"title: It\nset: {SMALL}\nruns: [{{recipe: digits-2conv-snn}}, {{recipe: digits-2conv-ann}}]\n"
SWEEP = (
    f"{{title: It, source: a paper, study: grid, smoke: [a], seeds: [0], set: {SMALL}, runs: ["
    "{recipe: digits-2conv-snn, label: a, row: x, column: a}, {recipe: digits-2conv-ann, label: b, row: x, column: b}]}"
)


def contents(folder: Path) -> dict[str, str]:
    """Texts below a folder without what says how long something took or is left behind by a kill."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix in (".md", ".yaml", ".json", ".csv", ".svg") and "tfevents" not in name:
            text = re.sub(r'"\w*wall_seconds": [\d.]+|"resumed": \w+', "", path.read_text())
            if path.suffix == ".csv":
                text = "\n".join(line.split(",")[0] for line in text.splitlines())
            found[name] = text.replace(str(folder), "")
    return found


def ended(process: object) -> int | None:
    process.join()  # type: ignore[attr-defined]
    return process.exitcode  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def undisturbed_campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("campaign"), LIST, forked.campaign, Path("results"))


@pytest.fixture(scope="module")
def undisturbed_experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("experiment"), SWEEP, forked.experiment)


def made(folder: Path, text: str, command: Callable[..., None], *more: Path, number: int = 0) -> Path:
    (folder / "it.yaml").write_text(text)
    process = forked.start(command, folder / "it.yaml", *(folder / name for name in more), number)
    assert ended(process) == (-signal.SIGKILL if number else 0)
    return folder


# While a run is made, while it is recorded, and while the pages are written.
@pytest.mark.parametrize("number", [12, 27, 36])
def test_a_campaign_killed_between_its_runs_ends_as_an_undisturbed_one(
    undisturbed_campaign: Path, tmp_path: Path, number: int
) -> None:
    made(tmp_path, LIST, forked.campaign, Path("results"), number=number)
    made(tmp_path, LIST, forked.campaign, Path("results"))
    assert contents(tmp_path) == contents(undisturbed_campaign)


@pytest.mark.slow
def test_a_campaign_killed_at_every_change_of_a_file(undisturbed_campaign: Path, tmp_path: Path) -> None:
    number = killed = 1
    while killed:
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "it.yaml").write_text(LIST)
        killed = ended(forked.start(forked.campaign, folder / "it.yaml", folder / "results", number))
        made(folder, LIST, forked.campaign, Path("results"))
        assert contents(folder) == contents(undisturbed_campaign), number
        shutil.rmtree(folder)
        number += 1
    assert number > 60


@pytest.mark.slow
def test_an_experiment_killed_at_every_change_of_a_file(undisturbed_experiment: Path, tmp_path: Path) -> None:
    number = killed = 1
    while killed:
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "it.yaml").write_text(SWEEP)
        killed = ended(forked.start(forked.experiment, folder / "it.yaml", number))
        made(folder, SWEEP, forked.experiment)
        assert contents(folder) == contents(undisturbed_experiment), number
        shutil.rmtree(folder)
        number += 1
    assert number > 60


def test_two_campaigns_on_one_folder_make_each_run_once(undisturbed_campaign: Path, tmp_path: Path) -> None:
    (tmp_path / "it.yaml").write_text(LIST)
    both = [forked.start(forked.campaign, tmp_path / "it.yaml", tmp_path / "results") for _ in range(2)]
    assert [ended(process) for process in both] == [0, 0]
    made(tmp_path, LIST, forked.campaign, Path("results"))
    assert contents(tmp_path) == contents(undisturbed_campaign)
    for run in (tmp_path / "runs").iterdir():
        assert json.loads((run / "summary.json").read_text())["resumed"] is False
        assert len(list(run.glob("events.out.tfevents*"))) == 1


def test_what_killed_writes_leave_among_results_is_swept_when_it_is_old(tmp_path: Path) -> None:
    for name, age in ((".README.md.1.tmp", 2 * OLD), (".it.md.2.tmp", 0.0), ("mine.tmp", 2 * OLD)):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    sweep_below(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".it.md.2.tmp", "mine.tmp"}


@pytest.mark.parametrize("bad", ["labels", "kinds", "shapes", "missing", "classes", "more classes", "parts"])
def test_a_decoded_data_set_that_is_none_is_decoded_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    from readers import image_folder
    from safetensors.torch import load_file, save_file

    monkeypatch.setenv("SPIKEDISTILL_CACHE", str(tmp_path / "cache"))
    image_folder(".png")(tmp_path, tmp_path)
    settings = DataSettings(path=str(tmp_path / "pets"), validation=0.0)
    first = open_data(settings, 0)
    (file,) = (tmp_path / "cache").iterdir()
    tensors, names = load_file(file), ["cat", "dog"]
    whole = tensors["train.images"]
    changed: dict[str, dict[str, torch.Tensor]] = {
        "labels": {"train.labels": torch.tensor([0, 1, 2, 1])},
        "kinds": {"train.images": whole.float()},
        "shapes": {"train.images": whole[:3].clone()},
        "parts": {"test.images": whole[:, :, :4].clone()},
    }
    tensors |= changed.get(bad, {})
    if bad == "missing":
        del tensors["test.labels"]
    names = {"classes": "[1, 2]", "more classes": '["cat"]'}.get(bad, json.dumps(names))
    save_file(tensors, file, metadata={"classes": names})
    again = open_data(settings, 0)
    assert torch.equal(again.train.images, first.train.images)  # type: ignore[union-attr]
    assert torch.equal(again.test.labels, first.test.labels)  # type: ignore[union-attr]
    assert again.info == first.info


def test_links_that_go_round_in_an_image_folder_are_no_endless_way(tmp_path: Path) -> None:
    from readers import image_folder

    image_folder(".png")(tmp_path, tmp_path)
    for place in ("train/cat/again", "train/dog/deeper"):
        (tmp_path / "pets" / place).symlink_to(tmp_path / "pets")
    (tmp_path / "pets" / "train" / "cat" / "itself").symlink_to("itself")
    data = open_data(DataSettings(path=str(tmp_path / "pets"), validation=0.0), 0)
    assert (len(data.train), data.info.classes) == (4, ("cat", "dog"))


@pytest.mark.slow
def test_the_first_process_dies_too_and_the_run_goes_on_with_more(tmp_path: Path) -> None:
    small = ["student.width=4", "batch_size=8", "data.subset=64", "data.test_subset=32", "device=cpu", "epochs=100000"]
    folder = tmp_path / "run"
    from spikedistill.recipebook import read_recipe

    with pytest.raises(Stopped):  # one process begins it
        train(read_recipe("digits-2conv-snn", [*small, f"out={folder}"]), verbose=False, deadline=0.0)
    (begun_at,) = (folder / "checkpoints").iterdir()
    command = [sys.executable, "-m", "spikedistill", "train", "digits-2conv-snn", *small, f"out={folder}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SPIKEDISTILL_KERNELS": "plain"}
    with (tmp_path / "log").open("w") as log:
        first = subprocess.Popen([*command, "devices=2", "--resume"], env=environment, stdout=log, stderr=log)
    try:
        while begun_at.exists():  # two of them go on
            assert first.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.05)
        (second,) = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
    finally:
        first.kill()
    first.wait()
    until = time.monotonic() + 60
    while Path(f"/proc/{second}").exists() and time.monotonic() < until:
        time.sleep(0.1)
    assert not Path(f"/proc/{second}").exists()
    said = (tmp_path / "log").read_text()
    assert "another process of the run" in said
    assert "Traceback" not in said
    assert latest_checkpoint(folder / "checkpoints") is not None


@pytest.mark.slow
def test_a_process_of_several_runs_that_is_killed_is_told_in_a_sentence(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); import forked\n"
        "from spikedistill.parallel import train_all\n"
        "if __name__ == '__main__':\n"
        "    out, long = Path(sys.argv[2]), {'name': 'digits-2conv-snn'}\n"
        "    runs = [forked.recipe(out / str(i), 'epochs=100000', **long) for i in range(2)]\n"
        "    try:\n"
        "        list(train_all(runs, workers=2))\n"
        "    except Exception as error:\n"
        "        print(type(error).__name__, error)\n"
    )
    (tmp_path / "main.py").write_text(script)
    command = [sys.executable, str(tmp_path / "main.py"), str(Path(__file__).parent), str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    while len(list(tmp_path.glob("*/checkpoints"))) < 2:
        assert process.poll() is None
        time.sleep(0.1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    trained = [number for number in children if b"spawn_main" in Path(f"/proc/{number}/cmdline").read_bytes()]
    os.kill(int(trained[0]), signal.SIGKILL)
    said, _ = process.communicate(timeout=120)
    assert said.startswith("TrainingFailed a process that trained one of the runs was killed")
