"""A full disk: the run stops with a sentence, what stood there stands, and goes on when there is room."""

import errno
import os
import subprocess
from contextlib import suppress
from pathlib import Path

import forked
import pytest
from comparing import Undisturbed, check_same

from spikedistill.engine.checkpoint import latest_checkpoint, write_durably
from spikedistill.engine.lock import LOCK
from spikedistill.run import train


def check_sentence(said: tuple[str, str] | None, folder: Path) -> None:
    assert said is not None
    kind, message = said
    assert kind in ("WriteFailed", "UserError")
    assert f"'{folder}" in message
    assert "No space left on device" in message


def fails_at(folder: Path, number: int, *overrides: str) -> bool:
    """Runs on a disk that is full at the ``number``-th change of a file, then goes on; False where there are fewer."""
    said = forked.queue()
    process = forked.start(forked.run_failing_at_operation, forked.recipe(folder, *overrides), number, said)
    process.join()
    assert process.exitcode == 0
    heard = said.get()
    finished = (folder / "report.html").exists() and heard is None
    if not finished:
        check_sentence(heard, folder)
    process = forked.start(forked.run_saying, forked.recipe(folder, *overrides), True, said)
    process.join()
    assert said.get() is None
    for left in folder.rglob(LOCK):  # the file of a lock that was given back: no harm is in it
        left.unlink()
    return not finished


# Shares of a run's changes of files; those that clean up behind a rename may fail without a word.
@pytest.mark.parametrize("share", [0.15, 0.62, 0.95])
def test_a_disk_that_is_full_for_a_moment_costs_nothing(undisturbed: Undisturbed, tmp_path: Path, share: float) -> None:
    first = round(share * undisturbed.operations)
    assert any(fails_at(tmp_path / f"run{number}", number) for number in (first, first + 1, first + 2))
    for folder in tmp_path.iterdir():
        check_same(folder, undisturbed.folder)


@pytest.mark.slow
def test_a_full_disk_at_every_single_write(undisturbed: Undisturbed, tmp_path: Path) -> None:
    failed = 0
    for number in range(1, undisturbed.operations):
        folder = tmp_path / str(number)
        failed += fails_at(folder, number, "checkpoint_minutes=10")
        check_same(folder, undisturbed.folder)
        if number > 20 and not failed:
            break
    assert failed > 40


def test_a_file_is_on_the_disk_before_it_takes_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[str, str]] = []
    sync, rename = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        done.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))
        sync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        assert source.read_bytes() == b"new"
        done.append(("rename", str(source)))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    write_durably(tmp_path / "file", b"new")
    temporary = done[0][1]
    assert temporary != str(tmp_path / "file")
    assert done == [("sync", temporary), ("rename", temporary), ("sync", str(tmp_path))]


def test_a_file_system_that_syncs_no_folders_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = os.fsync

    def files_only(descriptor: int) -> None:
        if Path(os.readlink(f"/proc/self/fd/{descriptor}")).is_dir():
            raise OSError(errno.EINVAL, "Invalid argument")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", files_only)
    write_durably(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_file_cut_off_in_the_middle_of_a_write(undisturbed: Undisturbed, tmp_path: Path) -> None:
    # The kernel itself refuses to write on: no checkpoint fits, the teacher's are the larger ones.
    folder, said = tmp_path / "run", forked.queue()
    sizes = [path.stat().st_size for path in undisturbed.folder.glob("checkpoints/*.pt")]
    process = forked.start(forked.run_with_small_files, forked.recipe(folder), min(sizes) - 1000, said)
    process.join()
    kind, message = said.get()
    assert kind == "WriteFailed"
    assert message.startswith(f"'{folder / 'teacher' / 'checkpoints'}/step-0000000001.pt' cannot be written: File")
    assert not list(folder.rglob("*.tmp"))
    train(forked.recipe(folder), resume=True, verbose=False)
    check_same(folder, undisturbed.folder)


def test_the_old_checkpoint_stays_good_on_a_disk_that_is_really_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system takes rights that this process does not have")
    try:
        folder, said = disk / "run", forked.queue()
        process = forked.start(forked.run_saying, forked.recipe(folder, "epochs=400"), False, said)
        filler = disk / "filler"
        while process.is_alive() and not list(folder.glob("checkpoints/*.pt")):
            process.join(0.02)
        while process.is_alive():
            with suppress(OSError), filler.open("ab", buffering=0) as file:
                file.write(b"0" * 4096)
                continue
            process.join(0.02)
        check_sentence(said.get(), folder)
        assert latest_checkpoint(folder / "checkpoints") is not None
    finally:
        subprocess.run(["umount", str(disk)], check=True)
