"""Charts of energy: networks below each other, and the layers of one network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from spikedistill.report import svg
from spikedistill.report.quantities import joules, scale

SPIKES = "spikes"
"""What a layer takes that only adds; any other input is multiplied."""


def stacked(networks: Sequence[tuple[str, str, float, tuple[float, float]]]) -> str:
    """Energy of an image: computation, and behind it the range of what moving data costs.

    Args:
        networks: name, colour class, energy of computation, and of moving data with the cheapest and the dearest
            memory, all in pJ.
    """
    highest = max(computation + high for _, _, computation, (_, high) in networks) or 1.0
    unit, size = scale(highest)
    height = 40.0 * len(networks) + 66
    frame = svg.Frame((0, 1.04 * highest / size), (0, 1), height=height, left=8, right=14, top=24, bottom=40)
    parts = _scale(frame, f"energy of an image, {unit}")
    parts.append(
        svg.text(frame.left, 12, "solid: computation; pale: moving data, from the cheapest memory to", "title")
    )
    parts.append(svg.text(frame.left, 23, "the dearest (line)", "title"))
    for index, (name, colour, computation, (low, high)) in enumerate(networks):
        y = frame.top + 18 + 40 * index
        at = [frame.x(value / size) for value in (0, computation, computation + low, computation + high)]
        shown = f"{name}: computation {joules(computation)}, moving data {joules(low)} to {joules(high)}"
        parts.append(svg.text(frame.left, y, svg.shortened(name, 46), f"name halo {colour}"))
        parts.append(svg.rect(at[0], y + 6, at[1] - at[0], 11, f"bar {colour}", shown))
        parts.append(svg.rect(at[1], y + 6, at[2] - at[1], 11, f"bar pale {colour}", shown))
        parts.append(svg.line(at[2], y + 11.5, at[3], y + 11.5, f"whisker {colour}"))
        parts.append(svg.line(at[3], y + 7, at[3], y + 16, f"whisker {colour}"))
    words = "; ".join(f"{name} {joules(computation)}" for name, _, computation, _ in networks)
    return svg.picture(frame.width, height, "".join(parts), f"Energy of computation of an image: {words}")


def by_layer(layers: Mapping[str, float], takes: Mapping[str, str], colour: str, label: str) -> str:
    """Energy of computation of each layer, first layer on top; grey where it multiplies.

    Args:
        layers: name to pJ.
        takes: name to the kind of its input.
        colour: CSS class of the bars.
        label: whose layers these are.

    Returns:
        SVG; nothing where there are no layers.
    """
    if not layers:
        return ""
    unit, size = scale(max(layers.values()) or 1.0)
    pitch = min(22.0, max(5.0, 640.0 / len(layers)))
    every = math.ceil(12 / pitch)
    left = min(max(len(svg.shortened(name, 20)) for name in layers) * svg.CHARACTER + 8, 128)
    height = pitch * len(layers) + 74
    limit = 1.05 * (max(layers.values()) / size or 1.0)
    frame = svg.Frame((0, limit), (0, 1), width=360, height=height, left=left, right=70, top=34, bottom=40)
    parts = [svg.text(0, 12, svg.shortened(label, 50), f"name {colour}")]
    parts.append(svg.text(0, 26, "colour: only adds (spikes come in); grey: multiplies", "title"))
    parts += _scale(frame, f"computation, {unit}")
    for index, (name, energy) in enumerate(layers.items()):
        y = frame.top + pitch * index
        adds = takes.get(name) == SPIKES
        width = frame.x(energy / size) - left
        shown = f"{name}, takes {takes.get(name, '?')}: {joules(energy)}"
        parts.append(svg.rect(left, y + 0.14 * pitch, width, 0.72 * pitch, f"bar {colour if adds else 'c0'}", shown))
        if index % every == 0:
            parts.append(svg.text(left - 6, y + pitch / 2 + 3.8, svg.shortened(name, 20), anchor="end"))
            told = f"{energy / size:.3g}" + ("" if adds else f" {takes.get(name, '')}")
            parts.append(svg.text(left + width + 5, y + pitch / 2 + 3.8, told, "value"))
    words = "; ".join(f"{name} {joules(energy)}" for name, energy in layers.items())
    return svg.picture(frame.width, height, "".join(parts), f"Energy of computation by layer of {label}: {words}")


def _scale(frame: svg.Frame, title: str) -> list[str]:
    parts = [svg.line(frame.left, frame.y_end, frame.x_end, frame.y_end, "axis")]
    for mark in svg.ticks(*frame.x_range, 4):
        parts.append(svg.line(frame.x(mark), frame.top, frame.x(mark), frame.y_end, "grid"))
        parts.append(svg.text(frame.x(mark), frame.y_end + 15, svg.number(mark), anchor="middle"))
    parts.append(svg.text((frame.left + frame.x_end) / 2, frame.y_end + 32, title, "title", "middle"))
    return parts
