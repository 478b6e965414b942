"""The parallel coordinates of SAKD's figure 3: every subnet a line through its choices to its accuracy."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikedistill.engine.checkpoint import write_durably
from spikedistill.models.subnets import Space, Subnet
from spikedistill.search.bayes import Trial
from spikedistill.search.measure import Measured
from spikedistill.search.space import BLOCKS, CHANNELS, coordinates, dimensions

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RED, INK, PALE, DARK = "#d62728", "#444444", 0.15, 1.0
SPREAD = 0.07
"""Share of an axis over which lines through the same choice are fanned out, the better ones above."""


def draw(trials: Sequence[Trial], reference: tuple[Subnet, Measured], space: Space, path: Path) -> None:
    """Draws a search: channels in the left panel, blocks in the right, accuracy on each one's rightmost axis.

    The darker a line the better the subnet. The red line is the teacher's architecture.

    Args:
        trials: the subnets and their accuracies.
        reference: the teacher's architecture and its accuracy.
        space: what there was to choose from.
        path: the file to write; its suffix says of which kind (``.png``, ``.svg``, ``.pdf``).
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    panels: Any = figure.subplots(1, 2)
    values = [trial.measured.accuracy for trial in trials] + [reference[1].accuracy]
    low, high = min(values), max(values)
    limits = (low, high) if high > low else (low - 0.5, high + 0.5)
    for panel, kind, title in zip(panels, (CHANNELS, BLOCKS), ("Channels", "Number of blocks"), strict=True):
        names = [name for name in dimensions(space) if name.startswith(kind)]
        _frame(panel, [dimensions(space)[name] for name in names], limits, title)
        _lines(panel, trials, names, space, limits)
        _line(panel, _heights(*reference, names, space, limits), color=RED, linewidth=2.0, zorder=3)
    figure.legend(
        handles=[
            panels[0].plot([], [], color=_blue(1.0), label="a subnet; the darker, the more accurate")[0],
            panels[0].plot([], [], color=RED, linewidth=2.0, label=f"the teacher's architecture, {reference[0]}")[0],
        ],
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=9,
    )
    drawn = io.BytesIO()
    figure.savefig(drawn, format=path.suffix.removeprefix("."), dpi=160)
    write_durably(path, drawn.getvalue())


def _frame(panel: Axes, choices: Sequence[Sequence[int]], limits: tuple[float, float], title: str) -> None:
    """The axes, their choices and the accuracy's scale."""
    last = len(choices)
    panel.set(xlim=(-0.3, last + 0.3), ylim=(-0.06, 1.06), xticks=range(last + 1), yticks=[], title=title)
    panel.set_xticklabels([f"stage {stage}" for stage in range(1, last + 1)] + ["validation\naccuracy, %"])
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
    for x in range(last + 1):
        beyond = SPREAD / 2 if x < last else 0.0
        panel.plot([x, x], [-beyond, 1.0 + beyond], color=INK, linewidth=0.8, zorder=2)
    for x, options in enumerate(choices):
        for option in options:
            _label(panel, x, _height(option, options), str(option), "right")
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        _label(panel, last, share, f"{limits[0] + share * (limits[1] - limits[0]):.1f}", "left")


def _label(panel: Axes, x: float, y: float, text: str, side: str) -> None:
    shift = -4 if side == "right" else 4
    panel.annotate(
        text,
        (x, y),
        xytext=(shift, 0),
        textcoords="offset points",
        ha="right" if side == "right" else "left",
        va="center",
        fontsize=8,
        color=INK,
        zorder=4,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6},
    )


def _lines(
    panel: Axes, trials: Sequence[Trial], names: Sequence[str], space: Space, limits: tuple[float, float]
) -> None:
    """All trials, the best ones on top."""
    ordered = sorted(trials, key=lambda trial: trial.measured.accuracy)
    for rank, trial in enumerate(ordered):
        place = rank / max(len(ordered) - 1, 1)
        heights = _heights(trial.subnet, trial.measured, names, space, limits)
        heights[:-1] = [height + SPREAD * (place - 0.5) for height in heights[:-1]]
        share = (trial.measured.accuracy - limits[0]) / (limits[1] - limits[0])
        _line(panel, heights, color=_blue(share), linewidth=0.9, alpha=0.8, zorder=1)


def _line(panel: Axes, heights: Sequence[float], **style: Any) -> None:
    panel.plot(range(len(heights)), heights, solid_joinstyle="round", **style)


def _heights(
    subnet: Subnet, measured: Measured, names: Sequence[str], space: Space, limits: tuple[float, float]
) -> list[float]:
    """Where a line crosses the axes, from 0 to 1."""
    place, choices = coordinates(subnet), dimensions(space)
    heights = [_height(place[name], choices[name]) for name in names]
    return [*heights, (measured.accuracy - limits[0]) / (limits[1] - limits[0])]


def _height(value: float, options: Sequence[int]) -> float:
    return (value - options[0]) / (options[-1] - options[0])


def _blue(share: float) -> Any:
    """From pale to dark blue."""
    import matplotlib

    return matplotlib.colormaps["Blues"](PALE + (DARK - PALE) * share)
