"""Accuracy under noise of finished networks (KDSNN table 2 and figure 8).

Options: ``kind`` and ``strengths`` of the noise, ``images`` (how many test images; all unless given), ``published``
(strength to column to figure), ``note``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from spikedistill.evalrun import ROBUSTNESS, noise_curves, open_run
from spikedistill.evaluation.robustness import NOISES
from spikedistill.study.base import Done, Finding, Picture, Table, Value, by_label
from spikedistill.study.draw import COLOURS, MARKS, panels
from spikedistill.sweep import Planned

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def noise(runs: list[Done], planned: list[Planned], options: Mapping[str, Any]) -> Finding:
    """The study."""
    kind = str(options["kind"])
    strengths = [float(strength) for strength in options.get("strengths", NOISES[kind].strengths)]
    images = options.get("images")
    curves = {run.folder: measured(run, kind, strengths, images) for run in runs}
    done = by_label(runs)
    columns = dict.fromkeys((one.cell.label, one.cell.column) for one in planned if one.cell.column)
    published = {float(strength): row for strength, row in dict(options.get("published", {})).items()}
    rows = []
    for strength in [0.0, *strengths]:
        accuracies = [tuple(curves[run.folder][strength] for run in done.get(label, [])) for label, _ in columns]
        printed = published.get(strength, {})
        values = tuple(Value(found, printed.get(name)) for found, (_, name) in zip(accuracies, columns, strict=True))
        rows.append((f"{strength:g}" if strength else "none", values))
    names = [name for _, name in columns]
    title = f"Accuracy under {kind} noise, %"
    table = Table(title, "strength", tuple(names), tuple(rows), (NOISES[kind].summary, *options.get("notes", ())))

    points = [(strength, values) for strength, (_, values) in zip([0.0, *strengths], rows, strict=True)]

    def draw(figure: Figure) -> None:
        _draw(figure, kind, names, points)

    caption = "Mean over seeds, the bar is one standard deviation; hollow marks are the published figures."
    return Finding((table,), (Picture("noise", caption, draw, (6.4, 3.8)),))


def measured(run: Done, kind: str, strengths: Sequence[float], images: int | None) -> dict[float, float]:
    """A run's accuracy by strength; measured where its folder does not say it yet."""
    known = run.measured(ROBUSTNESS, images) or {}
    curve = known.get("curves", {}).get(kind, {}).get("accuracy", {})
    wanted = {f"{strength:g}": strength for strength in [0.0, *strengths]}
    if not wanted.keys() <= curve.keys():
        opened = open_run(run.folder, images=images)
        curve = noise_curves(opened, [(kind, strengths)])[kind]
    return {strength: float(curve[text]) for text, strength in wanted.items()}


def _draw(figure: Figure, kind: str, names: list[str], points: list[tuple[float, tuple[Value, ...]]]) -> None:
    (panel,) = panels(figure, 1)
    for index, name in enumerate(names):
        colour, mark = COLOURS[index % len(COLOURS)], MARKS[index % len(MARKS)]
        mine = [(x, values[index]) for x, values in points if values[index].mean is not None]
        panel.errorbar(
            [x for x, _ in mine],
            [value.mean or 0.0 for _, value in mine],
            [value.sd or 0.0 for _, value in mine],
            fmt=f"{mark}-",
            color=colour,
            capsize=3,
            label=name,
        )
        theirs = [(x, value.published) for x, value in ((x, values[index]) for x, values in points)]
        printed = [(x, y) for x, y in theirs if isinstance(y, float | int)]
        panel.plot([x for x, _ in printed], [y for _, y in printed], mark, color=colour, markerfacecolor="white")
    panel.set_xlabel(f"{kind}: {NOISES[kind].summary.partition('strength: ')[2]}")
    panel.set_ylabel("test accuracy, %")
    panel.legend()
