"""Slices and zero padding as layers: NIR has no nodes for them, but a convolution of zeros and ones is one.

A selection is, for each dimension, an array that says where each place of the result comes from, -1 for zero.

NIR 1.0's own check of shapes, which readers run, takes every kernel for square and every convolution for one without
groups. So all kernels here are made square and all groups one, with zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Selection = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Tap:
    """A convolution's geometry along one dimension, with a single weight (at ``place``) that is not zero.

    Any kernel from ``kernel`` to ``largest`` places gives the same result.
    """

    kernel: int
    largest: int
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
    place, wide = start + padding, size + 2 * padding
    return Tap(max(place + 1, wide - count * stride + 1), wide - (count - 1) * stride, place, stride, padding)


def layers(shape: tuple[int, ...], selection: Selection) -> list[tuple[str, dict[str, Any]]] | None:
    """The NIR nodes, by kind and fields, that select from a tensor of ``shape``; None if there are none."""
    mix = _ones(selection[0], shape[0])
    if len(shape) == 1:
        return [("Linear", {"weight": mix})]
    if len(shape) != 3:
        return None
    taps = [tap(size, index) for size, index in zip(shape[1:], selection[1:], strict=True)]
    if taps[0] is None or taps[1] is None:
        return None
    kernel = max(taps[0].kernel, taps[1].kernel)
    places = (taps[0].place, taps[1].place)
    strides, paddings = (taps[0].stride, taps[1].stride), (taps[0].padding, taps[1].padding)
    if kernel <= min(taps[0].largest, taps[1].largest):
        weight = _single(mix, kernel, places)
        return [("Conv2d", convolution(weight, np.zeros(len(mix)), shape[1:], stride=strides, padding=paddings))]
    return _in_two(shape, mix, [len(index) for index in selection[1:]], taps)  # pyright: ignore[reportArgumentType]


def _in_two(
    shape: tuple[int, ...], mix: np.ndarray, counts: list[int], taps: list[Tap]
) -> list[tuple[str, dict[str, Any]]]:
    """Two convolutions with kernels of 2x2, spread by dilation: one cuts off in front, the other behind."""
    front, behind, paddings, middle = [], [], [], []
    for size, count, each in zip(shape[1:], counts, taps, strict=True):
        start = each.place - each.padding
        reach = start + (count - 1) * each.stride + 1
        padding = max(0, 1 - start, reach + 1 - size)
        paddings.append(padding)
        front.append(padding + start)
        middle.append(size + padding - start)
        behind.append(size + padding - reach)
    channels, strides = shape[0], (taps[0].stride, taps[1].stride)
    first = convolution(
        _single(np.eye(channels), 2, (1, 1)), np.zeros(channels), shape[1:], padding=paddings, dilation=front
    )
    last = convolution(_single(mix, 2, (0, 0)), np.zeros(len(mix)), middle, stride=strides, dilation=behind)
    return [("Conv2d", first), ("Conv2d", last)]


def _single(mix: np.ndarray, kernel: int, places: tuple[int, int]) -> np.ndarray:
    """A square kernel that mixes channels and takes one place."""
    weight = np.zeros((*mix.shape, kernel, kernel))
    weight[:, :, places[0], places[1]] = mix
    return weight


def convolution(
    weight: np.ndarray,
    bias: np.ndarray,
    size: Sequence[int],
    *,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
) -> dict[str, Any]:
    """The fields of a Conv2d for maps of ``size``."""
    geometry = {"stride": tuple(stride), "padding": tuple(padding), "dilation": tuple(dilation)}
    return {"weight": weight, "bias": bias, "groups": 1, "input_shape": tuple(size), **geometry}


def squared(weight: np.ndarray, padding: Sequence[int], dilation: Sequence[int]) -> tuple[np.ndarray, Any, list[int]]:
    """A kernel as a square one with zeros.

    Returns:
        The weight, the padding it needs, and how many zeros each dimension of the input needs behind it first (where
        the sides differ by an odd number, which no padding at both ends makes up for).
    """
    side = max(weight.shape[2:])
    before, paddings, behind = [], [], []
    for size, pad, spread in zip(weight.shape[2:], padding, dilation, strict=True):
        missing = side - size
        odd = missing % 2
        before.append(0 if odd else missing // 2)
        paddings.append(pad + (0 if odd else spread * missing // 2))
        behind.append(spread * missing if odd else 0)
    whole = np.zeros((*weight.shape[:2], side, side))
    rows, columns = (slice(start, start + size) for start, size in zip(before, weight.shape[2:], strict=True))
    whole[:, :, rows, columns] = weight
    return whole, tuple(paddings), behind


def ungrouped(weight: np.ndarray, groups: int) -> np.ndarray:
    """The weight of a convolution in groups as that of one convolution, with zeros."""
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
