"""Asking a run to stop: by SIGTERM, SIGINT (Ctrl-C) or a deadline. The loop then writes a checkpoint and leaves."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """Whether a run shall stop.

    Args:
        deadline: the time, as ``time.monotonic()`` tells it, at which the run stops; None for no such time.

    Attributes:
        reason: why, ``SIGTERM``, ``SIGINT`` or ``time is up``; None while nobody asked.
    """

    def __init__(self, deadline: float | None = None) -> None:
        self.deadline = deadline
        self.reason: str | None = None

    def asked(self) -> bool:
        """Whether to stop now."""
        if self.reason is None and self.deadline is not None and time.monotonic() >= self.deadline:
            self.reason = "time is up"
        return self.reason is not None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Takes the signals inside the block; a second one acts as it would without us.

        Outside the main thread, where Python lets nobody take signals, only the deadline counts.
        """
        before: dict[signal.Signals, Any] = {}

        def take(number: int, _frame: FrameType | None) -> None:
            if self.reason is None:
                self.reason = signal.Signals(number).name
                return
            signal.signal(number, before[signal.Signals(number)])
            signal.raise_signal(number)

        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                handler = signal.getsignal(number)
                # Who ignores a signal (nohup, a shell's background job) keeps ignoring it.
                if handler not in (signal.SIG_IGN, None):
                    before[number] = handler
                    signal.signal(number, take)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
