"""Progress on the terminal: a bar with accuracy and time left where there is a terminal, a line an epoch where not."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import parent_process
from typing import TYPE_CHECKING

from spikedistill.engine.metrics import EpochSums

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

REFRESH_SECONDS = 0.5


class Bar:
    """The progress of one training; ``advance`` reads the running sums at most twice a second."""

    def __init__(self, label: str, epochs: int, batches: int, rich: RichProgress | None, verbose: bool) -> None:
        self.label, self.epochs, self.batches, self.rich, self.verbose = label, epochs, batches, rich, verbose
        self.done, self.shown = 0, 0.0
        self.task = rich.add_task(label, total=epochs * batches, note="") if rich else None

    def start_epoch(self, epoch: int, batch: int) -> None:
        """Says which epoch begins, and from which batch."""
        self.done = epoch * self.batches + batch
        self.heading = f"{self.label}  epoch {epoch + 1}/{self.epochs}"
        if self.rich is not None and self.task is not None:
            self.rich.update(self.task, completed=self.done, description=self.heading)

    def advance(self, sums: EpochSums) -> None:
        """One batch is done."""
        self.done += 1
        if self.rich is None or self.task is None or time.monotonic() - self.shown < REFRESH_SECONDS:
            return
        self.shown = time.monotonic()
        means = sums.means()
        note = f"accuracy {means['train_accuracy']:.1f} %  loss {means['train_loss']:.3f}"
        self.rich.update(self.task, completed=self.done, note=note)

    def note(self, text: str) -> None:
        """A line for people, beside the bar."""
        if self.rich is not None:
            self.rich.console.print(f"{self.label}  {text}", markup=False, highlight=False)
        elif self.verbose:
            print(f"{self.label}  {text}", file=sys.stderr, flush=True)

    def end_epoch(self, row: dict[str, float]) -> None:
        """The epoch's row of metrics is known."""
        if self.rich is not None and self.task is not None:
            note = f"accuracy {row['train_accuracy']:.1f} %  loss {row['train_loss']:.3f}"
            self.rich.update(self.task, completed=self.done, note=note)
        if self.rich is None and self.verbose:
            validation = f"  validation {row['validation_accuracy']:.2f} %" if "validation_accuracy" in row else ""
            print(
                f"{self.heading}  loss {row['train_loss']:.4f}  train {row['train_accuracy']:.2f} %{validation}  "
                f"{row['seconds']:.1f} s",
                file=sys.stderr,
                flush=True,
            )


class Reporter:
    """Where progress goes.

    Args:
        label: what is being trained.
        verbose: False keeps silent.
    """

    def __init__(self, label: str = "", verbose: bool = True) -> None:
        self.label, self.verbose = label, verbose

    @contextmanager
    def run(self, epochs: int, batches: int) -> Iterator[Bar]:
        """A bar for one training."""
        # Bars of several processes would draw over one another.
        if not (self.verbose and sys.stderr.isatty() and parent_process() is None):
            yield Bar(self.label, epochs, batches, None, self.verbose)
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns = [
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        ]
        with Progress(*columns, console=Console(stderr=True)) as rich:
            yield Bar(self.label, epochs, batches, rich, True)
