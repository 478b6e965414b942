"""SIGKILL at any moment, then resume: the end is that of an undisturbed run, bit for bit."""

import multiprocessing
import random
import shutil
import signal
from pathlib import Path

import forked
import pytest
from comparing import Undisturbed, check_same

from spikedistill.engine.checkpoint import load_checkpoint

KILLS, A_RUN = 60, 5
"""``make soak``: so many kills at random moments, up to 5 of each run, and one at every change of a file."""


def steps_kept(folder: Path) -> int:
    """Steps, the teacher's included, that the newest checkpoint holds."""
    for part, before, batches in ((folder, 2 * 3, 6), (folder / "teacher", 0, 3)):
        for path in sorted((part / "checkpoints").glob("step-*.pt"), reverse=True):
            state = load_checkpoint(path)
            if state is not None:
                return before + state["position"]["epoch"] * batches + state["position"]["batch"]
    return 0


def killed_at_random(folder: Path, draws: random.Random, kills: int, seconds: float) -> int:
    """Kills a run within ``seconds``, resumes it, kills it again and so on, and lets it end; returns the kills."""
    killed = 0
    for attempt in range(kills):
        steps = multiprocessing.get_context("forkserver").Value("i", steps_kept(folder))
        process = forked.start(forked.run, forked.recipe(folder), attempt > 0, steps)
        process.join(draws.uniform(0.0, seconds))
        process.kill()
        process.join()
        if process.exitcode != -signal.SIGKILL:
            break
        killed += 1
        # Lost is at most the step that was under way, or whose checkpoint was.
        assert steps_kept(folder) >= steps.value - 1
    resume(folder)
    return killed


def resume(folder: Path, *overrides: str) -> None:
    process = forked.start(forked.run, forked.recipe(folder, *overrides), True)
    process.join()
    assert process.exitcode == 0


def killed_at(folder: Path, number: int, *overrides: str) -> bool:
    """Kills a run at its ``number``-th change of a file and resumes it; False where it makes fewer."""
    process = forked.start(forked.run_until_operation, forked.recipe(folder, *overrides), number)
    process.join()
    if process.exitcode == 0:
        return False
    assert process.exitcode == -signal.SIGKILL
    resume(folder, *overrides)
    return True


def test_a_run_killed_at_random_moments_ends_as_an_undisturbed_one(undisturbed: Undisturbed, tmp_path: Path) -> None:
    assert killed_at_random(tmp_path / "run", random.Random(1), 2, 0.7 * undisturbed.seconds) > 0
    check_same(tmp_path / "run", undisturbed.folder)


# Shares of a run's changes: while the teacher is trained, while the student is, and at its results and summary.
@pytest.mark.parametrize("share", [0.12, 0.6, 0.962, 0.976])
def test_a_run_killed_in_a_write_ends_as_an_undisturbed_one(
    undisturbed: Undisturbed, tmp_path: Path, share: float
) -> None:
    assert killed_at(tmp_path / "run", round(share * undisturbed.operations))
    check_same(tmp_path / "run", undisturbed.folder)


@pytest.mark.slow
def test_many_runs_killed_at_random_moments(undisturbed: Undisturbed, tmp_path: Path) -> None:
    killed = runs = 0
    while killed < KILLS:
        folder = tmp_path / str(runs)
        killed += killed_at_random(folder, random.Random(runs), A_RUN, 0.5 * undisturbed.seconds)
        check_same(folder, undisturbed.folder)
        shutil.rmtree(folder)
        runs += 1
    print(f"{killed} kills of {runs} runs")


@pytest.mark.slow
def test_a_run_killed_at_every_single_write(undisturbed: Undisturbed, tmp_path: Path) -> None:
    # Checkpoints at the ends of epochs only: those of single steps are no other code.
    number = 1
    while killed_at(tmp_path / str(number), number, "checkpoint_minutes=10"):
        check_same(tmp_path / str(number), undisturbed.folder)
        number += 1
    print(f"{number - 1} kills, one at each change of a file")
    assert number > 80
