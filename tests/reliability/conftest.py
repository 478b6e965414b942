"""What the tests of this folder share: one run that nobody disturbed."""

import multiprocessing
import shutil
import time
from pathlib import Path

import forked
import pytest
from comparing import Undisturbed

from spikedistill.run import train


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """What the others are compared with."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    forked.start(forked.nothing).join()  # starts the server, so that the time below is the run's own
    operations = multiprocessing.get_context("forkserver").Value("i", 0)
    started = time.monotonic()
    process = forked.start(forked.run_counting, forked.recipe(folder), operations)
    process.join()
    assert process.exitcode == 0
    return Undisturbed(folder, time.monotonic() - started, operations.value)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the smallest finished run."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    train(forked.recipe(folder, "epochs=1", name="digits-2conv-snn"), verbose=False)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, to be tampered with."""
    return Path(shutil.copytree(finished, tmp_path / "run"))
