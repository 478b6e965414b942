"""Nothing grows over a long run, and nothing is left behind by one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import forked
import pytest

STEPS = 2000


def test_memory_is_flat_over_two_thousand_steps(tmp_path: Path) -> None:
    said = forked.queue()
    process = forked.start(forked.run_watching_memory, tmp_path / "run", STEPS, said)
    process.join()
    assert process.exitcode == 0
    early, late = said.get()
    # A tensor of one number kept in each step would be a megabyte; what is left are the allocator's moods.
    assert late - early < 2 * 2**20, f"{(late - early) / 2**20:.1f} MiB more after {STEPS} steps than after 500"


@pytest.mark.parametrize("ends", ["well", "in a failure"])
def test_no_thread_file_or_process_is_left_behind(tmp_path: Path, ends: str) -> None:
    said = forked.queue()
    process = forked.start(forked.run_counting_what_is_left, tmp_path, ends == "well", said)
    process.join()
    assert process.exitcode == 0
    before, after = said.get()
    assert after == before


def test_reading_processes_end_with_a_run_that_is_killed(tmp_path: Path) -> None:
    said = forked.queue()
    process = forked.start(forked.run_with_workers_forever, tmp_path / "run", said)
    workers = said.get()
    assert len(workers) == 2
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    gone = time.monotonic() + 30
    while any(map(_lives, workers)) and time.monotonic() < gone:
        time.sleep(0.1)
    assert not any(map(_lives, workers))


def _lives(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_runs_side_by_side_end_with_their_parent(tmp_path: Path, number: signal.Signals) -> None:
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); import forked\n"
        "from spikedistill.parallel import train_many\n"
        "if __name__ == '__main__':\n"
        "    out = Path(sys.argv[2])\n"
        "    list(train_many([forked.recipe(out / str(i), 'epochs=100000') for i in range(2)], workers=2))\n"
    )
    (tmp_path / "main.py").write_text(script)
    command = [sys.executable, str(tmp_path / "main.py"), str(Path(__file__).parent), str(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while len(list(tmp_path.glob("*/checkpoints"))) < 2:
        assert process.poll() is None
        time.sleep(0.1)
    children = [int(n) for n in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    process.send_signal(number)
    process.wait(60)
    gone = time.monotonic() + 60
    while any(map(_lives, children)) and time.monotonic() < gone:
        time.sleep(0.1)
    assert not any(map(_lives, children))
    assert not list(tmp_path.rglob("*.tmp"))
