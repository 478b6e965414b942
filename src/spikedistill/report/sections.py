"""The sections of the report page: each is a function from the report's contents to a heading text and HTML.

A new section is a function here or anywhere else and one entry in ``SECTIONS``; one that has nothing to show returns
None and leaves no trace on the page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from spikedistill.report import pictures, plots
from spikedistill.report.contents import Block, Part, Report, Section, chart, charts, grid, part, place
from spikedistill.report.groups import PLAIN_SNN, Group, Spread, spread
from spikedistill.report.plots import Axis, Dot, Series
from spikedistill.report.recipes import recipes
from spikedistill.report.runs import EVALUATION, METRICS, Run
from spikedistill.report.table import Row, provenance, to_html


def results(report: Report) -> Part:
    """The comparison table of each block."""
    intro = (
        "Accuracy on the test images after the last epoch, mean ± standard deviation over seeds; no epoch is picked by "
        "its test accuracy. Differences are percentage points."
    )
    parts = [place(block, report) + to_html(block.table, block.colours, with_place=False) for block in report.blocks]
    return Part(intro, "".join(parts))


def comparison(block: Block) -> str:
    """The block's accuracies side by side as one chart, or nothing where none is finished."""
    entries = zip(block.table.rows, block.names, block.colours, strict=True)
    dots = [
        Dot(name, colour, row.accuracy, row.group.accuracies, row.teacher)
        for row, name, colour in entries
        if row.accuracy
    ]
    plain = [row.accuracy.mean for row in block.table.rows if row.accuracy and row.group.method == PLAIN_SNN]
    if not dots:
        return ""
    return chart(plots.side_by_side(dots, plain[0] if len(plain) == 1 and len(dots) > 1 else None))


def accuracy_curves(report: Report) -> Part | None:
    """Validation and training accuracy over epochs, one line a method."""
    body = ""
    for block in report.blocks:
        drawn: list[str] = []
        for column, images in (("validation_accuracy", "validation"), ("train_accuracy", "training")):
            series = _series(block, column)
            drawn += plots.line_charts(series, Axis("epoch", f"{images} accuracy, %", plots.level_range(series, skip=0.2)))
        body += charts(block, report, drawn)
    intro = (
        "Mean over seeds, the band is one standard deviation. The axis starts where the lines begin to differ. "
        "Training accuracy is counted on augmented images while the weights still move."
    )
    return part(intro, body, report, METRICS)


def loss_curves(report: Report) -> Part | None:
    """The total loss and its terms over epochs, a panel a method."""
    body = ""
    for block in report.blocks:
        drawn = []
        for row, name in zip(block.table.rows, block.names, strict=True):
            series = _loss_series(row)
            if series:
                drawn.append(chart(plots.overlay(series, plots.loss_axis(series, f"training loss, {name}"))))
        body += place(block, report) + grid(drawn, block) if drawn else ""
    intro = (
        "What each method minimises: the total and its weighted terms. Losses of different methods are not comparable."
    )
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


def accuracy_by_timesteps(report: Report) -> Part | None:
    """Accuracy of each trained network when it is read out after fewer timesteps."""
    body = ""
    for block in report.blocks:
        series = []
        for row, name, colour in zip(block.table.rows, block.names, block.colours, strict=True):
            found = [run.evaluation.accuracy_per_timestep for run in row.group.runs if run.evaluation]
            steps = sorted({step for one in found for step in one})
            points = [(float(step), spread(one.get(step) for one in found)) for step in steps]
            series.append(Series(name, colour, [(step, value) for step, value in points if value]))
        series = [one for one in series if len(one.points) > 1]
        teachers = {row.teacher for row in block.table.rows if row.teacher is not None}
        level = next(iter(teachers)) if len(teachers) == 1 else None
        values = plots.level_range(series, [level] if level else [])
        reference = ("teacher", level) if level else None
        drawn = plots.line_charts(series, Axis("timesteps used", "test accuracy, %", values, reference=reference))
        body += charts(block, report, drawn)
    intro = "How much of the accuracy is there after the first timesteps: the same trained network, stopped early."
    return part(intro, body, report, EVALUATION)


def firing_rates(report: Report) -> Part | None:
    """Mean firing rate of every spiking layer, a panel a method."""
    body = ""
    for block in report.blocks:
        rates = [_rates(row.group) for row in block.table.rows]
        limit = max((rate.mean for one in rates for rate in one.values()), default=0.0) * 1.05 or 1.0
        drawn = []
        for row, layers, name, colour in zip(block.table.rows, rates, block.names, block.colours, strict=True):
            if layers:
                plain = _rates(row.plain) if row.plain else {}
                reference = {layer: rate.mean for layer, rate in plain.items() if layer in layers}
                drawn.append(chart(plots.firing_bars(layers, colour, limit, reference, name)))
        body += place(block, report) + grid(drawn, block) if drawn else ""
    intro = (
        "Share of neurons that fire in a timestep, on test images, first layer on top. Fewer spikes cost less energy. "
        "A tick across a bar is the plain SNN's rate."
    )
    return part(intro, body, report, EVALUATION)


