"""What a transfer did with each tensor."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One tensor of the student.

    Attributes:
        name: its state-dict key.
        action: ``copied``, ``resampled`` or ``left``.
        source: the teacher's key it came from, None where it was left as it was.
        shape, source_shape: of the student's and of the teacher's tensor.
        reason: why, where it was left.
    """

    name: str
    action: str
    shape: tuple[int, ...]
    source: str | None = None
    source_shape: tuple[int, ...] | None = None
    reason: str = ""
