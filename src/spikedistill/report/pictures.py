"""Charts of images: the spikes one image causes, layer by layer, the image itself, and the confusion matrix."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

from spikedistill.report import svg

_MATRIX = 320.0
_COUNTS_UP_TO = 20
MATRIX_UP_TO = 100
"""More classes than this are not drawn as a matrix; the most frequent confusions are listed instead."""


def image_uri(image: list[list[list[int]]]) -> str:
    """A PNG data URI of an image [H][W][C] in 0..255; two channels (event polarities) are shown as red and green."""
    import numpy as np
    from PIL import Image

    pixels = np.asarray(image, dtype=np.uint8)
    if pixels.shape[2] == 2:
        pixels = np.concatenate([pixels, np.zeros_like(pixels[:, :, :1])], axis=2)
    encoded = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(encoded, "PNG")
    return "data:image/png;base64," + base64.b64encode(encoded.getvalue()).decode()


def raster(layer: str, spikes: list[list[int]], first: bool) -> str:
    """The spikes of one layer: a row a neuron, a column a timestep, a filled mark a spike.

    Args:
        layer: its name, below the picture.
        spikes: [neurons][T] of 0 and 1.
        first: whether it stands leftmost and carries the name of the y axis.
    """
    neurons, steps = len(spikes), len(spikes[0]) if spikes else 0
    if not steps:
        return ""
    across, down = max(3.0, min(16.0, 240 / steps)), 5.0
    left = 16.0 if first else 2.0
    width, height = left + across * steps + 2, down * neurons + 32
    parts = [svg.rect(left, 1, across * steps, down * neurons, "ground")]
    for neuron, row in enumerate(spikes):
        for step, fired in enumerate(row):
            if fired:
                parts.append(
                    svg.rect(left + across * step + 1, 1 + down * neuron + 0.7, across - 2, down - 1.4, "spike")
                )
    every = 1 if across >= 12 else max(1, round(24 / across))
    for step in range(0, steps, every):
        parts.append(svg.text(left + across * (step + 0.5), down * neurons + 14, str(step + 1), anchor="middle"))
    title = "timestep" if across * steps > 48 else "t"
    parts.append(svg.text(left + across * steps / 2, down * neurons + 28, title, "title", "middle"))
    if first:
        parts.append(svg.text(10, 1 + down * neurons / 2, f"{neurons} neurons", "title", "middle", rotate=-90))
    fired = sum(map(sum, spikes))
    description = f"Spikes of {layer}: {fired} of {neurons * steps} possible"
    drawn = svg.picture(width, height, "".join(parts), description)
    sized = drawn.replace("<svg ", f'<svg width="{width:g}" height="{height:g}" ', 1)
    name = escape(layer).replace(".", ".<wbr>")
    caption = f"<b>{name}</b> {100 * fired / (neurons * steps):.0f}&thinsp;% fired"
    return f'<figure class="layer">{sized}<figcaption>{caption}</figcaption></figure>'


def confusion(matrix: list[list[int]], classes: Sequence[str]) -> str:
    """The confusion matrix: recall along the diagonal, mistakes in a second colour on their own, stronger scale."""
    size = len(matrix)
    longest = max(len(svg.shortened(name, 11)) for name in classes) * svg.CHARACTER
    steep = longest > _MATRIX / size
    left, top = longest + 24, (longest if steep else 14) + 24
    cell = (_MATRIX + 40 - left - 2) / size
    every = max(1, round(12 / cell))
    worst = max((matrix[i][j] for i in range(size) for j in range(size) if i != j), default=0) or 1
    parts = [
        svg.text(left + cell * size / 2, 11, "predicted", "title", "middle"),
        svg.text(11, top + cell * size / 2, "true", "title", "middle", rotate=-90),
        svg.rect(left, top, cell * size, cell * size, "ground"),
    ]
    for index, name in enumerate(classes):
        if index % every == 0:
            middle, label = (index + 0.5) * cell, svg.shortened(name, 11)
            parts.append(svg.text(left - 6, top + middle + 3.8, label, anchor="end"))
            anchor, turn = ("start", -90.0) if steep else ("middle", None)
            parts.append(svg.text(left + middle + (3.8 if steep else 0), top - 6, label, "", anchor, turn))
    shades: dict[str, list[str]] = {}
    for i, row in enumerate(matrix):
        for j, count in enumerate(row):
            if count <= 0:  # a file that somebody wrote may hold less than nothing
                continue
            x, y = left + j * cell, top + i * cell
            share = count / (sum(row) if i == j else worst)
            # Powers: a recall of 90 % must look worse than one of 100 %, a single mistake must not vanish.
            strength = 0.08 + 0.92 * (share**3 if i == j else share**0.5)
            shade = f'class="{"right" if i == j else "wrong"}" fill-opacity="{round(strength, 1):g}"'
            if size > _COUNTS_UP_TO:
                shades.setdefault(shade, []).append(f"M{x:.1f} {y:.1f}h{cell:.1f}v{cell:.1f}h-{cell:.1f}z")
            else:
                what = f"{count} of class {classes[i]} " + ("right" if i == j else f"taken for {classes[j]}")
                parts.append(_cell(x, y, cell, shade, what))
                over = "count over" if strength > 0.75 else "count"
                parts.append(svg.text(x + cell / 2, y + cell / 2 + 3.5, svg.number(count), over, "middle"))
    parts += [f'<path {shade} d="{"".join(cells)}"/>' for shade, cells in shades.items()]
    right = sum(matrix[index][index] for index in range(size))
    description = f"Confusion matrix of {size} classes: {right} of {sum(map(sum, matrix))} images right"
    return svg.picture(left + cell * size + 2, top + cell * size + 2, "".join(parts), description)


def _cell(x: float, y: float, side: float, shade: str, title: str) -> str:
    box = f'x="{x + 0.75:.1f}" y="{y + 0.75:.1f}" width="{side - 1.5:.1f}" height="{side - 1.5:.1f}"'
    return f"<rect {box} {shade}><title>{escape(title)}</title></rect>"


def confusions(matrix: list[list[int]], classes: Sequence[str], most: int = 5) -> list[tuple[str, str, int]]:
    """The most frequent mistakes as (true class, predicted class, count), most frequent first."""
    wrong = [(count, i, j) for i, row in enumerate(matrix) for j, count in enumerate(row) if i != j and count]
    wrong.sort(key=lambda entry: (-entry[0], entry[1], entry[2]))
    return [(classes[i], classes[j], count) for count, i, j in wrong[:most]]
