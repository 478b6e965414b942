"""Two processes on one run folder: the second is refused; a lock ends with its process, however that ends."""

import os
import signal
from pathlib import Path

import forked
import pytest

from spikedistill.engine.lock import LOCK, hold
from spikedistill.errors import UserError
from spikedistill.run import execute, train


@pytest.fixture
def holder(tmp_path: Path):
    """A process that holds ``tmp_path / "run"``."""
    folder = tmp_path / "run"
    folder.mkdir()
    ready = forked.queue()
    process = forked.start(forked.hold_forever, folder, ready)
    ready.get()
    yield process
    process.kill()
    process.join()


def test_the_second_process_is_refused_and_the_first_one_loses_nothing(holder, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for resume in (False, True):
        with pytest.raises(UserError, match=rf"'{folder}' is in use by process {holder.pid} on \S+; wait until"):
            train(forked.recipe(folder), resume=resume, verbose=False)
    assert [path.name for path in folder.iterdir()] == [LOCK]


def test_a_lock_dies_with_its_process(holder, tmp_path: Path) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    assert (tmp_path / "run" / LOCK).exists()
    with hold(tmp_path / "run"):
        pass
    assert not (tmp_path / "run" / LOCK).exists()


def test_children_of_the_holder_do_not_keep_its_lock(tmp_path: Path) -> None:
    # As DataLoader's workers are: forked while the lock is held, and alive for seconds after a SIGKILL.
    ready = forked.queue()
    process = forked.start(forked.hold_with_a_child, tmp_path, ready)
    child = ready.get()
    try:
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        os.kill(child, 0)  # it lives
        with hold(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def test_one_process_cannot_run_a_folder_twice_at_once(tmp_path: Path) -> None:
    with hold(tmp_path):
        with pytest.raises(UserError, match="in use by this very process"), hold(tmp_path / ".." / tmp_path.name):
            pass
        assert (tmp_path / LOCK).exists()
    with hold(tmp_path):
        pass


def test_who_comes_late_is_refused_though_the_folder_was_free_at_first(tmp_path: Path) -> None:
    from spikedistill.assembly import assemble

    late = assemble(forked.recipe(tmp_path / "run", "epochs=1", "teacher.epochs=1"))
    first = train(forked.recipe(tmp_path / "run", "epochs=1", "teacher.epochs=1"), verbose=False)
    with pytest.raises(UserError, match="already holds a run"):
        execute(late, resume=False, verbose=False)
    assert (first.folder / "summary.json").exists()


def test_a_lock_is_never_written_through_a_link(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / LOCK).symlink_to(precious)
    with pytest.raises(Exception, match="cannot be written"), hold(folder):
        pass
    assert precious.read_text() == "mine"


def test_where_the_file_system_has_no_locks_a_warning_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import fcntl

    def none(*_arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", none)
    with pytest.warns(UserWarning, match="without locks .* nothing keeps a second process off it"), hold(tmp_path):
        pass
