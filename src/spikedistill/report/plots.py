"""Charts of figures: curves over epochs or timesteps, accuracies side by side, firing rates per layer.

Each function takes plain numbers and gives SVG text; ``sections`` takes the numbers from the runs. A colour is a CSS
class of ``page.css`` (c0 for what is compared against, c1 to c6 for methods); no chart tells its lines apart by colour
alone, each line carries its name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from spikedistill.report import svg
from spikedistill.report.groups import Spread

MAX_OVERLAY = 6
"""With more lines than this each one gets a panel of its own, the others behind it in grey."""


@dataclass(frozen=True)
class Series:
    """A named line: its colour class and, for each x, the mean and standard deviation over seeds."""

    label: str
    colour: str
    points: list[tuple[float, Spread]]


@dataclass(frozen=True)
class Axis:
    """What the axes of a chart say and span; ``reference`` is a named level drawn across (the teacher).

    ``whole``: nothing lies between two whole numbers on the x axis (epochs, timesteps).
    """

    x_title: str
    y_title: str
    y_range: tuple[float, float]
    log_y: bool = False
    reference: tuple[str, float] | None = None
    whole: bool = True


@dataclass(frozen=True)
class Dot:
    """A line of the side-by-side chart: accuracy over seeds, each seed's own, and the teacher's, all in percent."""

    label: str
    colour: str
    accuracy: Spread
    seeds: list[float]
    teacher: float | None


def level_range(series: Sequence[Series], levels: Sequence[float] = (), skip: float = 0.0) -> tuple[float, float]:
    """A range in percent that shows where the lines differ: the first ``skip`` of the x axis does not stretch it."""
    ends = [x for one in series for x, _ in one.points]
    start = min(ends) + skip * (max(ends) - min(ends)) if ends else 0.0
    seen = [(x, value.mean - (value.sd or 0), value.mean + (value.sd or 0)) for s in series for x, value in s.points]
    low = min([below for x, below, _ in seen if x >= start] + list(levels), default=0.0)
    high = max([above for _, _, above in seen] + list(levels), default=100.0)
    margin = max(0.06 * (high - low), 0.3)
    return max(0.0, low - margin), min(100.0, high + margin)


def loss_axis(series: Sequence[Series], y_title: str) -> Axis:
    """A range for losses: from zero, or logarithmic where they span more than a factor of 30."""
    values = [value.mean for one in series for _, value in one.points]
    high = max(values, default=1.0) or 1.0
    positive = [value for value in values if value > 0]
    if positive and len(positive) == len(values) and high / min(positive) > 30:
        return Axis("epoch", f"{y_title} (log)", (min(positive) * 0.8, high * 1.2), log_y=True)
    low, high = min([0.0, *values]), max([0.0, *values])
    return Axis("epoch", y_title, (low, high + 0.05 * (high - low or 1.0)))


def line_charts(series: Sequence[Series], axis: Axis, companions: Sequence[Series] = ()) -> list[str]:
    """One chart with all lines, or one panel a line where there are more than ``MAX_OVERLAY``.

    Args:
        series: lines to compare.
        axis: shared by all panels.
        companions: lines of the same labels, drawn dotted into the panels only (one chart would not hold them).
    """
    drawn = [one for one in series if one.points]
    if not drawn:
        return []
    if len(drawn) <= MAX_OVERLAY:
        return [overlay(drawn, axis)]
    beside = {one.label: one for one in companions if one.points}
    return [_panel(one, drawn, axis, beside.get(one.label)) for one in drawn]


def overlay(series: Sequence[Series], axis: Axis) -> str:
    """All lines in one chart, each with its band of one standard deviation and its name at its end."""
    longest = max(len(svg.shortened(one.label, 20)) for one in series)
    frame = _frame(series, axis, right=longest * svg.CHARACTER + 12)
    body = "".join(_band(frame, one) + _line(frame, one, "line") for one in series)
    parts = [_axes(frame, series, axis), svg.clipped(frame, body)]
    ends = [frame.y(_inside(one.points[-1][1].mean, axis)) for one in series]
    for one, end, place in zip(series, ends, svg.apart(ends, 13, frame.top + 4, frame.y_end - 2), strict=True):
        x = frame.x(one.points[-1][0])
        parts.append(svg.circle(x, end, 2.6, f"dot {one.colour}", _tooltip(one)))
        parts.append(svg.line(x + 4, end, frame.x_end + 5, place, f"leader {one.colour}"))
        parts.append(svg.text(frame.x_end + 8, place + 3.8, svg.shortened(one.label, 20), f"name {one.colour}"))
    return svg.picture(frame.width, frame.height, "".join(parts), _described(series, axis))


def _panel(own: Series, others: Sequence[Series], axis: Axis, companion: Series | None) -> str:
    frame = replace(_frame(others, axis, right=14), width=280, height=200, top=42)
    behind = "".join(_line(frame, one, "context") for one in others if one is not own)
    dotted = _line(frame, companion, "companion") if companion else ""
    body = svg.clipped(frame, behind + _band(frame, own) + dotted + _line(frame, own, "line"))
    last_x, last = own.points[-1]
    end = svg.circle(frame.x(last_x), frame.y(_inside(last.mean, axis)), 3, f"dot {own.colour}", _tooltip(own))
    name = svg.text(0, 12, svg.shortened(own.label, 42), f"name {own.colour}")
    axes = f'<g transform="translate(0 16)">{svg.text(0, 12, axis.y_title, "title")}</g>'
    bare = _axes(frame, others, replace(axis, y_title=""))
    return svg.picture(frame.width, frame.height, name + axes + bare + body + end, _described([own], axis))


def _frame(series: Sequence[Series], axis: Axis, right: float) -> svg.Frame:
    xs = [x for one in series for x, _ in one.points]
    low, high = min(xs), max(xs)
    if low == high:
        low, high = low - 1, high + 1
    return svg.Frame((low, high), axis.y_range, right=right, log_y=axis.log_y)


def _axes(frame: svg.Frame, series: Sequence[Series], axis: Axis) -> str:
    xs = sorted({x for one in series for x, _ in one.points})
    marks = [mark for mark in svg.ticks(*frame.x_range, 5) if mark == int(mark) or not axis.whole]
    x_marks = xs if len(xs) <= 8 and all(x == int(x) for x in xs) else marks
    y_marks = svg.log_ticks(*axis.y_range) if axis.log_y else svg.ticks(*axis.y_range, 5)
    drawn = svg.axes(frame, axis.x_title, axis.y_title, x_marks, y_marks)
    if axis.reference:
        name, level = axis.reference
        y = frame.y(level)
        drawn += svg.line(frame.left, y, frame.x_end, y, "reference")
        drawn += svg.text(frame.left + 4, y - 4, f"{name} {level:.2f}", "referred")
    return drawn


def _line(frame: svg.Frame, one: Series, kind: str) -> str:
    points = [(frame.x(x), frame.y(value.mean)) for x, value in one.points]
    dots = "".join(svg.circle(x, y, 2, f"dot {one.colour}") for x, y in points) if len(points) <= 8 else ""
    return svg.path(points, f"{kind} {one.colour}") + (dots if kind == "line" else "")


def _band(frame: svg.Frame, one: Series) -> str:
    known = [(x, value.mean, value.sd) for x, value in one.points if value.sd is not None]
    lower = [(frame.x(x), frame.y(mean - sd)) for x, mean, sd in known]
    return svg.area(lower, [(frame.x(x), frame.y(mean + sd)) for x, mean, sd in known], f"band {one.colour}")


def _inside(value: float, axis: Axis) -> float:
    return min(max(value, axis.y_range[0]), axis.y_range[1])


def _tooltip(one: Series) -> str:
    x, value = one.points[-1]
    sd = "" if value.sd is None else f" ± {value.sd:.4g}"
    return f"{one.label}: {value.mean:.4g}{sd} (n = {value.n}) at {x:g}"


def _described(series: Sequence[Series], axis: Axis) -> str:
    return f"{axis.y_title} against {axis.x_title}. At the end: " + "; ".join(_tooltip(one) for one in series)


def side_by_side(dots: Sequence[Dot], plain: float | None = None) -> str:
    """Accuracies below each other on one scale: the mean with its standard deviation, and each seed's own.

    ``plain`` is the accuracy of the plain SNN, drawn through all rows where there is one to compare with.
    """
    teachers = [dot.teacher for dot in dots if dot.teacher is not None]
    shared = teachers[0] if teachers and max(teachers) - min(teachers) < 0.005 else None
    values = [value for dot in dots for value in dot.seeds] + teachers
    values += [dot.accuracy.mean + sign * (dot.accuracy.sd or 0) for dot in dots for sign in (-1, 1)]
    margin = max(0.08 * (max(values) - min(values)), 0.2)
    height = 40.0 * len(dots) + 66
    x_range = (min(values) - margin, min(100.0 + margin / 2, max(values) + margin))
    frame = svg.Frame(x_range, (0, 1), height=height, left=8, right=96, top=24, bottom=40)
    parts = [_side_axis(frame)]
    if shared is not None:
        x = frame.x(shared)
        parts.append(svg.line(x, 18, x, frame.y_end, "reference"))
        parts.append(svg.text(min(max(x, 46), frame.width - 46), 12, f"teacher {shared:.2f}", "referred", "middle"))
    if plain is not None:
        parts.append(svg.line(frame.x(plain), frame.top, frame.x(plain), frame.y_end, "baseline"))
    for index, dot in enumerate(dots):
        parts.append(_side_row(frame, dot, frame.top + 16 + 40 * index, shared is None))
    words = "; ".join(f"{dot.label} {dot.accuracy.mean:.2f}" for dot in dots)
    return svg.picture(frame.width, height, "".join(parts), f"Test accuracy in percent: {words}")


def _side_axis(frame: svg.Frame) -> str:
    parts = [svg.line(frame.left, frame.y_end, frame.x_end, frame.y_end, "axis")]
    for mark in svg.ticks(*frame.x_range, 5):
        if mark <= 100:
            parts.append(svg.line(frame.x(mark), frame.top, frame.x(mark), frame.y_end, "grid"))
            parts.append(svg.text(frame.x(mark), frame.y_end + 15, svg.number(mark), anchor="middle"))
    parts.append(svg.text((frame.left + frame.x_end) / 2, frame.y_end + 32, "test accuracy, %", "title", "middle"))
    return "".join(parts)


def _side_row(frame: svg.Frame, dot: Dot, y: float, own_teacher: bool) -> str:
    sd = "" if dot.accuracy.sd is None else f" ± {dot.accuracy.sd:.2f}"
    parts = [
        svg.text(frame.left, y, svg.shortened(dot.label, 40), f"name halo {dot.colour}"),
        svg.text(frame.width, y + 17, f"{dot.accuracy.mean:.2f}{sd}", "value", "end"),
    ]
    y += 13
    parts.insert(0, svg.line(frame.left, y, frame.x_end, y, "grid"))
    if own_teacher and dot.teacher is not None:
        x = frame.x(dot.teacher)
        parts.append(svg.line(x, y - 6, x, y + 6, "reference"))
    if dot.accuracy.sd is not None:
        low, high = frame.x(dot.accuracy.mean - dot.accuracy.sd), frame.x(dot.accuracy.mean + dot.accuracy.sd)
        parts.append(svg.line(low, y, high, y, f"whisker {dot.colour}"))
    parts += [svg.circle(frame.x(value), y, 2.2, f"seed {dot.colour}", f"{value:.2f}") for value in dot.seeds]
    parts.append(svg.circle(frame.x(dot.accuracy.mean), y, 5, f"dot {dot.colour}"))
    return "".join(parts)


def firing_bars(rates: dict[str, Spread], colour: str, limit: float, reference: dict[str, float], label: str) -> str:
    """Firing rate of each layer, first layer on top.

    Args:
        rates: layer -> spikes per neuron and timestep (0 to 1).
        colour: CSS class of the bars.
        limit: upper end of the axis, 0 to 1, the same for panels that stand side by side.
        reference: layer -> rate of the network compared against, drawn as a tick across the bar.
        label: whose rates these are.
    """
    pitch = min(22.0, max(5.0, 640.0 / len(rates)))
    every = math.ceil(12 / pitch)
    left = min(max(len(svg.shortened(name, 20)) for name in rates) * svg.CHARACTER + 8, 128)
    height = pitch * len(rates) + 64
    frame = svg.Frame((0, 100 * limit), (0, 1), width=360, height=height, left=left, right=40, top=24, bottom=40)
    parts = [svg.text(0, 12, svg.shortened(label, 50), f"name {colour}")]
    for mark in svg.ticks(0, 100 * limit, 4):
        parts.append(svg.line(frame.x(mark), frame.top, frame.x(mark), frame.y_end, "grid"))
        parts.append(svg.text(frame.x(mark), frame.y_end + 15, svg.number(mark), anchor="middle"))
    title = "firing rate, % of neurons per timestep"
    parts.append(svg.text(frame.width / 2, frame.y_end + 32, title, "title", "middle"))
    for index, (layer, rate) in enumerate(rates.items()):
        y = frame.top + pitch * index
        shown = f"{layer}: {100 * rate.mean:.2f} %"
        width = frame.x(100 * rate.mean) - left
        parts.append(svg.rect(left, y + 0.14 * pitch, width, 0.72 * pitch, f"bar {colour}", shown))
        if layer in reference:
            x = frame.x(100 * reference[layer])
            parts.append(svg.line(x, y + 1, x, y + pitch - 1, "mark-across"))
        if index % every == 0:
            parts.append(svg.text(left - 6, y + pitch / 2 + 3.8, svg.shortened(layer, 20), anchor="end"))
            beyond = max(width, frame.x(100 * reference[layer]) - left if layer in reference else 0)
            parts.append(svg.text(left + beyond + 5, y + pitch / 2 + 3.8, f"{100 * rate.mean:.1f}", "value"))
    words = "; ".join(f"{layer} {100 * rate.mean:.1f} %" for layer, rate in rates.items())
    return svg.picture(frame.width, height, "".join(parts), f"Firing rates of {label}: {words}")
