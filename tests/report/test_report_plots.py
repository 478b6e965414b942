"""Scales, ticks, labels and colours of the charts."""

from __future__ import annotations

import itertools
import re
from importlib.resources import files

import numpy as np
import pytest

from spikedistill.report import plots, svg
from spikedistill.report.groups import Spread
from spikedistill.report.pictures import confusions, image_uri
from spikedistill.report.plots import Axis, Series


def series(label: str, *means: float) -> Series:
    return Series(label, "c1", [(float(x), Spread(1, mean, None)) for x, mean in enumerate(means, 1)])


def test_the_scales_map_the_range_onto_the_plotting_area():
    frame = svg.Frame((0, 10), (50, 100), width=300, height=200, left=40, right=10, top=20, bottom=30)
    assert (frame.x(0), frame.x(10), frame.x(5)) == (40, 290, 165)
    assert (frame.y(50), frame.y(100), frame.y(75)) == (170, 20, 95)
    log = svg.Frame((0, 1), (0.01, 100), height=200, top=20, bottom=30, log_y=True)
    assert log.y(1) == pytest.approx(95) and log.y(0) == 170


def test_ticks_are_round_and_inside():
    assert svg.ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert svg.ticks(96.13, 98.4, 4) == [97, 98]
    assert svg.ticks(0.0, 0.3, 3) == [0, 0.1, 0.2, 0.3]
    assert svg.ticks(5, 5) == [5]
    assert svg.log_ticks(0.01, 10) == pytest.approx([0.01, 0.1, 1, 10])


def test_labels_keep_their_distance_and_their_order():
    placed = svg.apart([50, 51, 52, 10], gap=13, low=0, high=70)
    assert placed == [*sorted(placed[:3]), 10]
    assert min(b - a for a, b in itertools.pairwise(sorted(placed))) >= 13 and max(placed) <= 70
    assert svg.apart([5, 40], 13, 0, 70) == [5, 40]


def test_long_names_lose_their_middle():
    assert svg.shortened("stage1.block2.relu1", 13) == "stage1….relu1"
    assert svg.shortened("relu1", 15) == "relu1"


def test_a_chart_of_few_lines_is_one_and_of_many_is_panels():
    axis = Axis("epoch", "accuracy, %", (0, 100))
    few, many = ([series(f"m{index}", 50, 60) for index in range(count)] for count in (6, 7))
    assert len(plots.line_charts(few, axis)) == 1 and len(plots.line_charts(many, axis)) == 7
    assert plots.line_charts([series("empty")], axis) == []


def test_the_accuracy_range_shows_the_end_not_the_start():
    low, high = plots.level_range([series("a", 10, 80, 95, 96, 96.5)], skip=0.4)
    assert 90 < low < 95 and 96.5 < high <= 100
    assert plots.level_range([series("a", 99.9, 100.0)])[1] == 100.0


def test_losses_over_decades_get_a_logarithmic_axis():
    assert plots.loss_axis([series("a", 100.0, 1.0)], "loss").log_y
    assert not plots.loss_axis([series("a", 3.0, 1.0)], "loss").log_y
    assert not plots.loss_axis([series("a", 3.0, 0.0)], "loss").log_y


def test_bars_are_as_long_as_their_rates():
    drawn = plots.firing_bars({"a": Spread(1, 0.2, None), "b": Spread(1, 0.1, None)}, "c1", 0.25, {}, "x")
    first, second = (float(width) for width in re.findall(r'width="([\d.]+)" height="[\d.]+" class="bar', drawn))
    assert first == pytest.approx(2 * second, abs=0.1)


def test_the_most_frequent_mistakes_come_first():
    assert confusions([[9, 1, 0], [4, 5, 0], [1, 0, 8]], "abc", most=2) == [("b", "a", 4), ("a", "b", 1)]


def test_an_image_survives_its_encoding():
    import base64
    import io

    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3))
    with Image.open(io.BytesIO(base64.b64decode(image_uri(pixels.tolist()).split(",")[1]))) as image:
        assert (np.asarray(image) == pixels).all()


# Colours: sRGB to linear light, the simulation of dichromacy by Machado et al. 2009 (severity 1), distance in OKLab.
SIGHT = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
TO_CONES = [[0.41222, 0.53633, 0.05145], [0.2119, 0.6807, 0.1074], [0.0883, 0.28172, 0.62998]]
TO_OKLAB = [[0.21045, 0.79362, -0.00407], [1.978, -2.42859, 0.45059], [0.0259, 0.78277, -0.80868]]


def linear(colour: str) -> np.ndarray:
    channels = np.array([int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def oklab(light: np.ndarray) -> np.ndarray:
    return np.array(TO_OKLAB) @ np.cbrt(np.array(TO_CONES) @ np.clip(light, 0, 1))


def contrast(first: str, second: str) -> float:
    dark, bright = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (first, second))
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_the_colours_stay_apart_for_every_kind_of_sight(theme):
    css = (files("spikedistill.report") / "page.css").read_text(encoding="utf-8")
    named = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", css.split("@media")[theme]))
    lines = [named[f"c{index}"] for index in range(7)]
    assert all(contrast(colour, named["paper"]) >= 3 for colour in lines)
    assert all(contrast(named[name], named["paper"]) >= 4.5 for name in ("ink", "soft"))
    for matrix in SIGHT.values():
        seen = [oklab(np.array(matrix) @ linear(colour)) for colour in lines]
        assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 0.085
