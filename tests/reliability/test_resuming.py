"""Going on with a run: as it began, on another machine or not, and with nothing lost by a refusal."""

from pathlib import Path

import forked
import pytest

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
    ("timesteps=2", "timesteps=4, not 2"),
]


@pytest.mark.parametrize(("change", "said"), CHANGED)
def test_another_run_is_refused_by_the_setting_that_differs(begun: Path, change: str, said: str) -> None:
    config = (begun / "config.yaml").read_bytes()
    with pytest.raises(UserError) as refused:
        train(forked.recipe(begun, change, name="digits-2conv-snn"), resume=True, verbose=False)
    assert f"'{begun}' was begun with {said}; a run goes on as it began" in str(refused.value)
    assert (begun / "config.yaml").read_bytes() == config
    assert list((begun / "checkpoints").iterdir())


def test_what_decides_only_where_and_how_may_change(begun: Path) -> None:
    changes = ["device=cpu", "checkpoint_minutes=5", "on_bad_numbers=skip", "data.workers=0", "description=again"]
    run = train(forked.recipe(begun, *changes, name="digits-2conv-snn"), resume=True, verbose=False)
    assert run.summary["epochs"] == 3


def test_a_finished_run_is_not_passed_off_as_another(finished: Path) -> None:
    asked = forked.recipe(finished, "epochs=1", name="digits-2conv-snn")
    assert train(asked, resume=True, verbose=False).folder == finished
    with pytest.raises(UserError, match="was begun with epochs=1, not 3"):
        train(forked.recipe(finished, name="digits-2conv-snn"), resume=True, verbose=False)


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
