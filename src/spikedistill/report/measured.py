"""Sections drawn from evaluation.json: accuracy against T, firing rates, the spikes of one image, the confusions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from spikedistill.report import pictures, plots
from spikedistill.report.columns import provenance
from spikedistill.report.contents import Block, Part, Report, chart, grid, panels, part, place
from spikedistill.report.evaluation import Evaluation
from spikedistill.report.groups import Group, Spread, spread
from spikedistill.report.plots import Axis, Series
from spikedistill.report.quantities import spread_text
from spikedistill.report.runs import EVALUATION
from spikedistill.report.table import Row


def accuracy_by_timesteps(report: Report) -> Part | None:
    """Accuracy of each trained network when it is read out after fewer timesteps."""
    body = ""
    for block in report.blocks:
        series = []
        for row, name, colour in zip(block.table.rows, block.names, block.colours, strict=True):
            points = [(float(step), value) for step, value in row.group.accuracy_per_timestep.items()]
            series.append(Series(name, colour, points))
        series = [one for one in series if len(one.points) > 1]
        teachers = [row.teacher for row in block.table.rows if row.teacher is not None]
        level = teachers[0] if teachers and max(teachers) - min(teachers) < 0.005 else None
        values = plots.level_range(series, [level] if level else [])
        reference = ("teacher", level) if level else None
        drawn = plots.line_charts(series, Axis("timesteps used", "test accuracy, %", values, reference=reference))
        if drawn:
            body += place(block, report) + grid([*map(chart, drawn), _by_timesteps(series)], block)
    intro = "How much of the accuracy is there after the first timesteps: the same trained network, stopped early."
    return part(intro, body, report, EVALUATION)


def _by_timesteps(series: Sequence[Series]) -> str:
    """The figures of the chart as a table with one column a timestep."""
    steps = sorted({step for one in series for step, _ in one.points})
    head = "".join(f'<th scope="col" class="num">T = {step:g}</th>' for step in steps)
    body = ""
    for one in series:
        at = dict(one.points)
        cells = "".join(f'<td class="num">{_stacked(at.get(step))}</td>' for step in steps)
        body += f'<tr><th scope="row"><span class="mark {one.colour}"></span>{escape(one.label)}</th>{cells}</tr>'
    head = f'<thead><tr><th scope="col">test accuracy, %</th>{head}</tr></thead>'
    return f'<div class="scroll"><table>{head}<tbody>{body}</tbody></table></div>'


def _spiking(group: Group) -> list[Evaluation]:
    """What was measured in a group's SNNs; nothing for ANNs, whose activations are no spikes."""
    return [run.evaluation for run in group.runs if run.evaluation and group.timesteps]


def _stacked(value: Spread | None) -> str:
    """The mean with its standard deviation below it, so that many columns fit a phone."""
    mean, _, sd = spread_text(value).partition(" ± ")
    return f"{mean}<small>± {sd}</small>" if sd else mean


def firing_rates(report: Report) -> Part | None:
    """Mean firing rate of every spiking layer, a panel a method."""
    body = ""
    for block in report.blocks:
        rates = [_rates(row.group) for row in block.table.rows]
        limit = max((rate.mean for one in rates for rate in one.values()), default=0.0) * 1.05 or 1.0
        drawn = {}
        for index, (row, layers) in enumerate(zip(block.table.rows, rates, strict=True)):
            if layers:
                plain = _rates(row.plain) if row.plain else {}
                reference = {layer: rate.mean for layer, rate in plain.items() if layer in layers}
                name, colour = block.names[index], block.colours[index]
                drawn[index] = chart(plots.firing_bars(layers, colour, limit, reference, name))
        body += place(block, report) + panels(drawn, block) if drawn else ""
    intro = (
        "Share of neurons that fire in a timestep, on test images, first layer on top. Fewer spikes cost less energy. "
        "A tick across a bar is the plain SNN's rate."
    )
    return part(intro, body, report, EVALUATION)


def _rates(group: Group) -> dict[str, Spread]:
    found = [one.firing_rate for one in _spiking(group)]
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
    if run is None or run.evaluation is None or example is None or not row.group.timesteps:
        return ""
    classes = run.evaluation.classes
    label, prediction = (
        "?" if index is None else classes[index] if 0 <= index < len(classes) else str(index)
        for index in (example.label, example.prediction)
    )
    right = "right" if label == prediction else "wrong"
    caption = f"<b>{escape(label)}</b> seen as <b>{escape(prediction)}</b>, {right}; seed {escape(str(run.seed))}"
    figures = []
    if example.image:
        picture = f'<img src="{pictures.image_uri(example.image)}" alt="test image of class {escape(label)}">'
        figures.append(f'<figure class="image">{picture}<figcaption>{caption}</figcaption></figure>')
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
