"""SIGTERM, SIGINT and a deadline: the step ends, a checkpoint is written, a sentence says where to go on."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import forked
import pytest
from comparing import Undisturbed, check_same

from spikedistill.engine.checkpoint import latest_checkpoint
from spikedistill.engine.stopping import Stop
from spikedistill.errors import Stopped
from spikedistill.run import train


def stop_at_step(folder: Path, number: signal.Signals, step: int, *overrides: str) -> tuple[str, str]:
    """Sends a run a signal in its ``step``-th step; returns the exception's kind and message."""
    said = forked.queue()
    process = forked.start(forked.run_signalled, forked.recipe(folder, *overrides), number, step, said)
    process.join()
    assert process.exitcode == 0
    return said.get()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_a_checkpoint_of_the_step_and_a_sentence(
    undisturbed: Undisturbed, tmp_path: Path, number: signal.Signals
) -> None:
    folder = tmp_path / "run"
    # The third step of the student's second epoch; no checkpoint is due by the clock.
    kind, message = stop_at_step(folder, number, 6 + 6 + 3, "checkpoint_minutes=1000")
    assert kind == "Stopped"
    at = "epoch 2, batch 3 of 6"
    assert message == f"'{folder}' stopped ({number.name}) at {at}, with a checkpoint; go on with --resume"
    state = latest_checkpoint(folder / "checkpoints")
    assert state is not None
    assert (state["position"]["epoch"], state["position"]["batch"]) == (1, 3)
    train(forked.recipe(folder), resume=True, verbose=False)
    check_same(folder, undisturbed.folder)


def test_a_deadline_stops_like_a_signal(undisturbed: Undisturbed, tmp_path: Path) -> None:
    asked = forked.recipe(tmp_path / "run")
    with pytest.raises(Stopped, match=r"stopped \(time is up\) at epoch 1, batch 1 of 3, with a checkpoint"):
        train(asked, verbose=False, deadline=time.monotonic())
    train(asked, resume=True, verbose=False)
    check_same(tmp_path / "run", undisturbed.folder)


def test_the_command_line_says_it_and_leaves_with_one(tmp_path: Path) -> None:
    small = ["data.subset=64", "student.width=4", "batch_size=16", "epochs=100000"]
    arguments = ["train", "digits-2conv-snn", *small, f"out={tmp_path / 'run'}"]
    process = subprocess.Popen([sys.executable, "-m", "spikedistill", *arguments], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    first = process.stderr.readline()
    assert "epoch 1/100000" in first
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "stopped (SIGTERM) at epoch" in rest.splitlines()[-1]
    assert "Traceback" not in rest, rest
    assert list((tmp_path / "run" / "checkpoints").iterdir())


def test_handlers_are_put_back_and_a_second_signal_is_not_swallowed() -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: came.append(number))
    try:
        stop = Stop()
        with stop.listening():
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.asked()
            assert came == []
            os.kill(os.getpid(), signal.SIGTERM)
            assert came == [signal.SIGTERM]
        os.kill(os.getpid(), signal.SIGTERM)
        assert came == [signal.SIGTERM] * 2
    finally:
        signal.signal(signal.SIGTERM, before)


def test_in_another_thread_only_the_deadline_counts() -> None:
    asked: list[bool] = []

    def listen() -> None:
        stop = Stop(deadline=time.monotonic())
        with stop.listening():
            asked.append(stop.asked())

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert asked == [True]
