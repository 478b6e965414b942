"""The section drawn from robustness.json: accuracy against the strength of each kind of noise."""

from __future__ import annotations

from spikedistill.errors import UserError
from spikedistill.report import plots
from spikedistill.report.contents import Block, Part, Report, chart, grid, place
from spikedistill.report.groups import spread
from spikedistill.report.plots import Axis, Series
from spikedistill.report.runs import ROBUSTNESS, Run

Curves = dict[str, dict[float, float]]


def robustness(report: Report) -> Part | None:
    """Accuracy under noise, a chart a kind, a line a method."""
    body, told = "", {}
    for block in report.blocks:
        curves = {run.path: _curves(run) for row in block.table.rows for run in row.group.runs}
        for run in (run for row in block.table.rows for run in row.group.runs):
            told |= _summaries(run)
        kinds = dict.fromkeys(kind for found in curves.values() for kind in found)
        drawn = [picture for kind in kinds for picture in _charts(block, kind, curves)]
        if drawn:
            body += place(block, report) + grid([chart(one) for one in drawn], block)
    if not body:
        return None
    kinds = " ".join(f"{kind}: {summary}." for kind, summary in told.items())
    intro = f"Networks that were trained on clean images, tried under noise that is the same for all of them. {kinds}"
    return Part(intro, body)


def _charts(block: Block, kind: str, curves: dict) -> list[str]:
    series = []
    for row, name, colour in zip(block.table.rows, block.names, block.colours, strict=True):
        found = [curves[run.path][kind] for run in row.group.runs if kind in curves[run.path]]
        strengths = sorted({strength for curve in found for strength in curve})
        points = [(strength, spread(curve.get(strength) for curve in found)) for strength in strengths]
        series.append(Series(name, colour, [(strength, value) for strength, value in points if value]))
    drawn = [one for one in series if len(one.points) > 1]
    axis = Axis(f"strength of {kind}", "test accuracy, %", plots.level_range(drawn), whole=False)
    return plots.line_charts(drawn, axis)


def _curves(run: Run) -> Curves:
    content = run.measured.get(ROBUSTNESS, {})
    try:
        return {
            str(kind): {float(strength): float(value) for strength, value in curve["accuracy"].items()}
            for kind, curve in content.get("curves", {}).items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as fault:
        raise UserError(f"{run.path / ROBUSTNESS}: 'curves' is not what eval --noise writes ({fault!r})") from fault


def _summaries(run: Run) -> dict[str, str]:
    curves = run.measured.get(ROBUSTNESS, {}).get("curves", {})
    return {str(kind): str(curve.get("summary", "")) for kind, curve in curves.items()}
