"""Going on with a run: as it began, on another machine or not, and with nothing lost by a refusal."""

import errno
import signal
from pathlib import Path

import forked
import pytest
from comparing import Undisturbed, check_same

from spikedistill.engine.checkpoint import latest_checkpoint, save_checkpoint
from spikedistill.engine.loop import Trainer
from spikedistill.errors import Stopped, UserError
from spikedistill.run import train


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A run that was stopped in its first step."""
    with pytest.raises(Stopped):
        train(forked.recipe(tmp_path / "run", name="digits-2conv-snn"), verbose=False, deadline=0.0)
    return tmp_path / "run"


CHANGED = [
    ("optimizer.lr=0.5", "optimizer.lr=0.01, not 0.5"),
    ("epochs=4", "epochs=3, not 4"),
    ("seed=1", "seed=0, not 1"),
    ("student.width=5", "student.width=4, not 5"),
    ("clip=1.0", "clip=None, not 1.0"),
    ("method.name=tet", "method.name=snn, not tet"),
    ("data.augment=[]", "data.augment=['shift:1'], not []"),
    ("timesteps=4", "timesteps=2, not 4"),
]


@pytest.mark.parametrize(("change", "said"), CHANGED)
def test_another_run_is_refused_by_the_setting_that_differs(begun: Path, change: str, said: str) -> None:
    config = (begun / "config.yaml").read_bytes()
    with pytest.raises(UserError) as refused:
        train(forked.recipe(begun, change, name="digits-2conv-snn"), resume=True, verbose=False)
    assert f"'{begun}' was begun with {said}; a run goes on as it began" in str(refused.value)
    assert (begun / "config.yaml").read_bytes() == config
    assert list((begun / "checkpoints").iterdir())


def test_a_setting_that_is_left_out_now_is_another_run_too(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        begun = forked.recipe(out, "student.options.output=spikes", name="digits-2conv-snn")
        train(begun, verbose=False, deadline=0.0)
    with pytest.raises(UserError, match=r"was begun with student\.options\.output=spikes, not None"):
        train(forked.recipe(out, name="digits-2conv-snn"), resume=True, verbose=False)


def test_what_decides_only_where_and_how_may_change(begun: Path) -> None:
    changes = ["device=cpu", "checkpoint_minutes=5", "on_bad_numbers=skip", "data.workers=0", "description=again"]
    run = train(forked.recipe(begun, *changes, name="digits-2conv-snn"), resume=True, verbose=False)
    assert run.summary["epochs"] == 3


def test_a_finished_run_is_not_passed_off_as_another(finished: Path) -> None:
    asked = forked.recipe(finished, "epochs=1", name="digits-2conv-snn")
    assert train(asked, resume=True, verbose=False).folder == finished
    with pytest.raises(UserError, match="was begun with epochs=1, not 3"):
        train(forked.recipe(finished, name="digits-2conv-snn"), resume=True, verbose=False)


@pytest.mark.parametrize("damage", ["cut short", "a bit", "nothing"])
def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(
    undisturbed: Undisturbed, tmp_path: Path, damage: str
) -> None:
    folder, said = tmp_path / "run", forked.queue()
    process = forked.start(forked.run_signalled, forked.recipe(folder), signal.SIGTERM, 6 + 6 + 3, said)
    process.join()
    before, newest = sorted((folder / "checkpoints").iterdir())
    content = newest.read_bytes()
    flipped = content[:5000] + bytes([content[5000] ^ 1]) + content[5001:]
    newest.write_bytes({"cut short": content[:-1], "a bit": flipped, "nothing": b""}[damage])
    with pytest.warns(UserWarning, match=rf"{newest.name} is damaged \(checksum\); {before.name} before it is used"):
        train(forked.recipe(folder), resume=True, verbose=False)
    check_same(folder, undisturbed.folder)
    assert len(list((folder / "checkpoints").iterdir())) == 2


def test_strangers_files_among_the_checkpoints_are_left_alone_and_push_none_out(tmp_path: Path) -> None:
    others = ["step-best.pt", "step-9999.pt", "step-zzzzzzzzzz.pt", "step-00000000012.pt", "notes.txt", "step-1"]
    for name in others:
        (tmp_path / name).write_text("mine")
    for step in range(5):
        save_checkpoint(tmp_path, step, {"step": step})
        newest = latest_checkpoint(tmp_path)
        assert newest is not None and newest["step"] == step
    assert {path.name for path in tmp_path.iterdir()} == {*others, "step-0000000003.pt", "step-0000000004.pt"}
    assert all((tmp_path / name).read_text() == "mine" for name in others)


def test_a_run_begun_anew_over_damaged_checkpoints_keeps_its_own(tmp_path: Path) -> None:
    for step in (100, 200):
        save_checkpoint(tmp_path, step, {"step": step}).write_bytes(b"damaged")
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, {"step": step})
        newest = latest_checkpoint(tmp_path)
        assert newest is not None and newest["step"] == step
    assert len(list(tmp_path.iterdir())) == 2


def test_checkpoints_that_cannot_be_read_for_now_are_not_begun_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, step, {"step": step})

    def failing(path: Path) -> bytes:
        if path.name in gone:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return read(path)

    read, gone = Path.read_bytes, {"step-0000000002.pt"}
    monkeypatch.setattr(Path, "read_bytes", failing)
    with pytest.warns(UserWarning, match=r"step-0000000002\.pt cannot be read \(Input/output error\); step-0000000001"):
        found = latest_checkpoint(tmp_path)
    assert found == {"step": 1}
    gone.add("step-0000000001.pt")
    with pytest.warns(UserWarning), pytest.raises(UserError, match=r"cannot be read \(Input/output error\); mend that"):
        latest_checkpoint(tmp_path)


def test_a_folder_of_checkpoints_without_a_config_is_not_begun_anew(begun: Path) -> None:
    (begun / "config.yaml").unlink()
    with pytest.raises(UserError, match="already holds a run"):
        train(forked.recipe(begun, name="digits-2conv-snn"), verbose=False)


def test_a_refusal_in_the_middle_deletes_nothing_that_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, done = Trainer._step, 0

    def failing(self: Trainer, *arguments: object) -> bool:
        nonlocal done
        done += 1
        if done == 4:
            raise UserError("image 4711 cannot be read")
        return step(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "_step", failing)
    with pytest.raises(UserError, match="4711"):
        train(forked.recipe(tmp_path / "run", name="digits-2conv-snn"), verbose=False)
    assert sorted((tmp_path / "run" / "checkpoints").iterdir())
