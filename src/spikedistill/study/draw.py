"""How the pictures of the studies look: one place for colours, axes and the two panels of ours and theirs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikedistill.engine.checkpoint import write_durably
from spikedistill.study.base import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

COLOURS = ("#5f6670", "#c47a00", "#1b7fc4", "#2f8f46", "#8a4fc4", "#b23a6b")
"""The first is for what is compared against."""
MARKS = ("o", "s", "^", "D", "v", "P")


def save(picture: Picture, folder: Path) -> list[str]:
    """Draws a picture as SVG and PNG; returns the files' names."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#e4e4e0",
        "axes.axisbelow": True,
        "svg.fonttype": "none",
        "svg.hashsalt": "spikedistill",
        "legend.frameon": False,
    }
    names = [f"{picture.name}.svg", f"{picture.name}.png"]
    with mpl.rc_context(style):
        figure = Figure(figsize=picture.size, layout="constrained")
        picture.draw(figure)
        for name in names:
            drawn, vector = io.BytesIO(), name.endswith("svg")
            figure.savefig(drawn, format=name[-3:], dpi=160, metadata={"Date": None} if vector else None)
            write_durably(folder / name, drawn.getvalue())
    return names


def panels(figure: Figure, count: int, **settings: Any) -> list[Axes]:
    """Panels in a row."""
    found: Any = figure.subplots(1, count, squeeze=False, **settings)
    return list(found[0])


def mosaic(figure: Figure, rows: int, columns: int) -> list[list[Any]]:
    """Panels for pictures, without axes: rows of columns."""
    found: Any = figure.subplots(rows, columns, squeeze=False)
    for panel in found.flat:
        panel.set_xticks([])
        panel.set_yticks([])
        panel.grid(visible=False)
        for side in panel.spines.values():
            side.set_visible(False)
    return [list(line) for line in found]


def show(panel: Any, image: Tensor) -> None:
    """An image ``[C, H, W]`` in [0, 1] in a panel; in grey unless it has three channels."""
    if len(image) == 3:
        panel.imshow(image.permute(1, 2, 0).numpy())
    else:
        panel.imshow(image.mean(0).numpy(), cmap="gray", vmin=0.0, vmax=1.0)


def whole(panel: Axes) -> None:
    """Marks on the x axis at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    panel.xaxis.set_major_locator(MaxNLocator(integer=True))


def legend(figure: Figure) -> None:
    """One legend below all panels, each name once."""
    found = {}
    for panel in figure.axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if len(found) > 1:
        figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=min(len(found), 5))


def place(index: int, count: int, width: float = 0.5) -> float:
    """Where one of several marks of a category stands beside the others, about zero."""
    return 0.0 if count < 2 else width * (index / (count - 1) - 0.5)


def categories(panel: Axes, names: Sequence[str], title: str, rotate_from: int = 34) -> None:
    """Names on the x axis, turned where they would run into each other."""
    steep = sum(map(len, names)) > rotate_from
    panel.set_xticks(range(len(names)), names, rotation=30 if steep else 0, ha="right" if steep else "center")
    panel.set_xlim(-0.6, len(names) - 0.4)
    panel.set_title(title, loc="left", fontsize=10)
    panel.grid(visible=False, axis="x")
