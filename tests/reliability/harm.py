"""What files from strangers are tried with."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from spikedistill.errors import UserError


class Evil:
    """Pickles to a call that makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return (os.mkdir, (str(self.mark),))


def refused(act: Callable[[], object]) -> str:
    """The sentence that something is refused with."""
    with pytest.raises(UserError) as caught:
        act()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 1000
    return message
