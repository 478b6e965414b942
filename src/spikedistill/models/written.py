"""Activations that are written out, such as ``x * torch.sigmoid(x)`` or ``x * F.relu6(x + 3) / 6``.

There is no end of ways to write one, so none is listed: a step that pointwise steps alone lead to from one tensor is
tried on numbers, and is the activation whose values and slopes it has.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache, lru_cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from spikedistill.models.rebuild import has_effect, name_of
from spikedistill.models.replaceable import find, swish, written

CASTS = frozenset({"to", "float", "double", "half", "bfloat16", "type", "type_as", "contiguous", "clone", "identity"})
FILLED = {"zeros": 0.0, "zeros_like": 0.0, "new_zeros": 0.0, "ones": 1.0, "ones_like": 1.0, "new_ones": 1.0}
COMPARISONS = frozenset({"gt", "lt", "ge", "le", "greater", "less", "greater_equal", "less_equal", "heaviside", "sign"})
CURVES = frozenset({"sigmoid", "tanh", "hardsigmoid", "logsigmoid", "erf", "sin", "atan", "arctan"})
"""Pointwise steps that saturate or bend, and that spikes do not replace."""
ENDS = frozenset(
    {"mul", "multiply", "div", "truediv", "divide", "true_divide", "add", "sub", "subtract", "rsub", "where", "max"}
    | {"min", "maximum", "minimum", "fmax", "fmin", "masked_fill", "with_item", "log", "log1p", "logaddexp"}
)
"""Steps with which a written-out activation may end."""
POINTWISE = (
    ENDS
    | CASTS
    | COMPARISONS
    | CURVES
    | {"detach", "neg", "abs", "exp", "expm1", "pow", "square", "sqrt", "reciprocal", "erfc", "logical_not", "invert"}
    | {"relu6", "hardtanh", "clamp", "clip", "clamp_min", "clamp_max", "softplus"}
)
LONGEST = 24
"""Steps that an activation is written in, at most."""


def step_name(node: fx.Node, modules: Mapping[str, nn.Module]) -> str:
    """What a step is called, be it a module, a function or a method."""
    return type(modules[str(node.target)]).__name__.lower() if node.op == "call_module" else name_of(node)


def spell(graph: fx.Graph, modules: Mapping[str, nn.Module]) -> None:
    """Puts the function of that name where an activation is written out."""
    # From the end: the whole of x * relu6(x + 3) / 6 is a hard swish, and a part of it a gate.
    for node in reversed(list(graph.nodes)):
        if not node.users or not (step_name(node, modules) in ENDS or hasattr(node.target, "opaque")):
            continue
        for source, steps in cones(node, modules):
            answer = recognised(_trial(source, steps, modules))
            if answer is not None:
                _replace(node, source, *answer)
                break
    graph.eliminate_dead_code(has_effect)


def _replace(node: fx.Node, source: fx.Node, name: str, function: Callable[..., Tensor], settings: Any) -> None:
    with node.graph.inserting_before(node):
        call = node.graph.create_node("call_function", function, (source,), settings)
    call.meta = dict(node.meta) | {"written": name}
    node.replace_all_uses_with(call)
    node.graph.erase_node(node)


def cones(
    node: fx.Node, modules: Mapping[str, nn.Module], learned: bool = False
) -> Iterator[tuple[fx.Node, list[fx.Node]]]:
    """The tensors of which a step is a pointwise function, the nearest first, and the steps between.

    Args:
        node: the step.
        modules: by path.
        learned: whether the function may have the network's weights in it.
    """
    front, steps = {node}, []
    while len(steps) < LONGEST:
        current = max(front)  # the last in the graph
        inputs = _inputs(current, modules, learned)
        if inputs is None or current.meta.get("shape") != node.meta.get("shape") or current.meta.get("noisy"):
            return
        front = (front - {current}) | inputs
        steps.append(current)
        if not front:
            return
        source = next(iter(front))
        alike = source.meta.get("floating") and source.meta.get("shape") == node.meta.get("shape")
        if len(front) == 1 and alike:
            yield source, steps[::-1]


def _inputs(node: fx.Node, modules: Mapping[str, nn.Module], learned: bool) -> set[fx.Node] | None:
    """What a pointwise step makes something of, constants apart; None if it is not pointwise."""
    name = step_name(node, modules)
    if name in CASTS:
        return set(node.all_input_nodes[:1])
    if name not in POINTWISE and not hasattr(node.target, "opaque"):
        return None
    if name in ("max", "min") and not (len(node.args) == 2 and isinstance(node.args[1], fx.Node)):
        return None  # over a dimension
    left = {each for each in node.all_input_nodes if _constant(each) is None}
    fixed = {each for each in left if not each.meta["varies"]}
    return None if fixed and not learned else left - fixed


def _constant(node: fx.Node) -> float | None:
    """The number that a tensor made on the way consists of, if it is one."""
    name = name_of(node)
    if name in FILLED:
        return FILLED[name]
    at = {"tensor": 0, "as_tensor": 0, "scalar_tensor": 0, "full": 1, "full_like": 1, "new_full": 2}.get(name)
    value = node.args[at] if at is not None and len(node.args) > at else None
    return float(value) if isinstance(value, int | float) else None


@cache
def _numbers() -> Tensor:
    """None of them where an activation has its bends."""
    return torch.cat([torch.linspace(-7.03, 7.03, 200), torch.tensor([-29.5, 1.0, 29.5])]).double()


def _trial(source: fx.Node, steps: list[fx.Node], modules: Mapping[str, nn.Module]) -> Callable[[Tensor], Tensor]:
    """The steps as a function."""
    # A kernel of the user's own may be one for the network's device alone; ours and torch's are for any.
    own = any(hasattr(node.target, "opaque") for node in steps)

    def run(x: Tensor) -> Tensor:
        x = x.to(source.meta["device"]) if own else x
        values: dict[fx.Node, Any] = {source: x}

        def value(node: fx.Node) -> Any:
            if node in values:
                return values[node]
            number = _constant(node)
            return None if number is None else torch.tensor(number, dtype=x.dtype)

        for node in steps:
            if step_name(node, modules) in CASTS:
                values[node] = value(node.all_input_nodes[0]).to(x.dtype)
                continue
            args, kwargs = map_arg(node.args, value), map_arg(node.kwargs, value)
            if node.op == "call_module":
                target: Any = copy.copy(modules[str(node.target)])
                target.inplace = False
            else:
                target = node.target if node.op == "call_function" else getattr(Tensor, str(node.target))
            values[node] = target(*args, **kwargs)
        return values[steps[-1]].cpu()

    return run


def tried(function: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor] | None:
    """The values and slopes of a function, None where it has none."""
    with torch.enable_grad():
        x = _numbers().clone().requires_grad_(True)
        try:
            values = function(x * 1.0)
            (slopes,) = torch.autograd.grad(values.sum(), x)
        except Exception:  # a code of the user's that takes other tensors than this
            return None
    fine = values.shape == x.shape and bool(values.isfinite().all()) and bool(slopes.isfinite().all())
    return (values.detach(), slopes) if fine else None


def recognised(function: Callable[[Tensor], Tensor]) -> tuple[str, Callable[..., Tensor], dict[str, Any]] | None:
    """The activation that a function is: how it is written, and the function of that name with its settings."""
    found = tried(function)
    if found is None or torch.allclose(found[1], found[1][0]):  # a straight line, as most steps are
        return None
    for name, known, settings in _known(found[0]):
        other = _of_known(known, tuple(settings.items()))
        if other is not None and all(torch.allclose(a, b, 1e-4, 1e-4) for a, b in zip(found, other, strict=True)):
            return name or f"{written(known)}, written out", known, settings
    return None


@lru_cache(256)
def _of_known(function: Callable[..., Tensor], settings: tuple[tuple[str, Any], ...]) -> tuple[Tensor, Tensor] | None:
    return tried(partial(function, **dict(settings)))


def _known(values: Tensor) -> Iterator[tuple[str, Callable[..., Tensor], dict[str, Any]]]:
    """Activations that may have these values."""
    for function in (F.relu, F.relu6, F.hardswish, F.mish, F.softplus, F.hardsigmoid):
        yield "", function, {}
    for approximate in ("none", "tanh"):
        yield "", F.gelu, {"approximate": approximate}
    lowest, at_one, highest = (float(value) for value in values[-3:])
    if 0.5 < at_one < 1.0:
        beta = round(math.log(at_one / (1.0 - at_one)), 6)
        yield f"x * sigmoid({'' if beta == 1.0 else f'{beta:g} * '}x)", swish, {"beta": beta}
    if 0.0 < -lowest / 29.5 < 0.9:
        yield "", F.leaky_relu, {"negative_slope": -lowest / 29.5}
    if lowest < 0.0:
        yield "", F.elu, {"alpha": -lowest}
    if 0.0 < highest < 29.0:
        yield "", torch.clamp, {"min": 0.0, "max": highest}


def bends(function: Callable[[Tensor], Tensor]) -> bool:
    """Whether a function is far from a straight line; rounding is not."""
    found = tried(function)
    if found is None:
        return False
    x, y = _numbers(), found[0]
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())
    return float((y - y.mean() - slope * (x - x.mean())).abs().max()) > 0.1 * float(y.max() - y.min())


def is_bent(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Whether a step of the user's own (an autograd function) is a pointwise function that is no straight line."""
    return any(bends(_trial(source, steps, modules)) for source, steps in cones(node, modules))


def replaced(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Whether a neuron takes a step's place."""
    return find(node, modules[str(node.target)] if node.op == "call_module" else None) is not None
