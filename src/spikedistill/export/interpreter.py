"""Running a NIR file, step by step, in plain torch: to check what was written, and to read what others wrote.

Only the file's own words are used: the graph's nodes, and the metadata dt, timesteps, encoding, and of each neuron with
a soft reset ``reset``, ``subtract``, ``v_initial``.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spikedistill.errors import UserError, first_line
from spikedistill.export.guard import check_hdf5
from spikedistill.export.neurons import DT
from spikedistill.export.nir_file import require_nir
from spikedistill.export.steps import STEPS, Neurons
from spikedistill.models.network import checked_timesteps
from spikedistill.spiking.time import direct_encode, readout

DECLARED = ("Affine", "Linear", "Scale", "Threshold", "LIF", "IF", "LI", "I", "Flatten", "Output")
"""Nodes whose own word on their shape counts (NIR's convolutions leave groups out of it)."""


class NirNetwork(nn.Module):
    """A NIR graph as a network: images ``[B, ...]`` or sequences ``[T, B, ...]`` to logits.

    ``metadata`` is the file's. The network has no parameters to train; its weights are buffers.

    Args:
        graph: a ``nir.NIRGraph`` without cycles and with one input and one output.
        timesteps: T of images; None takes the file's.
        dt: seconds a timestep; None takes the file's.
        source: what to call the graph in refusals.

    Raises:
        UserError: the graph cannot be run; the sentence says why.
    """

    def __init__(
        self, graph: Any, timesteps: int | None = None, dt: float | None = None, source: str = "graph"
    ) -> None:
        super().__init__()
        self.metadata: dict[str, Any] = dict(graph.metadata)
        self._source = source
        steps, step = (
            float(given) if given is not None else _number(self.metadata, key, default, source)
            for given, key, default in ((timesteps, "timesteps", 1.0), (dt, "dt", DT))
        )
        self._timesteps = checked_timesteps(int(steps))
        if not 0.0 < step < float("inf"):
            raise UserError(f"{source}: a timestep must take a positive number of seconds (dt), not {step}")
        self.order, self.sources = _ordered(graph, source)
        self.steps = nn.ModuleDict()
        for number, name in enumerate(self.order):
            self.steps[str(number)] = _step(name, graph.nodes[name], step, source)
        self.shape = _declared(graph.nodes[self.order[0]])
        self.node_metadata = {name: dict(graph.nodes[name].metadata) for name in self.order}
        self.neurons = {name: str(told["path"]) for name, told in self.node_metadata.items() if "path" in told}
        self._rehearse(graph)

    @property
    def timesteps(self) -> int:
        """T of an image; may be set at any time."""
        return self._timesteps

    @timesteps.setter
    def timesteps(self, value: int) -> None:
        self._timesteps = checked_timesteps(value)

    def forward(self, x: Tensor, per_step: bool = False) -> Tensor:
        """Logits ``[B, K]``, the mean over T, or ``[T, B, K]`` with ``per_step``.

        Raises:
            UserError: images of another shape, or images where the file takes encoded sequences.
        """
        logits = torch.stack([outputs[self.order[-1]] for outputs in self._run(x)])
        return logits if per_step else readout(logits)

    def record(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits ``[T, B, K]``, and of each layer of the exported network, by path, the spikes ``[T, B, ...]``."""
        steps = [
            (outputs[self.order[-1]], {path: outputs[name].bool() for name, path in self.neurons.items()})
            for outputs in self._run(x)
        ]
        spikes = {path: torch.stack([step[path] for _, step in steps]) for path in self.neurons.values()}
        return torch.stack([logits for logits, _ in steps]), spikes

    @torch.no_grad()
    def _run(self, x: Tensor) -> Any:
        """Yields the nodes' outputs, step after step."""
        potentials: dict[str, Tensor] = {}
        for image in self._sequence(x):
            outputs: dict[str, Tensor] = {}
            for number, name in enumerate(self.order):
                outputs[name] = self._one(number, name, image, outputs, potentials)
            yield outputs

    def _one(
        self, number: int, name: str, image: Tensor, outputs: Mapping[str, Tensor], potentials: dict[str, Tensor]
    ) -> Tensor:
        given = [outputs[source] for source in self.sources[name]] or [image]
        # In the order of the edges, as the network adds them up.
        total = given[0]
        for other in given[1:]:
            total = total + other
        step = self.steps[str(number)]
        if not isinstance(step, Neurons):
            return step(total)
        spikes, potentials[name] = step(total, potentials.get(name))
        return spikes

    def _sequence(self, x: Tensor) -> Tensor:
        images = tuple(x.shape[1:]) == self.shape
        if not images and tuple(x.shape[2:]) != self.shape:
            raise UserError(
                f"{self._source} takes images {['B', *self.shape]} or sequences {['T', 'B', *self.shape]}, "
                f"not {list(x.shape)}".replace("'", "")
            )
        encoding = str(self.metadata.get("encoding", "direct"))
        if images and encoding != "direct":
            raise UserError(f"{self._source} takes {encoding} sequences [T, B, ...], not images")
        return direct_encode(x, self._timesteps) if images else x

    def _rehearse(self, graph: Any) -> None:
        """Refuses a graph whose shapes do not fit."""
        outputs: dict[str, Tensor] = {}
        for number, name in enumerate(self.order):
            shapes = {source: tuple(outputs[source].shape[1:]) for source in self.sources[name]}
            kind = type(graph.nodes[name]).__name__
            if len(set(shapes.values())) > 1:
                raise UserError(f"{self._source}: node '{name}' adds up {_listed(shapes)}, which differ in shape")
            try:
                with torch.no_grad():
                    outputs[name] = self._one(number, name, torch.zeros(1, *self.shape), outputs, {})
            except (RuntimeError, IndexError, ValueError) as error:
                reason = first_line(error)
                raise UserError(
                    f"{self._source}: node '{name}' ({kind}) does not take {_listed(shapes)}: {reason}"
                ) from None
            wanted = _declared(graph.nodes[name]) if kind in DECLARED else ()
            if shapes and wanted and wanted != next(iter(shapes.values())):
                raise UserError(
                    f"{self._source}: node '{name}' ({kind}) is made for {list(wanted)} and gets {_listed(shapes)}"
                )


def read_nir(path: str | Path | io.BytesIO, timesteps: int | None = None, dt: float | None = None) -> NirNetwork:
    """Reads a NIR file as a network that runs.

    Args:
        path: the file.
        timesteps: T of images; None takes what the file says, or 1.
        dt: seconds a timestep; None takes what the file says, or 1e-4.

    Raises:
        UserError: no such file, no NIR file, or a graph that cannot be run: cycles, nodes that are missing or unknown,
            shapes that do not fit.
    """
    require_nir()
    import nir

    source = "the file" if isinstance(path, io.BytesIO) else f"'{path}'"
    if not isinstance(path, io.BytesIO) and not Path(path).is_file():
        raise UserError(f"no NIR file at {source}")
    _check_kinds(path, source)
    try:
        graph = nir.read(path, type_check=False)  # pyright: ignore[reportArgumentType]
    except Exception as error:  # whatever the reader stumbles over, the file is the user's
        reason = first_line(error)
        raise UserError(f"{source} cannot be read as NIR: {reason}") from None
    return NirNetwork(graph, timesteps, dt, source).eval()


def _check_kinds(path: Any, source: str) -> None:
    """Refuses a file that is no HDF5 with NIR in it, and nodes that nobody can run."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            check_hdf5(file, source)
            nodes: Any = file["node/nodes"]
            kinds = {name: node["type"][()].decode() for name, node in nodes.items()}
            top: Any = file["node"]
            noted = [node["metadata"] for node in (top, *nodes.values()) if "metadata" in node]
            if not all(isinstance(notes, h5py.Group) for notes in noted):
                raise ValueError("metadata that are no group")
    except UserError:
        raise
    except Exception:  # h5py raises many kinds
        raise UserError(f"{source} is not a NIR file (HDF5 with a graph of nodes)") from None
    for name, kind in kinds.items():
        if kind not in STEPS:
            raise UserError(f"{source}: node '{name}' is a {kind}, which cannot be run (known: {', '.join(STEPS)})")


def _step(name: str, node: Any, dt: float, source: str) -> nn.Module:
    kind = type(node).__name__
    if kind not in STEPS:
        raise UserError(f"{source}: node '{name}' is a {kind}, which cannot be run (known: {', '.join(STEPS)})")
    try:
        return STEPS[kind](node, dt)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{source}: node '{name}' ({kind}) cannot be used: {error}") from None


def _ordered(graph: Any, source: str) -> tuple[list[str], dict[str, list[str]]]:
    """The nodes from input to output, each after its sources; and the sources of each."""
    kinds = {name: type(node).__name__ for name, node in graph.nodes.items()}
    for end in ("Input", "Output"):
        if list(kinds.values()).count(end) != 1:
            raise UserError(f"{source}: a graph with one {end} is needed, and it has {list(kinds.values()).count(end)}")
    sources: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for start, end in graph.edges:
        for name in (start, end):
            if name not in sources:
                raise UserError(f"{source}: an edge from '{start}' to '{end}' names '{name}', which is no node")
        if kinds[end] == "Input" or kinds[start] == "Output":
            raise UserError(f"{source}: an edge from '{start}' to '{end}' leads into the Input or out of the Output")
        if start in sources[end]:
            raise UserError(f"{source}: there are two edges from '{start}' to '{end}', and NIR allows one")
        sources[end].append(start)
    first = next(name for name, kind in kinds.items() if kind == "Input")
    last = next(name for name, kind in kinds.items() if kind == "Output")
    ready, order = [first], []
    waiting = {name: len(each) for name, each in sources.items()}
    for name, each in sources.items():
        if not each and name != first:
            raise UserError(f"{source}: nothing leads to node '{name}'")
    readers: dict[str, list[str]] = {name: [] for name in sources}
    for name, each in sources.items():
        for other in each:
            readers[other].append(name)
    while ready:
        name = ready.pop(0)
        order.append(name)
        for reader in readers[name]:
            waiting[reader] -= 1
            if waiting[reader] == 0:
                ready.append(reader)
    if len(order) < len(sources):
        stuck = next(name for name in sources if name not in order)
        raise UserError(f"{source}: node '{stuck}' is part of a cycle or behind one; recurrent graphs cannot be run")
    order.remove(last)
    return [*order, last], sources


def _declared(node: Any) -> tuple[int, ...]:
    """The shape that a node says it takes, () where it does not say."""
    wanted = next(iter((node.input_type or {}).values()), None)
    try:
        return () if wanted is None else tuple(int(size) for size in np.asarray(wanted).reshape(-1))
    except (TypeError, ValueError, OverflowError):  # no numbers, or no whole ones: then it says nothing
        return ()


def _number(metadata: Mapping[str, Any], key: str, default: float, source: str) -> float:
    try:
        number = float(metadata.get(key, default))
        int(number)  # neither NaN nor infinite
        return number
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{source}: its metadata say '{key}' is {metadata[key]!r}, which is no number") from None


def _listed(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return " and ".join(f"{list(shape)} of '{name}'" for name, shape in shapes.items()) or "nothing"
