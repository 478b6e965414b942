"""Where a run stands, as its checkpoints hold it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Position:
    """Where a run stands.

    Attributes:
        epoch, batch: the epoch, and the next batch in it.
        seconds: of training in this epoch.
        wall_seconds, compile_seconds: of the whole run so far, as its ``Clock`` tells them.
        rows: of the epochs behind.
        sums: of this epoch.
    """

    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    wall_seconds: float = 0.0
    compile_seconds: float = 0.0
    rows: list[dict[str, float]] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)


def read_position(content: dict[str, Any], epochs: int, batches: int) -> Position:
    """The position in a checkpoint that anybody may have written.

    Args:
        content: ``vars`` of a position.
        epochs: of the run.
        batches: of an epoch.

    Raises:
        TypeError: other fields, or values of other kinds.
        ValueError: a place that the run does not have.
    """
    position = Position(**content)
    counts = (position.epoch, position.batch)
    if any(type(count) is not int for count in counts) or not isinstance(position.rows, list):
        raise TypeError("its position is no position")
    times = {name: getattr(position, name) for name in ("seconds", "wall_seconds", "compile_seconds")}
    for named in (*position.rows, position.sums, times):
        if not isinstance(named, dict) or any(type(value) not in (int, float) for value in named.values()):
            raise TypeError("its figures are no numbers")
        if not all(isinstance(name, str) for name in named):
            raise TypeError("its figures have no names")
    if not (0 <= position.epoch <= epochs and 0 <= position.batch <= batches):
        raise ValueError(f"epoch {position.epoch + 1}, batch {position.batch}")
    if [row.get("epoch") for row in position.rows] != list(range(1, position.epoch + 1)):
        raise ValueError(f"{len(position.rows)} rows of metrics before epoch {position.epoch + 1}")
    if "wall_seconds" not in content:  # of a version before 28 November 2026, which knew of training alone
        position.wall_seconds = position.seconds + sum(row.get("seconds", 0.0) for row in position.rows)
    return position
