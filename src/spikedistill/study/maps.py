"""The pictures of what networks see: maps of channels, Grad-CAM over the images, CKA and membrane potentials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from spikedistill.evaluation.membranes import Potentials
from spikedistill.study.draw import COLOURS, mosaic, show

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LAYERS = 4
"""Layers whose potentials are drawn: the first, the last, and some between."""


def channels(figure: Figure, image: Tensor, networks: Sequence[tuple[str, Tensor]]) -> None:
    """The image at the left, then each network's channels in a row, all on one scale per network."""
    count = max(len(maps) for _, maps in networks)
    axes = mosaic(figure, len(networks), count + 1)
    for line, (name, maps) in zip(axes, networks, strict=True):
        show(line[0], image)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
        limit = float(maps.max()) or 1.0
        for panel, channel in zip(line[1:], maps, strict=False):
            panel.imshow(channel.numpy(), cmap="magma", vmin=0.0, vmax=limit)


def evidence(figure: Figure, images: Tensor, networks: Sequence[tuple[str, Tensor, list[tuple[bool, str]]]]) -> None:
    """The images in the first row, and below them each network's evidence laid over them."""
    axes = mosaic(figure, len(networks) + 1, len(images))
    for panel, image in zip(axes[0], images, strict=True):
        show(panel, image)
    axes[0][0].set_ylabel("image", rotation=0, ha="right", va="center")
    for line, (name, maps, right) in zip(axes[1:], networks, strict=True):
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
        for panel, image, heat, (correct, answer) in zip(line, images, maps, right, strict=False):
            panel.imshow(image.mean(0).numpy(), cmap="gray", vmin=0.0, vmax=1.0)
            panel.imshow(heat.numpy(), cmap="inferno", alpha=0.6, vmin=0.0, vmax=1.0)
            panel.set_xlabel(answer, color="#222222" if correct else "#c0392b", labelpad=2, fontsize=8)


def similarity(
    figure: Figure, reference: str, stages: Sequence[str], networks: Sequence[tuple[str, list[list[float]]]]
) -> None:
    """One matrix a network, each cell with its figure."""
    found: Any = figure.subplots(1, len(networks), squeeze=False)
    for number, (panel, (name, matrix)) in enumerate(zip(found[0], networks, strict=True)):
        panel.imshow(matrix, cmap="viridis", vmin=0.0, vmax=1.0)
        for row, values in enumerate(matrix):
            for column, value in enumerate(values):
                shade = "black" if value > 0.6 else "white"
                panel.text(column, row, f"{value:.2f}", ha="center", va="center", color=shade, fontsize=8)
        ticks = [f"stage{index + 1}" for index in range(len(matrix[0]))]
        panel.set_xticks(range(len(ticks)), ticks)
        panel.set_yticks(range(len(stages)), stages)
        panel.set_xlabel(name)
        if number == 0:
            panel.set_ylabel(reference)
        panel.grid(visible=False)


def membranes(figure: Figure, networks: Sequence[tuple[str, Mapping[str, Potentials]]]) -> None:
    """A row a network, a panel a layer: the histogram with the surrogate's derivative over it."""
    layers = [_some(list(potentials)) for _, potentials in networks]
    found: Any = figure.subplots(len(networks), max(map(len, layers)), squeeze=False)
    for number, ((name, potentials), paths, line) in enumerate(zip(networks, layers, found, strict=True)):
        for panel, path in zip(line, paths, strict=False):
            _histogram(panel, potentials[path], COLOURS[1 + number % (len(COLOURS) - 1)])
            panel.set_title(f"{path}: {100 * potentials[path].inside:.0f} % inside", fontsize=8, loc="left")
        for panel in line[len(paths) :]:
            panel.set_axis_off()
        line[0].set_ylabel(name)
        if number == len(networks) - 1:
            for panel in line:
                panel.set_xlabel("membrane potential")


def _some(paths: list[str]) -> list[str]:
    if len(paths) <= LAYERS:
        return paths
    return [paths[round(index * (len(paths) - 1) / (LAYERS - 1))] for index in range(LAYERS)]


def _histogram(panel: Axes, one: Potentials, colour: str) -> None:
    panel.stairs(one.density, one.edges, fill=True, color="#b9bcc2")
    middles = [(low + high) / 2 for low, high in zip(one.edges, one.edges[1:], strict=False)]
    # The outermost bins hold all that lies beyond; a layer far off would make the rest invisible.
    highest = max(one.density[1:-1]) or max(one.density)
    scale = highest / (max(one.derivative) or 1.0)
    panel.fill_between(middles, [scale * value for value in one.derivative], color=colour, alpha=0.25, linewidth=0)
    panel.plot(middles, [scale * value for value in one.derivative], color=colour)
    panel.axvline(one.threshold, color="#222222", linewidth=1)
    panel.set_yticks([])
    panel.set_ylim(0.0, 1.25 * highest)
