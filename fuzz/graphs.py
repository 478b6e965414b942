"""NIR files that are nearly right: a good graph, and changes to it that the bytes of an input decide on."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np

KINDS = (
    *("Affine", "Linear", "Scale", "Threshold", "Conv1d", "Conv2d", "AvgPool2d", "SumPool2d", "Flatten"),
    *("LIF", "IF", "LI", "I", "Input", "Output", "CubaLIF", "Delay", "NIRGraph", "os.system"),
)
KEYS = (
    *("weight", "bias", "scale", "threshold", "stride", "padding", "dilation", "groups", "kernel_size", "start_dim"),
    *("end_dim", "input_type", "shape", "tau", "r", "v_leak", "v_threshold", "v_reset", "input_shape", "metadata"),
)
NAMES = ("in", "a", "b", "c", "out", "missing", "", "a/b", "é")
NUMBERS = (0.0, 1.0, -1.0, 2.0, 0.5, 3.0, float("nan"), float("inf"), 1e38, -1e308, 1e-30, 2**40, 7.0)
SHAPES = ((), (1,), (2,), (3,), (0,), (2, 2), (1, 2), (2, 1, 3, 3), (1, 1, 1), (2, 0), (4, 2), (1, 2, 3, 4, 5))
TYPES = ("f4", "f8", "i8", "u1", "?", "c8", "S3", "f2")


class Draw:
    """Hands out the bytes of an input as choices; zeros when they are used up."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def number(self) -> int:
        """The next byte."""
        value = self.data[self.at] if self.at < len(self.data) else 0
        self.at += 1
        return value

    def of(self, choices: Any) -> Any:
        """One of them."""
        return choices[self.number() % len(choices)]


def good() -> tuple[dict[str, dict[str, Any]], list[tuple[str, str]], dict[str, Any]]:
    """A graph of two inputs, a LIF layer, a linear layer and two outputs; its edges; its metadata."""
    two = np.ones(2, np.float32)
    lif = {"type": "LIF", "tau": two, "r": two, "v_leak": 0 * two, "v_threshold": two, "v_reset": 0 * two}
    nodes = {
        "in": {"type": "Input", "shape": np.array([2])},
        "a": {**lif, "metadata": {"path": "layer"}},
        "b": {"type": "Affine", "weight": np.eye(2, dtype=np.float32), "bias": two},
        "out": {"type": "Output", "shape": np.array([2])},
    }
    return nodes, [("in", "a"), ("a", "b"), ("b", "out")], {"dt": 1e-4, "timesteps": 2}


def written(data: bytes) -> bytes:
    """The good graph's file after up to twelve changes."""
    draw = Draw(data)
    nodes, edges, metadata = good()
    for _ in range(min(draw.number(), 12)):
        draw.of(CHANGES)(draw, nodes, edges, metadata)
    return _file(nodes, edges, metadata)


def _value(draw: Draw) -> Any:
    if draw.number() % 8 == 0:
        return draw.of(("subtract", "", "same", "x" * 100, "\\x00"))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.full(draw.of(SHAPES), draw.of(NUMBERS)).astype(draw.of(TYPES))


def _set(draw: Draw, nodes: Any, edges: Any, metadata: Any) -> None:
    nodes.setdefault(draw.of(NAMES), {"type": draw.of(KINDS)})[draw.of(KEYS)] = _value(draw)


def _drop(draw: Draw, nodes: Any, edges: Any, metadata: Any) -> None:
    nodes.get(draw.of(NAMES), {}).pop(draw.of((*KEYS, "type")), None)


def _kind(draw: Draw, nodes: Any, edges: Any, metadata: Any) -> None:
    nodes.setdefault(draw.of(NAMES), {})["type"] = draw.of(KINDS)


def _no_node(draw: Draw, nodes: Any, edges: Any, metadata: Any) -> None:
    nodes.pop(draw.of(NAMES), None)


def _edge(draw: Draw, nodes: Any, edges: Any, metadata: Any) -> None:
    edges.append((draw.of(NAMES), draw.of(NAMES)))


def _no_edge(draw: Draw, nodes: Any, edges: Any, metadata: Any) -> None:
    if edges:
        edges.pop(draw.number() % len(edges))


def _note(draw: Draw, nodes: Any, edges: Any, metadata: Any) -> None:
    keys = ("dt", "timesteps", "encoding", "reset", "subtract", "v_initial", "path", "role")
    node = nodes.get(draw.of(NAMES))
    place = metadata if node is None else node.setdefault("metadata", {})
    if isinstance(place, dict):
        place[draw.of(keys)] = _value(draw)


CHANGES = (_set, _drop, _kind, _no_node, _edge, _no_edge, _note)


def _file(nodes: dict[str, dict[str, Any]], edges: list[tuple[str, str]], metadata: dict[str, Any]) -> bytes:
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as opened:
        file: Any = opened
        _write(file, {"version": "1.0.8", "node": {"type": "NIRGraph", "metadata": metadata}})
        _write(file["node"].create_group("nodes"), {name: node for name, node in nodes.items() if name})
        kind = h5py.string_dtype()
        pairs = np.array(edges, dtype=object) if edges else np.empty((0, 2), dtype=object)
        file["node"].create_dataset("edges", data=pairs, dtype=kind)
    return buffer.getvalue()


def _write(group: Any, content: dict[str, Any]) -> None:
    for key, value in content.items():
        if isinstance(value, dict):
            _write(group.require_group(key), value)
        elif key not in group:
            group.create_dataset(key, data=value)
