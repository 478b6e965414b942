"""From a network's recorded timestep to a NIR graph.

Each operator has a function that says it in NIR's nodes (``operators.py``); what has none is refused, with its path and
the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils import _pytree as pytree

from spikedistill.errors import UserError
from spikedistill.export.neurons import neuron_of
from spikedistill.export.record import FIRE, ROWS, Record, Ref, Step, batch_first
from spikedistill.export.sheet import Inexpressible, Sheet, Value

Operator = Callable[["Lowering", Step], Value | list[Value]]
"""Puts a step on the sheet and returns what it has become; several values where torch returns several tensors."""


class Lowering:
    """The graph in the making (``sheet``), and what each step has become.

    Args:
        record: of the network.
        dt: seconds a timestep.
        operators: by the operator's name, the function that says it in NIR's nodes.
    """

    def __init__(self, record: Record, dt: float, operators: Mapping[str, Operator]) -> None:
        self.record, self.dt, self.sheet = record, dt, Sheet(record.shape)
        self._operators = operators
        self.steps = _needed(record)
        self._values: dict[Ref, Value] = {record.images: self.sheet.input}
        self._unread = Counter(ref for step in self.steps for ref in _refs(step))
        self._unread[record.answer] += 1

    def take(self, step: Step) -> None:
        """Puts a step on the sheet."""
        if step.shapes[0][:1] != (ROWS,):
            raise Inexpressible("images are not in rows there, and a NIR graph is about one image")
        if step.name == FIRE:
            made: Value | list[Value] = self._fire(step)
        elif step.name in self._operators:
            made = self._operators[step.name](self, step)
        else:
            raise Inexpressible(f"there is no NIR node for '{step.operator}'")
        values = made if isinstance(made, list) else [made]
        for ref, shape, value in zip(step.outs, step.shapes, values, strict=False):
            assert value.shape == shape[1:], (step, value)
            self._values[ref] = value
        for ref in _refs(step):
            self._unread[ref] -= 1

    def finish(self) -> Sheet:
        """The graph with its output."""
        answer = self._values[self.record.answer]
        self.sheet.add("output", "Output", {"shape": answer.shape}, self.sheet.plain_sources(answer))
        return self.sheet

    def value(self, argument: Any) -> Value:
        """What an argument has become."""
        if argument not in self._values:
            raise Inexpressible("it takes something that is no signal of the graph")
        return self._values[argument]

    def constant(self, argument: Any) -> np.ndarray:
        """A weight, or a number."""
        if isinstance(argument, Ref):
            raise Inexpressible("it multiplies two signals, and weights in NIR are constants")
        return argument.detach().double().numpy() if isinstance(argument, Tensor) else np.asarray(float(argument))

    def is_read_once(self, node: str) -> bool:
        """Whether nothing reads a node but the step that is being taken."""
        readers = sum(
            self._unread[ref] for ref, value in self._values.items() if any(name == node for name, _ in value.terms)
        )
        return readers == 1 and not any(node in other.sources for other in self.sheet.nodes.values())

    def _fire(self, step: Step) -> Value:
        argument, path = step.args
        spike, current = self.record.spikes[path], self.value(argument)
        if not batch_first(spike):
            raise Inexpressible("its tokens come before its images, and a NIR graph is about one image")
        neuron = neuron_of(spike, current.shape, self.dt)
        metadata = {"path": path, **neuron.metadata}
        name = self.sheet.add(path, neuron.kind, neuron.fields, self.sheet.plain_sources(current), metadata)
        spikes = Value(current.shape, ((name, 1.0),), binary=True)
        return self.sheet.placewise(spikes, neuron.amplitude, f"{path}.scale")


def _needed(record: Record) -> list[Step]:
    """The steps that the answer depends on.

    Raises:
        UserError: it does not depend on the images.
    """
    every = _over_pictures(record.steps)
    by_ref = {ref: step for step in every for ref in step.outs}
    needed: set[Ref] = set()
    queue = [record.answer]
    while queue:
        ref = queue.pop()
        if ref not in needed:
            needed.add(ref)
            queue += _refs(by_ref[ref]) if ref in by_ref else []
    if record.images not in needed:
        raise UserError("the network's answer does not depend on the images; there is nothing to export")
    return [step for step in every if needed.intersection(step.outs)]


def _over_pictures(steps: Sequence[Step]) -> list[Step]:
    """The steps, with ``x.flatten(2).mean(-1)`` and its kin as the mean over the picture that they are."""
    by_ref = {ref: step for step in steps for ref in step.outs}
    shapes = {ref: shape for step in steps for ref, shape in zip(step.outs, step.shapes, strict=True)}
    result = []
    for step in steps:
        flat = by_ref.get(step.args[0]) if step.name in ("mean.dim", "sum.dim_IntList") else None
        if flat is not None and flat.name in ("view.default", "_unsafe_view.default"):
            before, behind = shapes.get(flat.args[0], ()), flat.shapes[0]
            rows = len(before) == 4 and behind == (*before[:2], before[2] * before[3])
            if rows and list(step.args[1]) in ([-1], [2]) and not any(step.args[2:]):
                step = replace(step, args=(flat.args[0], [2, 3]))
        result.append(step)
    return result


def _refs(step: Step) -> list[Ref]:
    return [leaf for leaf in pytree.tree_leaves((step.args, step.kwargs)) if isinstance(leaf, Ref)]
