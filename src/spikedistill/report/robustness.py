"""The section drawn from robustness.json: accuracy against the strength of each kind of noise."""

from __future__ import annotations

from pathlib import Path

from spikedistill.errors import UserError
from spikedistill.report import plots
from spikedistill.report.contents import Block, Part, Report, alike, chart, grid, place
from spikedistill.report.evaluation import reasonable
from spikedistill.report.groups import spread
from spikedistill.report.plots import Axis, Series
from spikedistill.report.runs import ROBUSTNESS, Run

Curves = dict[str, dict[float, float]]


def robustness(report: Report) -> Part | None:
    """Accuracy under noise, a chart a kind, a line a method."""
    body = ""
    for block in report.blocks:
        runs, left_out = alike(block, ROBUSTNESS)
        curves = {run.path: _curves(run) for run in runs}
        units = {kind: unit for run in runs for kind, unit in _units(run).items()}
        drawn = [picture for kind, unit in units.items() for picture in _charts(block, kind, unit, curves)]
        if drawn:
            body += place(block, report) + grid([chart(one) for one in drawn], block) + left_out
    intro = (
        "Finished networks, tried under noise on the pixels, on the spikes inside and on the weights; for one seed the "
        "noise is the same for all of them, and strength 0 is without noise."
    )
    return Part(intro, body) if body else None


def _charts(block: Block, kind: str, unit: str, curves: dict[Path, Curves]) -> list[str]:
    series = []
    for row, name, colour in zip(block.table.rows, block.names, block.colours, strict=True):
        found = [curves[run.path][kind] for run in row.group.runs if kind in curves.get(run.path, {})]
        strengths = sorted({strength for curve in found for strength in curve})
        points = [(strength, spread(curve.get(strength) for curve in found)) for strength in strengths]
        series.append(Series(name, colour, [(strength, value) for strength, value in points if value]))
    drawn = [one for one in series if len(one.points) > 1]
    axis = Axis(unit, f"test accuracy under {kind}, %", plots.level_range(drawn), whole=False)
    return plots.line_charts(drawn, axis)


def _curves(run: Run) -> Curves:
    content = run.measured.get(ROBUSTNESS, {})
    try:
        return {
            str(kind): {reasonable(strength): reasonable(value) for strength, value in curve["accuracy"].items()}
            for kind, curve in content.get("curves", {}).items()
        }
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as fault:
        raise UserError(f"{run.path / ROBUSTNESS}: 'curves' is not what eval --noise writes ({fault!r})") from fault


def _units(run: Run) -> dict[str, str]:
    """Kind to the unit of its strength, which stands at the end of its summary."""
    curves = run.measured.get(ROBUSTNESS, {}).get("curves", {})
    return {str(kind): str(curve.get("summary", "")).partition("strength: ")[2] for kind, curve in curves.items()}
