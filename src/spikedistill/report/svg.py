"""A few SVG primitives for charts that follow the page: its colours (light and dark), its font, its width.

Drawn by hand instead of by matplotlib because text stays text (selectable, read aloud, sharp on a phone), colours are
the page's own CSS variables, and a chart is a few kilobytes. User units are CSS pixels at the chart's natural width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

CHARACTER = 6.0
"""Width of a character of the 11 px chart font, on the generous side."""


@dataclass(frozen=True)
class Frame:
    """The plotting area of one chart and its two linear (or, for y, logarithmic) scales."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    width: float = 360
    height: float = 240
    left: float = 38
    right: float = 14
    top: float = 26
    bottom: float = 38
    log_y: bool = False

    @property
    def x_end(self) -> float:
        """Right edge of the plotting area."""
        return self.width - self.right

    @property
    def y_end(self) -> float:
        """Lower edge of the plotting area."""
        return self.height - self.bottom

    def x(self, value: float) -> float:
        """Position of a value on the x axis."""
        low, high = self.x_range
        return self.left + (value - low) / (high - low) * (self.x_end - self.left)

    def y(self, value: float) -> float:
        """Position of a value on the y axis; values at or below zero end at the lower edge of a logarithmic one."""
        low, high = self.y_range
        if self.log_y:
            low, high, value = math.log10(low), math.log10(high), math.log10(max(value, low))
        return self.y_end - (value - low) / (high - low) * (self.y_end - self.top)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About ``count`` round numbers (1, 2 or 5 times a power of ten apart) within [low, high]."""
    if high <= low:
        return [low]
    raw = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten within [low, high]; only the powers where that would be too many."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if len(exponents) <= 3 else (1,)
    marks = [factor * 10.0**exponent for exponent in exponents for factor in factors]
    return [mark for mark in marks if low * 0.999 <= mark <= high * 1.001]


def number(value: float) -> str:
    """A tick's text: no trailing zeros, thousands as k."""
    if abs(value) >= 10000:
        return f"{value / 1000:g}k"
    return f"{value:.4g}"


def text(x: float, y: float, content: str, kind: str = "", anchor: str = "start", rotate: float | None = None) -> str:
    """A line of text; ``content`` is escaped."""
    turn = "" if rotate is None else f' transform="rotate({rotate:g} {x:.1f} {y:.1f})"'
    style = f' class="{kind}"' if kind else ""
    anchored = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}"{style}{anchored}{turn}>{escape(content)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line of a CSS class."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def rect(x: float, y: float, width: float, height: float, kind: str, title: str = "", style: str = "") -> str:
    """A filled rectangle with an optional tooltip and inline style."""
    shown = f"<title>{escape(title)}</title>" if title else ""
    styled = f' style="{style}"' if style else ""
    box = f'x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{max(height, 0):.1f}"'
    return f'<rect {box} class="{kind}"{styled}>{shown}</rect>'


def circle(x: float, y: float, radius: float, kind: str, title: str = "") -> str:
    """A dot with an optional tooltip."""
    shown = f"<title>{escape(title)}</title>" if title else ""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" class="{kind}">{shown}</circle>'


def path(points: Iterable[tuple[float, float] | None], kind: str) -> str:
    """A line through the points, broken where one is None."""
    drawn, move = [], True
    for point in points:
        if point is None:
            move = True
            continue
        drawn.append(f"{'M' if move else 'L'}{point[0]:.1f} {point[1]:.1f}")
        move = False
    return f'<path d="{"".join(drawn)}" class="{kind}"/>' if drawn else ""


def area(lower: Sequence[tuple[float, float]], upper: Sequence[tuple[float, float]], kind: str) -> str:
    """The filled area between two lines that share their x values."""
    if len(lower) < 2:
        return ""
    corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in [*lower, *reversed(upper)])
    return f'<polygon points="{corners}" class="{kind}"/>'


def clipped(frame: Frame, body: str) -> str:
    """What reaches beyond the plotting area is cut off: a nested viewport needs no ids, unlike a clip path."""
    x, y, width, height = frame.left, frame.top, frame.x_end - frame.left, frame.y_end - frame.top
    box = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
    return f'<svg {box} viewBox="{x:g} {y:g} {width:g} {height:g}">{body}</svg>'


def axes(frame: Frame, x_title: str, y_title: str, x_marks: Sequence[float], y_marks: Sequence[float]) -> str:
    """Horizontal grid, tick texts and titles; the y title stands above its axis, where it reads without turning."""
    parts = [text(0, 11, y_title, "title")]
    for mark in y_marks:
        parts.append(line(frame.left, frame.y(mark), frame.x_end, frame.y(mark), "grid"))
        parts.append(text(frame.left - 6, frame.y(mark) + 3.8, number(mark), anchor="end"))
    parts.append(line(frame.left, frame.y_end, frame.x_end, frame.y_end, "axis"))
    for mark in x_marks:
        parts.append(line(frame.x(mark), frame.y_end, frame.x(mark), frame.y_end + 4, "axis"))
        parts.append(text(frame.x(mark), frame.y_end + 16, number(mark), anchor="middle"))
    parts.append(text((frame.left + frame.x_end) / 2, frame.y_end + 32, x_title, "title", "middle"))
    return "".join(parts)


def picture(width: float, height: float, body: str, description: str) -> str:
    """A whole chart that scales with its place; ``description`` is what a screen reader says."""
    head = f'viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(description)}"'
    return f'<svg {head} xmlns="http://www.w3.org/2000/svg">{body}</svg>'


def apart(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Moves positions the least that leaves ``gap`` between neighbours within [low, high] (labels at line ends)."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    placed: list[float] = []
    for index in order:
        placed.append(max(wanted[index], low if not placed else placed[-1] + gap))
    ceiling = high
    for rank in range(len(placed) - 1, -1, -1):
        placed[rank] = min(placed[rank], ceiling)
        ceiling = placed[rank] - gap
    result = [0.0] * len(wanted)
    for rank, index in enumerate(order):
        result[index] = placed[rank]
    return result


def shortened(label: str, characters: int) -> str:
    """The label, with an ellipsis in its middle where it is too long (its ends tell layers and variants apart)."""
    if len(label) <= characters:
        return label
    head = (characters - 1) // 2
    return f"{label[:head]}…{label[len(label) - (characters - 1 - head) :]}"
