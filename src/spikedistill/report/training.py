"""Sections drawn from metrics.csv: accuracy and loss over epochs."""

from __future__ import annotations

from collections.abc import Sequence

from spikedistill.report import plots
from spikedistill.report.contents import Block, Part, Report, chart, charts, panels, part, place
from spikedistill.report.groups import Spread, spread
from spikedistill.report.plots import Axis, Series
from spikedistill.report.runs import METRICS, Run
from spikedistill.report.table import Row


def accuracy_curves(report: Report) -> Part | None:
    """Validation and training accuracy over epochs, one line a method."""
    body = "".join(charts(block, report, _accuracy_charts(block)) for block in report.blocks)
    intro = (
        "Mean over seeds, the band is one standard deviation. The axis starts where the lines begin to differ. "
        "Training accuracy is counted on augmented images while the weights still move."
    )
    return part(intro, body, report, METRICS)


def _accuracy_charts(block: Block) -> list[str]:
    held_out, training = _series(block, "validation_accuracy"), _series(block, "train_accuracy")
    known = [one for one in held_out if one.points]
    if not known:
        return plots.line_charts(training, _axis("training accuracy, %", training))
    if len(known) > plots.MAX_OVERLAY:
        return plots.line_charts(held_out, _axis("validation (line) and training (dots) accuracy, %", known), training)
    return [
        *plots.line_charts(held_out, _axis("validation accuracy, %", held_out)),
        *plots.line_charts(training, _axis("training accuracy, %", training)),
    ]


def _axis(title: str, series: Sequence[Series]) -> Axis:
    return Axis("epoch", title, plots.level_range(series, skip=0.2))


def loss_curves(report: Report) -> Part | None:
    """The total loss and its terms over epochs, a panel a method."""
    body = ""
    for block in report.blocks:
        drawn = {}
        for index, (row, name) in enumerate(zip(block.table.rows, block.names, strict=True)):
            series = _loss_series(row)
            if series:
                drawn[index] = chart(plots.overlay(series, plots.loss_axis(series, f"training loss, {name}")))
        body += place(block, report) + panels(drawn, block) if drawn else ""
    intro = "What each method minimises: the total and its weighted terms. Losses of two methods cannot be compared."
    return part(intro, body, report, METRICS)


def _loss_series(row: Row) -> list[Series]:
    columns = dict.fromkeys(key for run in row.group.runs for key in run.metrics if key.startswith("loss/"))
    wanted = {"total": "train_loss"} | ({key.removeprefix("loss/"): key for key in columns} if len(columns) > 1 else {})
    colours = ["ca", "c1", "c2", "c3", "c4", "c5", "c6"]
    drawn = [
        Series(name, colours[index % len(colours)], _over_seeds(row.group.runs, column))
        for index, (name, column) in enumerate(wanted.items())
    ]
    return [one for one in drawn if one.points]


def _series(block: Block, column: str) -> list[Series]:
    entries = zip(block.table.rows, block.names, block.colours, strict=True)
    return [Series(name, colour, _over_seeds(row.group.runs, column)) for row, name, colour in entries]


def _over_seeds(runs: Sequence[Run], column: str) -> list[tuple[float, Spread]]:
    values: dict[float, list[float]] = {}
    for run in runs:
        for epoch, value in zip(run.metrics.get("epoch", []), run.metrics.get(column, []), strict=False):
            if epoch is not None and value is not None:
                values.setdefault(epoch, []).append(value)
    found = [(epoch, spread(values[epoch])) for epoch in sorted(values)]
    return [(epoch, value) for epoch, value in found if value]
