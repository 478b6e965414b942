"""Slices and zero padding as layers: NIR has no nodes for them, but a convolution of zeros and ones is one.

A selection is, for each dimension, an array that says where each place of the result comes from, -1 for zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Selection = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Tap:
    """A convolution's geometry along one dimension, with a single weight that is not zero."""

    kernel: int
    place: int
    stride: int
    padding: int


def everything(shape: tuple[int, ...]) -> Selection:
    """The selection that leaves a tensor as it is."""
    return tuple(np.arange(size) for size in shape)


def selected(selection: Selection, dim: int, index: np.ndarray) -> Selection:
    """A selection of a selection, along one dimension."""
    taken = np.where(index >= 0, selection[dim][np.maximum(index, 0)], -1)
    return (*selection[:dim], taken, *selection[dim + 1 :])


def sliced(size: int, start: int | None, end: int | None, step: int) -> np.ndarray:
    """The places that Python's slice takes of ``size``."""
    return np.arange(size)[slice(start, end, step)]


def padded(size: int, before: int, after: int) -> np.ndarray:
    """``size`` places between zeros; negative numbers cut off."""
    return np.array([i if 0 <= i < size else -1 for i in range(-before, size + after)], dtype=int)


def tap(size: int, index: np.ndarray) -> Tap | None:
    """The convolution of ``size`` places that gives ``index``, None if there is none."""
    taken = np.flatnonzero(index >= 0)
    if not len(taken):
        return None
    first = int(taken[0])
    stride = int(index[taken[1]] - index[first]) if len(taken) > 1 else size
    if len(index) == 1:
        stride = 1
    if stride < 1:
        return None
    start, count = int(index[first]) - stride * first, len(index)
    reached = start + stride * np.arange(count)
    if not np.array_equal(np.where((reached >= 0) & (reached < size), reached, -1), index):
        return None
    padding = max(0, -start, (count - 1) * stride + start + 1 - size)
    place = start + padding
    return Tap(max(place + 1, size + 2 * padding - count * stride + 1), place, stride, padding)


def layer(shape: tuple[int, ...], selection: Selection) -> tuple[str, dict[str, Any]] | None:
    """The NIR node, by kind and fields, that selects from a tensor of ``shape``; None if no single one can."""
    if len(shape) == 1:
        return "Linear", {"weight": _ones(selection[0], shape[0])}
    if len(shape) != 3:
        return None
    taps = [tap(size, index) for size, index in zip(shape[1:], selection[1:], strict=True)]
    if taps[0] is None or taps[1] is None:
        return None
    mix = _ones(selection[0], shape[0])
    weight = np.zeros((*mix.shape, taps[0].kernel, taps[1].kernel))
    weight[:, :, taps[0].place, taps[1].place] = mix
    geometry = {"stride": (taps[0].stride, taps[1].stride), "padding": (taps[0].padding, taps[1].padding)}
    return "Conv2d", convolution(weight, np.zeros(len(mix)), shape[1:], **geometry)


def convolution(
    weight: np.ndarray,
    bias: np.ndarray,
    size: tuple[int, ...],
    *,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
) -> dict[str, Any]:
    """The fields of a Conv2d for maps of ``size``."""
    geometry = {"stride": stride, "padding": padding, "dilation": dilation}
    return {"weight": weight, "bias": bias, "groups": 1, "input_shape": size, **geometry}


def ungrouped(weight: np.ndarray, groups: int) -> np.ndarray:
    """The weight of a convolution in groups as that of one convolution, with zeros.

    NIR's Conv2d has ``groups``, but its own check of shapes takes the weight's second dimension for the input's
    channels, and refuses a file with another number of groups than 1.
    """
    if groups == 1:
        return weight
    out, width = weight.shape[0] // groups, weight.shape[1]
    whole = np.zeros((weight.shape[0], width * groups, *weight.shape[2:]))
    for group in range(groups):
        rows = slice(group * out, (group + 1) * out)
        whole[rows, group * width : (group + 1) * width] = weight[rows]
    return whole


def _ones(index: np.ndarray, size: int) -> np.ndarray:
    """The matrix that takes ``index`` of ``size``."""
    return (index[:, None] == np.arange(size)).astype(np.float64)
