"""The section drawn from latency.json: accuracy from 1 to 2 T timesteps, and early exit by confidence."""

from __future__ import annotations

from collections.abc import Callable

from spikedistill.errors import UserError
from spikedistill.report import plots
from spikedistill.report.contents import Block, Part, Report, alike, chart, grid, place
from spikedistill.report.evaluation import reasonable
from spikedistill.report.groups import spread
from spikedistill.report.plots import Axis, Series
from spikedistill.report.runs import LATENCY, Run

Points = list[tuple[float, float]]


def latencies(report: Report) -> Part | None:
    """How soon the answer is there, and how few timesteps are enough on average."""
    body = ""
    for block in report.blocks:
        same, left_out = alike(block, LATENCY)
        steps = _series(
            block,
            same,
            lambda run: sorted((reasonable(t), reasonable(y)) for t, y in _content(run, "accuracy").items()),
        )
        exits = _series(
            block,
            same,
            lambda run: [(reasonable(one["timesteps"]), reasonable(one["accuracy"])) for one in _content(run, "exits")],
        )
        drawn = [
            *plots.line_charts(steps, Axis("timesteps run", "test accuracy, %", plots.level_range(steps))),
            *plots.line_charts(
                exits,
                Axis("timesteps used on average", "test accuracy, %", plots.level_range(exits), whole=False),
            ),
        ]
        if drawn:
            body += place(block, report) + grid([chart(one) for one in drawn], block) + left_out
    intro = (
        "First: the same trained network read out after every timestep, up to twice the number that it was trained "
        "with. Second: each image stops at the first timestep whose answer is confident enough (softmax of the mean of "
        "the logits so far); a point is a level of confidence."
    )
    return Part(intro, body) if body else None


def _series(block: Block, same: list[Run], points: Callable[[Run], Points]) -> list[Series]:
    series = []
    for row, name, colour in zip(block.table.rows, block.names, block.colours, strict=True):
        found = [_checked(run, points) for run in row.group.runs if run in same]
        # Over seeds, points belong together by their place in the list: the same T, or the same level of confidence.
        columns = list(zip(*found, strict=False))
        drawn = []
        for column in columns:
            across, value = spread(x for x, _ in column), spread(y for _, y in column)
            if across and value:
                drawn.append((across.mean, value))
        if len(drawn) > 1:
            series.append(Series(name, colour, drawn))
    return series


def _checked(run: Run, points: Callable[[Run], Points]) -> Points:
    try:
        return points(run)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as fault:
        raise UserError(f"{run.path / LATENCY} is not what eval --latency writes ({fault!r})") from fault


def _content(run: Run, key: str):
    return run.measured[LATENCY][key]
