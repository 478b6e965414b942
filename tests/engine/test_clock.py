"""A run's seconds: all of them, over all its pieces, and not its teacher's."""

import time
from pathlib import Path

import pytest
from test_training import FixedBatches, trainer

from spikedistill.engine import loop
from spikedistill.engine.checkpoint import latest_checkpoint
from spikedistill.engine.clock import Clock
from spikedistill.engine.position import read_position
from spikedistill.errors import Stopped
from spikedistill.spiking import compiling


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which stands still but for what a test adds."""
    at = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: at[0])
    return at


def test_it_goes_on_from_the_pieces_before_and_leaves_out_what_is_apart(
    now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling._State, "seconds", 5.0)
    clock = Clock(already=2.0)
    now[0] += 3
    with clock.apart():
        now[0] += 1000
        compiling._State.seconds += 50
    compiling._State.seconds += 0.5
    assert (clock.seconds, clock.compiling) == (5.0, 0.5)
    clock.after(20.0, 4.0)
    assert (clock.seconds, clock.compiling) == (25.0, 4.5)


class Slow(FixedBatches):
    """Each batch takes ten seconds."""

    def __init__(self, now: list[float], *settings: int) -> None:
        super().__init__(*settings)
        self.now = now

    def epoch(self, number: int, start: int = 0):
        for batch in super().epoch(number, start):
            self.now[0] += 10
            yield batch


def test_a_resumed_run_counts_every_piece_and_everything_in_it(tmp_path: Path, now: list[float]) -> None:
    first = trainer(tmp_path, Slow(now, 4, 6), checkpoint_minutes=1000.0)
    first.validate = lambda _network: now.__setitem__(0, now[0] + 7) or {}
    first.stop.asked = lambda: first.position.epoch == 1 and first.position.batch == 2
    with pytest.raises(Stopped):
        first.fit()
    now[0] += 5000  # nobody computes
    second = trainer(tmp_path, Slow(now, 4, 6))
    assert second.resume()
    assert second.clock.seconds == 4 * 10 + 7 + 2 * 10
    rows = second.fit()
    assert second.clock.seconds == 12 * 10 + 7 and [row["seconds"] for row in rows] == [40, 40, 40]


def test_a_checkpoint_of_before_counts_its_training() -> None:
    content = {"epoch": 1, "batch": 2, "seconds": 3.0, "rows": [{"epoch": 1, "seconds": 4.0}], "sums": {}}
    assert read_position(content, 3, 4).wall_seconds == 7.0
    assert read_position({**content, "wall_seconds": 9.0}, 3, 4).wall_seconds == 9.0
    with pytest.raises(TypeError):
        read_position({**content, "wall_seconds": "9"}, 3, 4)


@pytest.mark.parametrize(
    ("batches", "minutes", "expected"),
    [(4, 10.0, [1, 2, 3]), (2, 10.0, [1, 3]), (2, 1e-9, [0, 0, 1, 1, 1, 2, 2, 3])],
)
def test_an_epoch_ends_with_a_checkpoint_where_the_last_is_old_enough(
    tmp_path: Path, now: list[float], batches: int, minutes: float, expected: list[int]
) -> None:
    """Epochs of 40 s each leave one; of 20 s, the first and the last do, so that a run soon has one."""
    assert 20 < loop.EPOCH_SECONDS < 40
    run = trainer(tmp_path, Slow(now, batches, 6), checkpoint_minutes=minutes)
    left: list[int] = []
    run.save = lambda save=run.save: left.append(run.position.epoch) or save()
    run.fit()
    assert left == expected
    state = latest_checkpoint(tmp_path / "checkpoints")
    assert state is not None and state["position"]["epoch"] == 3


def test_who_is_asked_to_stop_at_an_epochs_end_leaves_a_checkpoint(tmp_path: Path) -> None:
    run = trainer(tmp_path, FixedBatches(4, 6))
    run.stop.asked = lambda: run.position.epoch == 1
    with pytest.raises(Stopped):
        run.fit()
    again = trainer(tmp_path, FixedBatches(4, 6))
    assert again.resume() and (again.position.epoch, again.position.batch) == (1, 0)
