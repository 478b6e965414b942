"""The parts of a rebuilt network: its graphs, its modules, and where its activations are."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from spikedistill.models.activation import Clock
from spikedistill.models.folded import DROPOUT_FUNCTIONS, DROPOUTS, Analogue, OneMask, Program, Slope
from spikedistill.models.once import once_where_possible
from spikedistill.models.probe import Layout, refusal
from spikedistill.models.rebuild import (
    add_time,
    call_module,
    call_plain,
    call_spike,
    check_sound,
    for_any_layout,
    has_effect,
    input_of,
    name_of,
    where,
    with_plain_inputs,
    without_writes,
)
from spikedistill.models.replaceable import KEPT, Found, find
from spikedistill.models.staging import found_points, own_points
from spikedistill.models.staying import staying
from spikedistill.models.uses import Call, Use, numbered
from spikedistill.models.written import spell, step_name

Slot = tuple[str, str]

_SEVERAL = "the network answers with several values, if only in training mode (auxiliary outputs); one tensor is needed"


@dataclass(frozen=True)
class Site:
    """Where an activation is.

    Attributes:
        path: of its module.
        slots: the places of that module, each a parent's path and a name.
        found: what it was.
        shape: of one image's activations.
        dim: where the batch is.
    """

    path: str
    slots: tuple[Slot, ...]
    found: Found
    shape: tuple[int, ...]
    dim: int

    def put(self, network: nn.Module, module: nn.Module) -> None:
        """Sets the module in all its places."""
        _put(network, self.slots, module)


@dataclass
class Parts:
    """What a rebuilt network is made of; ``analogue`` names nonlinear steps that stay what they are (``UNUSUAL``)."""

    body: nn.Module
    programs: dict[tuple[bool, bool], Program]
    sites: tuple[Site, ...]
    points: dict[str, dict[str, str]]
    clock: Clock
    analogue: tuple[str, ...]


def assemble(network: nn.Module, graphs: Mapping[bool, fx.Graph], traced_on: nn.Module) -> Parts:
    """Rebuilds a network from its traces.

    Args:
        network: as it is; it is copied.
        graphs: by training mode.
        traced_on: the copy they were traced on, which holds their constants.

    Raises:
        UserError: the images of a batch do not stay apart, or there is no activation.
    """
    body = copy.deepcopy(network)
    parts = _Assembly(body)
    for graph in graphs.values():
        parts.keep_constants(graph, traced_on)
        parts.unseen += without_writes(graph, body.get_submodule)
        for_any_layout(graph)
        spell(graph, parts.modules)
        parts.look(graph)
    parts.count()
    parts.place()
    programs: dict[tuple[bool, bool], Program] = {}
    for training, graph in graphs.items():
        parts.rewrite(graph, training)
        check_answer(graph)
        with_plain_inputs(graph, body.get_submodule)
        add_time(graph, frozenset(parts.masks.values()))
        programs[training, False] = Program(graph)
        programs[training, True] = Program(once_where_possible(graph, frozenset(parts.masks.values())))
    for module in body.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]
    linear = frozenset(path for path, module in parts.modules.items() if isinstance(module, nn.Linear | nn.LayerNorm))
    points = found_points(graphs, linear) | own_points(network, [site.path for site in parts.sites.values()])
    return Parts(body, programs, tuple(parts.sites.values()), points, parts.clock, tuple(dict.fromkeys(parts.analogue)))


class _Assembly:
    """The modules that both graphs, of evaluation and of training, call."""

    def __init__(self, body: nn.Module) -> None:
        self.body, self.clock = body, Clock(1)
        self.modules = dict(body.named_modules(remove_duplicate=False))
        self.calls: list[tuple[list[Call], list[Call]]] = []
        self.activations: dict[fx.Node, Use] = {}
        self.dropouts: dict[fx.Node, Use] = {}
        self.still: set[fx.Node] = set()
        self.sites: dict[Use, Site] = {}
        self.masks: dict[Use, str] = {}
        self.constants: list[tuple[str, Tensor]] = []
        self.seen: set[str] = set()
        self.unseen: list[str] = []
        self.analogue: list[str] = []
        self.containers: dict[str, nn.Module] = {}

    def keep_constants(self, graph: fx.Graph, traced_on: nn.Module) -> None:
        """Tensors that the code made while it was traced become buffers that no state dict knows."""
        for node in graph.nodes:
            if node.op != "get_attr" or not str(node.target).startswith("_tensor_constant"):
                continue
            value = getattr(traced_on, str(node.target))
            for name, other in self.constants:
                if value.dtype == other.dtype and torch.equal(value, other):
                    node.target = name
                    break
            else:
                node.target = f"_traced_constant{len(self.constants)}"
                self.constants.append((node.target, value))
                self.body.register_buffer(node.target, value, persistent=False)

    def look(self, graph: fx.Graph) -> None:
        """Finds the activations and dropouts of a graph."""
        activations: list[Call] = []
        dropouts: list[Call] = []
        for node in graph.nodes:
            module = self.modules[node.target] if node.op == "call_module" else None
            name = step_name(node, self.modules)
            self.seen.add(name)
            found, source = find(node, module), input_of(node)
            dropout = type(module) in DROPOUTS or (node.op == "call_function" and node.target in DROPOUT_FUNCTIONS)
            if source is None or not (found or dropout):
                continue
            if not source.meta["varies"]:
                self.still.add(node)
                continue
            if found and not source.meta.get("floating"):
                if module is None and name_of(node).startswith("cl"):
                    continue  # clamped indices
                raise refusal(where(node), "it is an activation of whole numbers, and a neuron needs a current")
            if found and found.function is None:
                raise refusal(where(node), "its settings are computed by other steps; use a module, such as nn.PReLU")
            check_sound(source)
            owner = str(node.meta["path"] if module is None else node.target)
            (dropouts if dropout else activations).append(Call(node, owner, module is None, name))
        self.calls.append((activations, dropouts))
        self.analogue += map(where, staying(graph, self.modules))

    def count(self) -> None:
        """Gives each use of evaluation and training mode its place; what both have has the same."""
        self.activations = numbered([activations for activations, _ in self.calls])
        for node, use in numbered([dropouts for _, dropouts in self.calls]).items():
            # A dropout module draws anew at each call, so it may serve several.
            self.dropouts[node] = use if use.function else Use(use.owner, 0, False)

    def place(self) -> None:
        """Puts a module in each activation's and each dropout's place."""
        if not self.activations and self.unseen:
            raise refusal(
                self.unseen[0],
                "it writes into a view of a tensor, and what is then done with the tensor cannot be followed; give the "
                "result a name and go on with that: y = F.relu(x)",
            )
        if not self.activations:
            kept = [name for name in KEPT if name in self.seen]
            hint = f" ({', '.join(kept)} would stay what it is)" if kept else ""
            raise refusal(type(self.body).__name__, f"there is no activation that a neuron could replace{hint}")
        uses = Counter({use.owner: 0 for use in self.activations.values()})
        for use in set(self.activations.values()):
            uses[use.owner] += 1
        for node, use in self.activations.items():
            if use not in self.sites:
                slots = self._function_slot(use, "spikes") if use.function else self._module_slots(use, uses[use.owner])
                self.sites[use] = _site(node, slots, find(node, None if use.function else self.modules[use.owner]))
        for node, use in self.dropouts.items():
            if use not in self.masks:
                slots = self._function_slot(use, "dropouts") if use.function else self._places(self.modules[use.owner])
                self.masks[use] = _path(slots[0])
                _put(self.body, slots, self._mask(node))
        for use, site in self.sites.items():
            assert site.found.function is not None
            site.put(
                self.body, Analogue(site.found.function, self._slope(use, site), site.dim).train(self.body.training)
            )

    def rewrite(self, graph: fx.Graph, training: bool) -> None:
        """Has a graph call these modules."""
        replaced = {use.owner for use in [*self.sites, *self.masks] if not use.function}
        for node in list(graph.nodes):
            if node in self.activations:
                call_spike(node, self.sites[self.activations[node]].path)
            elif node in self.dropouts:
                path, dim = self.masks[self.dropouts[node]], node.meta["layout"].dim
                mask = self.body.get_submodule(path)
                assert isinstance(mask, OneMask)
                call_module(node, path, *([dim] if dim != mask.dim else []))
            elif node in self.still and node.target in replaced:
                module = self.modules[str(node.target)]
                call_plain(node, module, find(node, module), training)
        graph.eliminate_dead_code(has_effect)

    def _slope(self, use: Use, site: Site) -> nn.Parameter | Slope | None:
        """The learned slope of an activation, which stays where it is."""
        if site.found.slope is not None:
            path, _, name = site.found.slope.rpartition(".")
            module = self.body.get_submodule(path)
            return Slope(module._parameters if name in module._parameters else module._buffers, name)
        module = None if use.function else self.modules[use.owner]
        if not isinstance(module, nn.PReLU):
            return None
        container = self.containers.get(use.owner)
        if container is None:
            return module.weight
        container.register_parameter("weight", module.weight)
        return Slope(container._parameters, "weight")

    def _mask(self, node: fx.Node) -> OneMask:
        dim = node.meta["layout"].dim
        if node.op == "call_module":
            module: Any = self.modules[str(node.target)]
            return OneMask(DROPOUTS[type(module)], module.p, dim, self.clock).train(module.training)
        p = node.args[1] if len(node.args) > 1 else node.kwargs.get("p", 0.5)
        assert isinstance(p, float | int)
        return OneMask(DROPOUT_FUNCTIONS[node.target], p, dim, self.clock).train(self.body.training)

    def _function_slot(self, use: Use, container: str) -> tuple[Slot, ...]:
        owner = self.modules[use.owner]
        while not isinstance(getattr(owner, container, _Sites()), _Sites):
            container += "_"
        if container not in owner._modules:
            owner._modules[container] = _Sites()
        return ((f"{use.owner}.{container}".removeprefix("."), str(use.index)),)

    def _module_slots(self, use: Use, uses: int) -> tuple[Slot, ...]:
        module = self.modules[use.owner]
        places = self._places(module)
        if uses == 1:
            return places
        if uses == len(places):
            return (places[use.index],)
        # The same module at several places: a list of neurons where it was.
        container = self.containers.setdefault(use.owner, _Sites())
        _put(self.body, places, container)
        return ((_path(places[0]), str(use.index)),)

    def _places(self, module: nn.Module) -> tuple[Slot, ...]:
        """All names of a module; a block that has two itself counts once."""
        places: dict[tuple[int, str], Slot] = {}
        for path, parent in self.modules.items():
            for name, child in parent._modules.items():
                if child is module or (isinstance(child, _Sites) and self.modules.get(_path((path, name))) is module):
                    places.setdefault((id(parent), name), (path, name))
        return tuple(places.values())


class _Sites(nn.ModuleList):
    """The neurons of several uses."""


def _site(node: fx.Node, slots: tuple[Slot, ...], found: Found | None) -> Site:
    layout: Layout = node.meta["layout"]
    shape = list(node.meta["shape"])
    shape[layout.dim] = layout.factor
    assert found is not None
    image = tuple(size for dim, size in enumerate(shape) if dim != layout.dim or layout.factor > 1)
    return Site(_path(slots[0]), slots, found, image, layout.dim)


def _path(slot: Slot) -> str:
    return ".".join(slot).removeprefix(".")


def _put(network: nn.Module, slots: tuple[Slot, ...], module: nn.Module) -> None:
    for parent, name in slots:
        network.get_submodule(parent)._modules[name] = module


def check_answer(graph: fx.Graph) -> None:
    """Refuses a network whose answer is not one tensor ``[B, ...]``."""
    answer = next(node for node in graph.nodes if node.op == "output").args[0]
    if not isinstance(answer, fx.Node) or not answer.meta["tensor"]:
        raise refusal("its output", _SEVERAL)
    if check_sound(answer) != Layout(0, 1):
        raise refusal("its output", f"the answer has no batch dimension in front: {list(answer.meta['shape'])}")
