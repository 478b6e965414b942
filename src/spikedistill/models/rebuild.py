"""From a traced graph to the graph of a network in folded time.

What writes in place is made to return a copy; activations and dropouts become modules.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from spikedistill.models.folded import (
    DROPOUTS,
    amplified,
    same_at_every_step,
    step_by_step,
    with_item,
)
from spikedistill.models.probe import Layout, refusal
from spikedistill.models.replaceable import Found
from spikedistill.spiking.deferred import settle

_NOISE_IN_PLACE = (
    "bernoulli_",
    "uniform_",
    "normal_",
    "exponential_",
    "random_",
    "log_normal_",
    "cauchy_",
    "geometric_",
)
_SIZED = ("rand_like", "randn_like", "randint_like", "rand", "randn", "randint", "normal")
NOISE = (*_NOISE_IN_PLACE, *_SIZED, "bernoulli")
"""Steps that draw random numbers. Where they have a batch dimension, the numbers are the same at every timestep."""

_VIEWS = {"view": "reshape", "view_as": "reshape_as"}


def input_of(node: fx.Node) -> fx.Node | None:
    """The tensor that a step is about: its first argument."""
    first = node.args[0] if node.args else node.kwargs.get("input")
    return first if isinstance(first, fx.Node) else None


def name_of(node: fx.Node) -> str:
    """What a step is called in the code it was traced from."""
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))


def where(node: fx.Node) -> str:
    """Where a step stands, for people."""
    path = node.target if node.op == "call_module" else node.meta.get("path")
    return f"'{path}' ({name_of(node)})" if path and path != node.target else f"'{name_of(node)}'"


def check_sound(node: fx.Node) -> Layout:
    """Where the batch is in a node's value.

    Raises:
        UserError: the images of a batch do not stay apart up to here.
    """
    layout = node.meta.get("layout")
    if node.meta["sound"] and layout is not None:
        return layout
    before, queue = set(), [node]
    while queue:
        current = queue.pop()
        if current not in before:
            before.add(current)
            queue += current.all_input_nodes
    culprit = next((n for n in node.graph.nodes if n in before and not n.meta["sound"]), node)
    raise refusal(
        where(culprit),
        "the images of a batch do not stay apart here: it mixes them, reorders them or fixes their number, and T is "
        "folded into the batch",
    )


def without_writes(graph: fx.Graph, module_of: Callable[[str], nn.Module]) -> list[str]:
    """Makes every step that writes into its argument return a new tensor; what comes later uses that one.

    Buffers are still written to (a BatchNorm's statistics). ``module_of`` finds modules by path. Returns where steps
    stand whose result nobody uses: they were meant to change a tensor of which their argument is a view.
    """
    written: dict[fx.Node, str] = {}
    order = {node: position for position, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        victim = input_of(node)
        if victim is None or victim.op == "get_attr" or not victim.meta.get("tensor"):
            continue
        if _writes(node, module_of):
            written[node] = where(node)
            _return_instead(node)
        elif not (node.op == "call_method" and node.target in _NOISE_IN_PLACE):
            continue
        for user in list(victim.users):
            if user is not node and order[user] > order[node]:
                user.replace_input_with(victim, node)
    graph.eliminate_dead_code(has_effect)
    left = set(graph.nodes)
    return [place for node, place in written.items() if node not in left]


def for_any_layout(graph: fx.Graph) -> None:
    """Makes ``reshape`` of ``view``, which would ask for a layout in memory: here feature maps may be channels-last."""
    for node in graph.nodes:
        shaped = node.op == "call_method" and node.target in _VIEWS and not node.kwargs
        if shaped and not isinstance(node.args[-1], torch.dtype):
            node.target = _VIEWS[str(node.target)]


def _writes(node: fx.Node, module_of: Callable[[str], nn.Module]) -> bool:
    if node.op == "call_module":
        return getattr(module_of(str(node.target)), "inplace", False) is True
    if node.op == "call_method":
        return _plain_method(str(node.target)) is not None
    return node.op == "call_function" and (
        node.target is operator.setitem or _plain_function(node.target) is not None or _inplace_argument(node)
    )


def _plain_method(name: str) -> str | None:
    plain = name.rstrip("_")
    known = plain and callable(getattr(Tensor, plain, None))  # requires_grad_ is no write, and requires_grad no method
    return plain if name.endswith("_") and name not in NOISE and known else None


def _plain_function(function: Any) -> Any:
    name = getattr(function, "__name__", "")
    if not name.endswith("_") or name.endswith("__"):
        return None
    return getattr(F, name[:-1], None) or getattr(torch, name[:-1], None)


def _inplace_argument(node: fx.Node) -> bool:
    try:
        bound = inspect.signature(node.target).bind(*node.args, **node.kwargs)  # pyright: ignore
    except (TypeError, ValueError):
        return bool(node.kwargs.get("inplace"))
    return bound.arguments.get("inplace") is True


def _return_instead(node: fx.Node) -> None:
    if node.op == "call_method":
        node.target = _plain_method(str(node.target)) or node.target
    elif node.target is operator.setitem:
        node.target = with_item
        node.meta = dict(input_of(node).meta) | {"path": node.meta.get("path")}  # pyright: ignore
    elif node.op == "call_function":
        plain = _plain_function(node.target)
        if plain is not None:
            node.target = plain
        else:
            bound = inspect.signature(node.target).bind(*node.args, **node.kwargs)  # pyright: ignore
            bound.arguments["inplace"] = False
            node.args, node.kwargs = bound.args, bound.kwargs


def has_effect(node: fx.Node) -> bool:
    """Whether a step does more than return something."""
    if node.op == "call_method" and str(node.target).endswith("_") and not str(node.target).endswith("__"):
        return True
    return node.op in ("placeholder", "output") or node.target is operator.setitem


def call_spike(node: fx.Node, path: str) -> None:
    """Puts a call of the neuron at ``path``, and its amplification, in an activation's place."""
    graph, source = node.graph, input_of(node)
    assert source is not None
    with graph.inserting_after(node):
        spikes = graph.create_node("call_module", path, (source,))
    with graph.inserting_after(spikes):
        module = graph.create_node("get_attr", path)
    with graph.inserting_after(module):
        output = graph.create_node("call_function", amplified, (module, spikes))
    spikes.meta = dict(node.meta) | {"spike": True}
    module.meta = {"tensor": False, "layout": None, "sound": True, "varies": False, "path": path}
    output.meta = dict(node.meta)
    node.replace_all_uses_with(output)
    graph.erase_node(node)


def call_module(node: fx.Node, path: str, *settings: int) -> None:
    """Puts a call of the module at ``path``, with more arguments if any, in a function's place."""
    source = input_of(node)
    assert source is not None
    with node.graph.inserting_after(node):
        call = node.graph.create_node("call_module", path, (source, *settings))
    call.meta = dict(node.meta)
    node.replace_all_uses_with(call)
    node.graph.erase_node(node)


def call_plain(node: fx.Node, module: nn.Module, found: Found | None, training: bool) -> None:
    """Has a module's use on what is the same for all images (a weight) call the function; neurons take its place."""
    graph, source = node.graph, input_of(node)
    assert source is not None
    with graph.inserting_before(node):
        if found is None:
            function: Any = DROPOUTS[type(module)]
            call = graph.create_node("call_function", function, (source, module.p, training))  # pyright: ignore
        else:
            assert isinstance(found.function, partial)
            call = graph.create_node("call_function", found.function.func, (source,), found.function.keywords)
            if isinstance(module, nn.PReLU):
                with graph.inserting_before(call):
                    slope = graph.create_node("get_attr", f"{node.target}.weight")
                slope.meta = {"tensor": True, "layout": None, "sound": True, "varies": False}
                call.args = (source, slope)
    call.meta = dict(node.meta)
    node.replace_all_uses_with(call)
    graph.erase_node(node)


def with_plain_inputs(graph: fx.Graph, module_of: Callable[[str], nn.Module]) -> None:
    """Gives code that nobody looks into plain tensors: an autograd.Function inside would cut a deferred one's gradient.

    Args:
        graph: a rebuilt graph.
        module_of: finds modules by path.
    """
    for node in list(graph.nodes):
        if node.op == "call_function":
            owner = getattr(node.target, "__self__", None)
            strange = hasattr(node.target, "opaque") or (
                isinstance(owner, type) and issubclass(owner, torch.autograd.Function)
            )
        else:
            own = node.op == "call_module" and type(module_of(str(node.target))).__module__
            strange = isinstance(own, str) and not own.startswith(("torch.nn.", "torch.ao.nn.", "spikedistill."))
        if not strange:
            continue
        for source in node.all_input_nodes:
            if source.meta.get("tensor") and source.op != "get_attr":
                with graph.inserting_before(node):
                    plain = graph.create_node("call_function", settle, (source,))
                plain.meta = dict(source.meta) | {"noisy": False}
                node.replace_input_with(source, plain)


def add_time(graph: fx.Graph, masks: frozenset[str]) -> None:
    """Gives the graph its second argument, T, and makes its random numbers the same at every step.

    Args:
        graph: a rebuilt graph.
        masks: paths of the dropout modules, which see to that themselves.
    """
    images = next(node for node in graph.nodes if node.op == "placeholder")
    with graph.inserting_after(images):
        timesteps = graph.create_node("placeholder", "timesteps")
    timesteps.meta = {"tensor": False, "layout": None, "sound": True, "varies": False}
    for node in list(graph.nodes):
        if not node.meta.get("noisy") or (node.op == "call_module" and node.target in masks):
            continue
        layout = node.meta.get("layout")
        if name_of(node) == "randperm" and layout is not None:
            raise refusal(where(node), "it draws an order of the images, which a batch with T folded into it has not")
        if name_of(node) in NOISE and node.op != "call_module" and not _by_values(node):
            if layout is None:
                continue  # numbers that have nothing to do with the batch
            with graph.inserting_after(node):
                held = graph.create_node("call_function", same_at_every_step, (node, timesteps, layout.dim))
            held.meta = dict(node.meta)
            node.replace_all_uses_with(held, lambda user, held=held: user is not held)
        else:
            _hold_noise(node, timesteps)


def _by_values(node: fx.Node) -> bool:
    """Whether what is drawn depends on values that differ from step to step, such as probabilities."""
    given = [leaf for leaf in pytree.tree_leaves((node.args, node.kwargs)) if isinstance(leaf, fx.Node)]
    if name_of(node) in _NOISE_IN_PLACE:
        given = given[1:]  # what is written over
    elif name_of(node).endswith("_like") or (name_of(node) == "bernoulli" and _probability(node) is not None):
        given = []
    return any(leaf.meta["varies"] and leaf.meta["tensor"] for leaf in given)


def _probability(node: fx.Node) -> Any:
    return node.kwargs.get("p", node.args[1] if len(node.args) > 1 else None)


def _hold_noise(node: fx.Node, timesteps: fx.Node) -> None:
    if node.op == "call_method" and node.target == "bernoulli":
        node.op, node.target = "call_function", torch.bernoulli
    if node.op == "call_method":
        raise refusal(where(node), "it draws random numbers in a way that cannot be the same at every timestep")
    graph = node.graph
    dims = [
        _dim(leaf.meta["layout"]) if isinstance(leaf, fx.Node) else -1
        for leaf in pytree.tree_leaves((node.args, node.kwargs))
    ]
    out = [node.meta["layout"]] if node.meta["tensor"] else node.meta["dims"]
    with graph.inserting_before(node):
        module, target = None, step_by_step
        if node.op == "call_module":
            module = graph.create_node("get_attr", str(node.target))
            module.meta = {"tensor": False, "layout": None, "sound": True, "varies": False}
        else:
            target = _stepping(node.target)
        arguments = (module, timesteps, dims, [_dim(layout) for layout in out], node.args, node.kwargs)
        held = graph.create_node("call_function", target, arguments)
    held.meta = dict(node.meta) | {"stepping": True}
    node.replace_all_uses_with(held)
    graph.erase_node(node)


def _stepping(function: Any) -> Callable[..., Any]:
    """``step_by_step`` of a function: code calls functions by name, it cannot pass them."""

    def call(_: None, *arguments: Any) -> Any:
        return step_by_step(function, *arguments)

    call.__name__ = call.__qualname__ = f"step_by_step_{getattr(function, '__name__', '')}_{id(function)}"
    return call


def _dim(layout: Layout | None) -> int:
    return -1 if layout is None else layout.dim
