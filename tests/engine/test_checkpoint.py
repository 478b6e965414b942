"""Checkpoints: durable, checked, two kept."""

from pathlib import Path

import pytest
import torch

from spikedistill.engine.checkpoint import latest_checkpoint, save_checkpoint, write_durably
from spikedistill.errors import WriteFailed


def state(value: int) -> dict[str, object]:
    return {"value": value, "weights": {"w": torch.full((3,), float(value))}}


def test_the_newest_comes_back_and_two_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 11):
        save_checkpoint(tmp_path, step, state(step))
    loaded = latest_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded["value"] == 11
    assert torch.equal(loaded["weights"]["w"], torch.full((3,), 11.0))
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_one_is_named_and_the_one_before_used(tmp_path: Path, damage: str) -> None:
    save_checkpoint(tmp_path, 1, state(1))
    path = save_checkpoint(tmp_path, 2, state(2))
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    path.write_bytes({"truncated": content[:-10], "flipped": content, "empty": b""}[damage])
    with pytest.warns(UserWarning, match=r"step-0000000002\.pt is damaged"):
        loaded = latest_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded["value"] == 1


def test_nothing_there_is_nothing(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None


def test_a_write_that_fails_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_durably(path, b"old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(WriteFailed, match="No space left on device"):
        write_durably(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
