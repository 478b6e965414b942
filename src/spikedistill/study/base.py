"""What a study takes and gives: finished runs in, tables and pictures out.

A study is one file: a function from the runs and the experiment's options to a ``Finding``. It may measure the runs'
networks; what it measures it leaves in their run folders, so that it is measured once.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikedistill.report.quantities import EMPTY
from spikedistill.report.runs import read_run
from spikedistill.runfolder import read_json
from spikedistill.sweep import Planned

if TYPE_CHECKING:
    from matplotlib.figure import Figure


PUBLISHED = "published"
"""Heading of the column beside one of ours."""


@dataclass(frozen=True)
class Done:
    """A finished run: what was planned, and its summary.

    Attributes:
        planned: cell, seed, recipe, published figure.
        summary: the contents of ``summary.json``.
        folder: the run folder.
    """

    planned: Planned
    summary: dict[str, Any]
    folder: Path

    @property
    def label(self) -> str:
        """The cell's label."""
        return self.planned.cell.label

    @property
    def metrics(self) -> dict[str, list[float | None]]:
        """The columns of ``metrics.csv``."""
        return read_run(self.folder).metrics

    @property
    def accuracy(self) -> float:
        """Of the last epoch on the test images, in percent."""
        return float(self.summary["student_accuracy"])

    def measured(self, name: str, images: int | None, part: str | None = None) -> dict[str, Any] | None:
        """What a file of the run folder says, if it was measured as it is wanted: with T as trained, on these images.

        Args:
            name: the file.
            images: how many test images are wanted; None for all.
            part: the section that says what was measured; None for the file itself.
        """
        file, there = self.folder / name, int(self.summary["test_images"])
        content = read_json(file) if file.is_file() else {}
        told = content.get(part) or {} if part else content
        wanted = (min(images or there, there), self.summary["timesteps"])
        return content if (told.get("images"), told.get("timesteps")) == wanted else None


@dataclass(frozen=True)
class Value:
    """A figure of ours over seeds, and the published one.

    Attributes:
        values: one a seed; none where nothing was run.
        published: a figure, or a word that is printed in its place.
        digits: behind the point.
        unit: behind the figure.
    """

    values: tuple[float, ...] = ()
    published: float | str | None = None
    digits: int = 2
    unit: str = ""

    @property
    def mean(self) -> float | None:
        """Over seeds."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def sd(self) -> float | None:
        """Sample standard deviation; None for fewer than two seeds."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def ours(self) -> str:
        """``mean ± sd``, or a dash."""
        if self.mean is None:
            return EMPTY
        spread = "" if self.sd is None else f" ± {self.sd:.{self.digits}f}"
        return f"{self.mean:.{self.digits}f}{spread}{self.unit}"

    def theirs(self) -> str:
        """The published figure, or a dash."""
        if self.published is None:
            return EMPTY
        return self.published if isinstance(self.published, str) else f"{self.published:.{self.digits}f}{self.unit}"


@dataclass(frozen=True)
class Table:
    """Figures of ours beside published ones.

    Attributes:
        title: what it shows.
        first: heading of the first column.
        columns: headings of the others.
        rows: name of each row and its values, one a column; a text stands as it is.
        notes: lines below.
    """

    title: str
    first: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Value | str, ...]], ...]
    notes: tuple[str, ...] = ()

    def grid(self) -> tuple[list[str], list[list[str]]]:
        """Headings and cells as text; where a column has published figures, a column of them stands beside it."""
        heads, columns = [self.first], [[name for name, _ in self.rows]]
        for index, head in enumerate(self.columns):
            cells = [values[index] for _, values in self.rows]
            heads.append(head)
            columns.append([cell if isinstance(cell, str) else cell.ours() for cell in cells])
            if any(isinstance(cell, Value) and cell.published is not None for cell in cells):
                heads.append(PUBLISHED)
                columns.append([EMPTY if isinstance(cell, str) else cell.theirs() for cell in cells])
        return heads, [list(row) for row in zip(*columns, strict=True)]


@dataclass(frozen=True)
class Picture:
    """A figure to be drawn: file name without suffix, what it shows, and who draws it."""

    name: str
    caption: str
    draw: Callable[[Figure], None]
    size: tuple[float, float] = (9.0, 3.6)


@dataclass(frozen=True)
class Finding:
    """What a study shows. ``data`` goes into the experiment's JSON as it is."""

    tables: tuple[Table, ...]
    pictures: tuple[Picture, ...]
    notes: tuple[str, ...] = ()
    data: dict[str, Any] = field(default_factory=dict)


Study = Callable[[list[Done], list[Planned], Mapping[str, Any]], Finding]
"""Finished runs, all runs that were planned, and the experiment's options."""


def by_label(runs: Iterable[Done]) -> dict[str, list[Done]]:
    """Runs that differ in their seed alone, together."""
    found: dict[str, list[Done]] = {}
    for run in runs:
        found.setdefault(run.label, []).append(run)
    return found


def accuracies(runs: Iterable[Done]) -> tuple[float, ...]:
    """One a run."""
    return tuple(run.accuracy for run in runs)
