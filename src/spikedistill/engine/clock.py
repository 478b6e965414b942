"""How long a run has taken, over all the pieces it was made in."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from spikedistill.spiking import compiling


class Clock:
    """The seconds of a run, and those of them in which kernels were compiled.

    They go on from what a checkpoint holds, so what a piece did behind its last checkpoint before it was killed, which
    the next one does again, counts once.

    Args:
        already: seconds that the run has taken when the clock is made.
    """

    def __init__(self, already: float = 0.0) -> None:
        self._since = time.perf_counter() - already
        self._compiled = compiling.seconds()

    @property
    def seconds(self) -> float:
        """Wall time of the run so far."""
        return time.perf_counter() - self._since

    @property
    def compiling(self) -> float:
        """Seconds of it spent at the first call of each compiled kernel."""
        return compiling.seconds() - self._compiled

    def after(self, seconds: float, compiled: float) -> None:
        """Adds what the pieces before this one took."""
        self._since -= seconds
        self._compiled -= compiled

    @contextmanager
    def apart(self) -> Iterator[None]:
        """What happens in the block is not the run's: its teacher's training, which has a clock of its own."""
        seconds, compiled = self.seconds, self.compiling
        try:
            yield
        finally:
            self._since = time.perf_counter() - seconds
            self._compiled = compiling.seconds() - compiled
