"""A NIR graph in the making: its nodes, and the values that run between them.

NIR has no node for an addition: edges that meet in a node are summed. So a value is a sum of nodes' outputs
(``terms``), each with a factor that whatever comes next takes into its weights, and a selection that has not become a
node yet.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from spikedistill.export.selection import Selection, convolution, everything, layers, selected


class Inexpressible(Exception):
    """What is asked for has no NIR nodes; the message is the reason."""


WEIGHTED = ("Conv1d", "Conv2d", "Affine", "Linear")


@dataclass
class Node:
    """A NIR node: its kind, its fields and where its edges come from."""

    kind: str
    fields: dict[str, Any]
    sources: list[str]
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Value:
    """What a step returned.

    Attributes:
        shape: of one image.
        terms: the nodes whose outputs it is the sum of, with their factors.
        binary: whether it is spikes: zero or one and the same number everywhere.
        selection: what of the sum is taken; None for all of it.
        source_shape: of the sum, where there is a selection.
    """

    shape: tuple[int, ...]
    terms: tuple[tuple[str, float], ...]
    binary: bool = False
    selection: Selection | None = None
    source_shape: tuple[int, ...] = ()

    def times(self, factor: float) -> Value:
        """The value, multiplied by a number."""
        terms = tuple((name, scale * factor) for name, scale in self.terms)
        return replace(self, terms=terms, binary=self.binary and factor > 0.0)


class Sheet:
    """The graph in the making."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.nodes: dict[str, Node] = {}
        self._taken: set[str] = set()
        self.input = Value(shape, ((self.add("input", "Input", {"shape": shape}, []), 1.0),))

    def add(
        self,
        name: str,
        kind: str,
        fields: dict[str, Any],
        sources: Iterable[str],
        metadata: dict[str, Any] | None = None,
    ) -> str:
        """Adds a node under a name of its own: readers turn dots into underscores, and HDF5 has slashes for groups."""
        plain = name = name.replace("/", "_") or kind.lower()
        count = 1
        while _identifier(name) in self._taken:
            count += 1
            name = f"{plain}_{count}"
        self._taken.add(_identifier(name))
        self.nodes[name] = Node(kind, fields, list(sources), metadata or {})
        return name

    def apply(self, name: str, kind: str, fields: dict[str, Any], value: Value, shape: tuple[int, ...]) -> Value:
        """A node without weights that is linear: factors go through it."""
        sources, scale = self.sources(value)
        return Value(shape, ((self.add(name, kind, fields, sources), scale),))

    def settled(self, value: Value) -> Value:
        """The value with its selection, if any, made a node."""
        if value.selection is None:
            return value
        taken = replace(value, shape=value.source_shape, selection=None)
        for kind, fields in layers(value.source_shape, value.selection) or ():
            taken = self.apply("select", kind, fields, taken, value.shape)
        return replace(taken, binary=value.binary)

    def select(self, value: Value, dim: int, index: np.ndarray) -> Value:
        """A part of the value along ``dim``, see ``selection``.

        Raises:
            Inexpressible: no convolution takes this part.
        """
        if np.array_equal(index, np.arange(value.shape[dim])):
            return value
        shape = (*value.shape[:dim], len(index), *value.shape[dim + 1 :])
        if value.selection is None:
            value = replace(value, selection=everything(value.shape), source_shape=value.shape)
        assert value.selection is not None
        taken = replace(value, shape=shape, selection=selected(value.selection, dim, index))
        if layers(value.source_shape, taken.selection or ()) is not None:
            return taken
        settled = self.settled(value)
        selection = selected(everything(settled.shape), dim, index)
        if layers(settled.shape, selection) is None:
            raise Inexpressible(f"no convolution takes this part of {list(settled.shape)}")
        return replace(settled, shape=shape, selection=selection, source_shape=settled.shape)

    def sum(self, values: Iterable[Value], binary: bool = False) -> Value:
        """The sum of values of one shape; ``binary`` where it is known to be spikes again."""
        parts = [self.settled(value) for value in values]
        terms: dict[str, float] = {}
        for name, scale in (term for part in parts for term in part.terms):
            terms[name] = terms.get(name, 0.0) + scale
        return Value(parts[0].shape, tuple(terms.items()), binary)

    def sources(self, value: Value) -> tuple[list[str], float]:
        """The nodes to draw edges from, and the one factor that the next node's weights must contain."""
        value = self.settled(value)
        factors = {scale for _, scale in value.terms}
        if len(factors) == 1:
            return [name for name, _ in value.terms], factors.pop()
        return self.plain_sources(value), 1.0

    def plain_sources(self, value: Value) -> list[str]:
        """The nodes to draw edges from where the next one has no weights: factors become nodes."""
        value = self.settled(value)
        return [name if scale == 1.0 else self._scaled(name, scale, value.shape) for name, scale in value.terms]

    def _scaled(self, name: str, scale: float, shape: tuple[int, ...]) -> str:
        for other, node in self.nodes.items():
            if node.kind == "Scale" and node.sources == [name] and np.all(node.fields["scale"] == scale):
                return other
        return self.add(f"{name}.scale", "Scale", {"scale": np.full(shape, scale)}, [name])

    def placewise(self, value: Value, factor: np.ndarray, name: str) -> Value:
        """The value times a constant that broadcasts with it; a Scale node where it is not one number."""
        if factor.size == 1:
            return value.times(float(factor.reshape(())))
        return self.apply(name, "Scale", {"scale": np.broadcast_to(factor, value.shape)}, value, value.shape)

    def channelwise(self, value: Value, weight: np.ndarray, bias: np.ndarray, name: str) -> Value:
        """A factor and a constant for each channel, as a convolution of 1x1 (or a diagonal Affine)."""
        sources, scale = self.sources(value)
        if len(value.shape) == 1:
            fields: dict[str, Any] = {"weight": np.diag(weight * scale), "bias": bias}
            return Value(value.shape, ((self.add(name, "Affine", fields, sources), 1.0),))
        if len(value.shape) != 3:
            raise Inexpressible(f"NIR has no layer for channels of {list(value.shape)}")
        fields = convolution(np.diag(weight * scale)[:, :, None, None], bias, value.shape[1:])
        return Value(value.shape, ((self.add(name, "Conv2d", fields, sources), 1.0),))

    def fold(self, value: Value, weight: np.ndarray, bias: np.ndarray) -> Value:
        """``channelwise`` in the weights of the one layer that made the value."""
        ((source, _),) = value.terms
        node = self.nodes[source]
        wide = weight.reshape(-1, *[1] * (node.fields["weight"].ndim - 1))
        node.fields["bias"] = node.fields.get("bias", 0.0) * weight + bias
        node.fields["weight"] = node.fields["weight"] * wide
        node.kind = "Affine" if node.kind == "Linear" else node.kind
        return value


def _identifier(name: str) -> str:
    return re.sub(r"\W", "_", name)
