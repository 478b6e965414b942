"""How many epochs each way of training needs to pass a given accuracy (IDSNN section 4.4, table 4, figure 5).

Accuracies are those of the held-out part of the training images, epoch by epoch; the test images are looked at once,
after the last epoch. Options: ``baseline`` (label of the run whose accuracies the others are to pass), ``shares`` (of
its best accuracy), ``epochs`` and ``speedup`` (published ones by label: the epoch of the best accuracy, the factor).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from spikedistill.errors import UserError
from spikedistill.report.quantities import EMPTY
from spikedistill.study.base import Done, Finding, Picture, Table, Value, accuracies, by_label
from spikedistill.study.draw import COLOURS, legend, panels, whole
from spikedistill.sweep import Planned

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HELD_OUT = "validation_accuracy"
SHARES = (0.9, 0.95, 1.0)


def convergence(runs: list[Done], planned: list[Planned], options: Mapping[str, Any]) -> Finding:
    """The study."""
    curves = {run.folder: _curve(run) for run in runs}
    done = by_label(runs)
    baseline = str(options["baseline"])
    shares = tuple(float(share) for share in options.get("shares", SHARES))
    targets = {run.planned.seed: max(curves[run.folder]) for run in done.get(baseline, [])}
    rows = dict.fromkeys((one.cell.row, one.cell.column, one.cell.label) for one in planned if one.cell.row)
    printed = dict(options.get("epochs", {}))
    best, speed = [], []
    for row, column, label in rows:
        mine = done.get(label, [])
        published = next((one.published for one in planned if one.cell.label == label), None)
        tops = [max(curves[run.folder]) for run in mine]
        at = [curves[run.folder].index(top) + 1 for run, top in zip(mine, tops, strict=True)]
        name = f"{row}, {column}"
        best.append(
            (name, (Value(tuple(tops), published), Value(tuple(at), printed.get(label), 0), Value(accuracies(mine))))
        )
        speed.append((name, _passes(mine, curves, targets, shares, done.get(baseline, []), options, label)))
    heads = (*(f"{share:.0%} of it" for share in shares), "times fewer epochs")
    reference = Value(tuple(targets.values())).ours()
    tables = (
        Table("Best accuracy on held-out images, %", "", ("best", "at epoch", "test images, last epoch"), tuple(best)),
        Table(
            f"Epochs until the held-out accuracy passes the plain SNN's best ({reference} %)",
            "",
            heads,
            tuple(speed),
            (
                "times fewer epochs: the epoch at which the plain SNN was best, divided by the first that is "
                "as good, seed by seed",
                "the paper takes both epochs from the test images",
            ),
        ),
    )

    def draw(figure: Figure) -> None:
        _draw(figure, planned, done, curves, targets)

    caption = (
        "Accuracy on held-out images after each epoch, mean over seeds. Dashed: the best that the plain SNN reaches."
    )
    return Finding(tables, (Picture("convergence", caption, draw, (10.5, 3.6)),))


def _curve(run: Done) -> list[float]:
    found = [value for value in run.metrics.get(HELD_OUT, []) if value is not None]
    if not found and run.planned.cell.row:
        raise UserError(f"run '{run.label}' held out no images; a convergence experiment needs data.validation above 0")
    return found


def _passes(
    mine: list[Done],
    curves: Mapping[Any, list[float]],
    targets: Mapping[int, float],
    shares: tuple[float, ...],
    baseline: list[Done],
    options: Mapping[str, Any],
    label: str,
) -> tuple[Value | str, ...]:
    """The first epoch that is as good as each share of the target, and how many times fewer the whole target takes."""
    cells: list[Value | str] = []
    mine = [run for run in mine if run.planned.seed in targets]
    if not mine:  # nothing to be as good as
        return (EMPTY,) * (len(shares) + 1)
    for share in shares:
        epochs = [_first(curves[run.folder], share * targets[run.planned.seed]) for run in mine]
        reached = tuple(float(epoch) for epoch in epochs if epoch)
        if epochs and len(reached) < len(epochs):
            cells.append(
                f"{len(reached)} of {len(epochs)} seeds" if reached else f"not in {len(curves[mine[0].folder])}"
            )
        else:
            cells.append(Value(reached, digits=0))
    own = {run.planned.seed: _first(curves[run.folder], targets[run.planned.seed]) for run in mine}
    slow = {run.planned.seed: _first(curves[run.folder], targets[run.planned.seed]) for run in baseline}
    factors = [(slow.get(seed) or 0) / epoch for seed, epoch in own.items() if epoch and slow.get(seed)]
    published = dict(options.get("speedup", {})).get(label)
    complete = len(factors) == len(mine)
    cells.append(Value(tuple(factors), published, 1) if complete else Value((), published, 1) if published else EMPTY)
    return tuple(cells)


def _first(curve: list[float], level: float) -> int | None:
    """The first epoch, counted from 1, at which a curve is at least at a level."""
    return next((epoch for epoch, value in enumerate(curve, 1) if value >= level), None)


def _draw(
    figure: Figure,
    planned: list[Planned],
    done: Mapping[str, list[Done]],
    curves: Mapping[Any, list[float]],
    targets: Mapping[int, float],
) -> None:
    columns = list(dict.fromkeys(one.cell.column for one in planned if one.cell.row))
    rows = list(dict.fromkeys(one.cell.row for one in planned if one.cell.row))
    for panel, column in zip(panels(figure, len(columns), sharey=True), columns, strict=True):
        for label, row in dict.fromkeys((one.cell.label, one.cell.row) for one in planned if one.cell.column == column):
            found = [curves[run.folder] for run in done.get(label, [])]
            if not found:
                continue
            mean = [sum(values) / len(values) for values in zip(*found, strict=False)]
            panel.plot(range(1, len(mean) + 1), mean, color=COLOURS[rows.index(row) % len(COLOURS)], label=row)
        if targets:
            panel.axhline(sum(targets.values()) / len(targets), color="#222222", linestyle="--", linewidth=1)
        panel.set_title(column, loc="left", fontsize=10)
        panel.set_xlabel("epoch")
        whole(panel)
    figure.axes[0].set_ylabel("held-out accuracy, %")
    legend(figure)
