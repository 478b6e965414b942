"""A table of accuracies: rows by columns of runs, beside the published one; its picture has one panel for each.

Options: ``first`` (heading of the rows), ``ordered`` (rows are steps of one quantity: points are joined), ``reference``
(label of a run that is no cell, drawn as a level: the teacher), ``times`` (published seconds an epoch by label: another
table with ours), ``examples`` (how many test images of each row's data set are shown, for rows that are data sets).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spikedistill.evalrun import open_run
from spikedistill.study.base import Done, Finding, Picture, Table, Value, accuracies, by_label
from spikedistill.study.draw import COLOURS, MARKS, categories, legend, mosaic, panels, place, show
from spikedistill.sweep import Planned

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def grid(runs: list[Done], planned: list[Planned], options: Mapping[str, Any]) -> Finding:
    """The study."""
    level = next((one for one in planned if one.cell.label == options.get("reference")), None)
    reference = Value(accuracies(run for run in runs if level and run.label == level.cell.label))
    if level is not None:
        reference = replace(reference, published=level.published)
    planned = [one for one in planned if one.cell.row]
    accuracy = _table(runs, planned, options, "Accuracy on the test images after the last epoch, %", reference)
    tables = [accuracy]
    if options.get("times"):
        tables.append(_times(runs, planned, options))
    ordered = bool(options.get("ordered"))

    def draw(figure: Figure) -> None:
        ours, theirs = panels(figure, 2)
        _panel(ours, accuracy, ordered, reference.mean, published=False)
        _panel(theirs, accuracy, ordered, reference.published, published=True)
        legend(figure)

    caption = "Left: these runs, mean and standard deviation over seeds. Right: the published figures."
    caption += " Dashed: the teacher." if level else ""
    pictures = [Picture("accuracy", caption, draw)]
    if options.get("examples"):
        pictures.append(_examples(runs, int(options["examples"])))
    return Finding(tuple(tables), tuple(pictures))


def _examples(runs: list[Done], count: int) -> Picture:
    """The first test images of each row's data set, as they are before normalisation."""
    found: dict[str, Tensor] = {}
    for run in runs:
        row = run.planned.cell.row
        if row and row not in found:
            opened = open_run(run.folder, images=count)
            info = opened.data.info
            mean, std = (torch.tensor(value).view(-1, 1, 1) for value in (info.mean, info.std))
            images, _ = next(iter(opened.test_images().epoch(0)))
            found[row] = (images[:count].cpu() * std + mean).clamp(0.0, 1.0)

    def draw(figure: Figure) -> None:
        axes = mosaic(figure, len(found), count)
        for line, (name, images) in zip(axes, found.items(), strict=True):
            line[0].set_ylabel(name, rotation=0, ha="right", va="center")
            for panel, image in zip(line, images, strict=False):
                show(panel, image)

    return Picture("examples", "Test images of each row.", draw, (1.6 + 0.9 * count, 0.9 * len(found)))


def _table(runs: list[Done], planned: list[Planned], options: Mapping[str, Any], title: str, reference: Value) -> Table:
    done = by_label(runs)
    rows = list(dict.fromkeys(one.cell.row for one in planned))
    columns = list(dict.fromkeys(one.cell.column for one in planned))
    found: dict[tuple[str, str], Value] = {}
    for one in planned:
        figure = one.published
        found[one.cell.row, one.cell.column] = Value(accuracies(done.get(one.cell.label, [])), figure)
    empty = Value()
    lines = tuple((row, tuple(found.get((row, column), empty) for column in columns)) for row in rows)
    teacher = f"the teacher: {reference.ours()}, published {reference.theirs()}"
    notes = (teacher,) if reference.values or reference.published else ()
    return Table(title, str(options.get("first", "")), tuple(columns), lines, notes)


def _times(runs: list[Done], planned: list[Planned], options: Mapping[str, Any]) -> Table:
    """Seconds an epoch, and how many times the first row's that is."""
    done = by_label(runs)
    published = options.get("times") if isinstance(options.get("times"), Mapping) else {}
    assert isinstance(published, Mapping)
    seconds = {
        one.cell.label: tuple(_seconds(run) for run in done[one.cell.label])
        for one in planned
        if one.cell.label in done
    }
    first = planned[0].cell.label
    base = Value(seconds.get(first, ())).mean
    base_published = published.get(first)
    lines = []
    for label, row in dict.fromkeys((one.cell.label, one.cell.row or one.cell.column) for one in planned):
        printed = published.get(label)
        own = Value(seconds.get(label, ()), printed, 1, " s")
        share = Value(
            () if own.mean is None or not base else (own.mean / base,),
            None if printed is None or not base_published else printed / base_published,
        )
        lines.append((row, (own, share)))
    note = "median over the epochs of a run, on the machine of these runs"
    return Table("Time per epoch", str(options.get("first", "")), ("time", "times the first"), tuple(lines), (note,))


def _seconds(run: Done) -> float:
    return statistics.median(value for value in run.metrics["seconds"] if value is not None)


def _panel(panel: Axes, table: Table, ordered: bool, level: float | str | None, *, published: bool) -> None:
    if isinstance(level, float | int):
        panel.axhline(level, color="#222222", linestyle="--", linewidth=1)
    names = [name for name, _ in table.rows]
    for index, column in enumerate(table.columns):
        values = [cells[index] for _, cells in table.rows]
        points = []
        for number, value in enumerate(values):
            assert isinstance(value, Value)
            height = value.published if published else value.mean
            if isinstance(height, float | int):
                shift = 0.0 if ordered else place(index, len(table.columns))
                points.append((number + shift, height, 0.0 if published else value.sd or 0.0))
        if points:
            across, up, spread = zip(*points, strict=True)
            panel.errorbar(
                across,
                up,
                spread,
                fmt=MARKS[index % len(MARKS)],
                linestyle="-" if ordered else "none",
                color=COLOURS[index % len(COLOURS)],
                markerfacecolor="white" if published else None,
                capsize=3,
                label=column,
            )
        elif not published:
            panel.errorbar([], [], fmt=MARKS[index % len(MARKS)], color=COLOURS[index % len(COLOURS)], label=column)
    panel.set_xlabel(table.first)
    categories(panel, names, "published, %" if published else "these runs, accuracy in %")
