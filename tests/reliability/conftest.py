"""What the tests of this folder share: one run that nobody disturbed."""

import multiprocessing
import time

import forked
import pytest
from comparing import Undisturbed


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
