"""Accuracy against the number of timesteps, from 1 to twice T, and early exit by confidence.

Options: ``images`` (how many test images), ``loss`` (points of accuracy that early exit may cost, 0.5 unless given).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from spikedistill.evalrun import LATENCY, latency_of, open_run
from spikedistill.runfolder import read_json
from spikedistill.study.base import Done, Finding, Picture, Table, Value, by_label
from spikedistill.study.draw import COLOURS, panels, whole
from spikedistill.sweep import Planned

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def latency(runs: list[Done], planned: list[Planned], options: Mapping[str, Any]) -> Finding:
    """The study."""
    spiking = [run for run in runs if run.summary["timesteps"]]
    found = {run.folder: measured(run, options.get("images")) for run in spiking}
    allowed = float(options.get("loss", 0.5))
    done = by_label(spiking)
    names = {one.cell.label: one.cell.row for one in planned if one.cell.row}
    steps = sorted({int(step) for content in found.values() for step in content["accuracy"]})
    rows, exits = [], []
    for label, row in names.items():
        mine = [found[run.folder] for run in done.get(label, [])]
        if not mine:
            continue
        after = [{int(step): value for step, value in one["accuracy"].items()} for one in mine]
        rows.append((row, tuple(Value(tuple(one[step] for one in after if step in one)) for step in steps)))
        chosen = [_cheapest(one, allowed) for one in mine]
        exits.append(
            (
                row,
                (
                    Value(tuple(one["accuracy"] for one in chosen)),
                    Value(tuple(one["timesteps"] for one in chosen)),
                    Value(tuple(one["confidence"] for one in chosen), digits=3),
                ),
            )
        )
    heads = tuple(f"T={step}" for step in steps)
    tables = (
        Table("Accuracy of one trained network by the timesteps it is run, %", "", heads, tuple(rows)),
        Table(
            f"Early exit that costs at most {allowed:g} points",
            "",
            ("accuracy, %", "timesteps on average", "confidence"),
            tuple(exits),
            ("the confidence is picked on the test images, so the last table is an upper bound",),
        ),
    )

    def draw(figure: Figure) -> None:
        _draw(figure, names, done, found)

    caption = (
        "Left: read out after every timestep, dotted: T in training. Right: each image stops once it is confident."
    )
    return Finding(tables, (Picture("latency", caption, draw),))


def measured(run: Done, images: int | None) -> dict[str, Any]:
    """A run's ``latency.json``; measured where it is not there yet, or was with another T or on other images."""
    known = run.measured(LATENCY, images)
    if known is None:
        latency_of(open_run(run.folder, images=images))
        known = read_json(run.folder / LATENCY)
    return known


def _cheapest(content: Mapping[str, Any], allowed: float) -> dict[str, Any]:
    """The exit with the fewest timesteps that costs at most so many points against running all of them."""
    full = content["accuracy"][str(content["timesteps"])]
    good = [one for one in content["exits"] if one["accuracy"] >= full - allowed]
    return min(good, key=lambda one: one["timesteps"])


def _draw(
    figure: Figure, names: Mapping[str, str], done: Mapping[str, list[Done]], found: Mapping[Any, dict[str, Any]]
) -> None:
    left, right = panels(figure, 2, sharey=True)
    for index, (label, row) in enumerate(names.items()):
        mine = [found[run.folder] for run in done.get(label, [])]
        if not mine:
            continue
        colour = COLOURS[index % len(COLOURS)]
        by_steps = [list(one["accuracy"].values()) for one in mine]
        mean = [sum(values) / len(values) for values in zip(*by_steps, strict=True)]
        left.plot(range(1, len(mean) + 1), mean, "o-", color=colour, label=row)
        left.axvline(mine[0]["timesteps"], color="#888888", linestyle=":", linewidth=1)
        levels = [[(one["timesteps"], one["accuracy"]) for one in content["exits"]] for content in mine]
        points = [
            tuple(sum(axis) / len(axis) for axis in zip(*level, strict=True)) for level in zip(*levels, strict=True)
        ]
        right.plot([x for x, _ in points], [y for _, y in points], "o-", color=colour, markersize=3, label=row)
    left.set_xlabel("timesteps run")
    whole(left)
    right.set_xlabel("timesteps used on average")
    left.set_ylabel("test accuracy, %")
    left.legend()