def _rates(group: Group) -> dict[str, Spread]:
    found = [run.evaluation.firing_rate for run in group.runs if run.evaluation]
    layers = dict.fromkeys(layer for one in found for layer in one)
    rates = {layer: spread(one.get(layer) for one in found) for layer in layers}
    return {layer: rate for layer, rate in rates.items() if rate}


def example_spikes(report: Report) -> Part | None:
    """One test image and the spikes it causes, layer by layer."""
    shown = [_in_turn(block, report, _raster) for block in report.blocks]
    intro = (
        "A row is a neuron (a sample of each layer, the same in every network), a column a timestep, a mark a spike. "
        "Depth runs from left to right."
    )
    return part(intro, "".join(shown), report, EVALUATION)


def _raster(row: Row) -> str:
    run = next((run for run in row.group.runs if run.evaluation and run.evaluation.example), None)
    example = run.evaluation.example if run and run.evaluation else None
    if run is None or run.evaluation is None or example is None:
        return ""
    classes = run.evaluation.classes
    label, prediction = (
        "?" if index is None else classes[index] if 0 <= index < len(classes) else str(index)
        for index in (example.label, example.prediction)
    )
    right = "right" if label == prediction else "wrong"
    caption = f"<b>{escape(label)}</b> seen as <b>{escape(prediction)}</b>, {right}; seed {escape(str(run.seed))}"
    picture = f'<img src="{pictures.image_uri(example.image)}" alt="test image of class {escape(label)}">'
    figures = [f'<figure class="image">{picture}<figcaption>{caption}</figcaption></figure>'] if example.image else []
    layers = [(layer, spikes) for layer, spikes in example.raster.items() if spikes and spikes[0]]
    figures += [pictures.raster(layer, spikes, index == 0) for index, (layer, spikes) in enumerate(layers)]
    return f'<div class="raster">{"".join(figures)}</div>'


def confusion_matrices(report: Report) -> Part | None:
    """Which classes are taken for which, counts added over seeds."""
    shown = [_in_turn(block, report, _confusion) for block in report.blocks]
    intro = "Test images by true and predicted class, counts added over seeds. What is off the diagonal is a mistake."
    return part(intro, "".join(shown), report, EVALUATION)


def _confusion(row: Row) -> str:
    found = [run.evaluation for run in row.group.runs if run.evaluation and run.evaluation.confusion]
    if not found:
        return ""
    classes = found[0].classes
    alike = [one.confusion for one in found if one.classes == classes]
    matrix = [[sum(counts) for counts in zip(*rows, strict=True)] for rows in zip(*alike, strict=True)]
    drawn = chart(pictures.confusion(matrix, classes)) if len(classes) <= pictures.MATRIX_UP_TO else ""
    worst = pictures.confusions(matrix, classes)
    items = "".join(
        f"<li><b>{escape(true)}</b> taken for <b>{escape(predicted)}</b><span>{count}</span></li>"
        for true, predicted, count in worst
    )
    listed = f'<div class="confusions"><h4>Most frequent mistakes</h4><ol>{items}</ol></div>' if items else ""
    return f'<div class="charts">{drawn}{listed}</div>'


def _in_turn(block: Block, report: Report, draw: Callable[[Row], str]) -> str:
    """The best row's drawing in the open, the others folded away."""
    rows = list(zip(block.table.rows, block.names, strict=True))
    order = [rows[block.best]] + [entry for index, entry in enumerate(rows) if index != block.best]
    drawn = [(name, row, draw(row)) for row, name in order]
    drawn = [entry for entry in drawn if entry[2]]
    if not drawn:
        return ""
    first_name, first_row, first = drawn[0]
    body = f'<h4>{escape(first_name)}</h4>{first}<p class="note">{escape(provenance([first_row]))}</p>'
    for name, row, other in drawn[1:]:
        note = f'<p class="note">{escape(provenance([row]))}</p>'
        body += f"<details><summary>{escape(name)}</summary>{other}{note}</details>"
    return place(block, report) + body


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


SECTIONS: dict[str, Section] = {
    "Results": results,
    "Learning curves": accuracy_curves,
    "Accuracy against timesteps": accuracy_by_timesteps,
    "Firing rates": firing_rates,
    "Spikes of one image": example_spikes,
    "Confusion matrix": confusion_matrices,
    "Loss": loss_curves,
    "What was run": recipes,
}
