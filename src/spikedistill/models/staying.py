"""Nonlinear steps that stay what they are, though somebody may have meant them for activations."""

from __future__ import annotations

import operator
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import fx, nn

from spikedistill.models.rebuild import input_of
from spikedistill.models.replaceable import UNUSUAL
from spikedistill.models.written import COMPARISONS, CURVES, cones, is_bent, replaced, step_name

_WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear, nn.Bilinear, nn.MultiheadAttention)
_FUNCTIONS = (
    *(F.linear, F.conv1d, F.conv2d, F.conv3d),
    *(F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d),
)
_PRODUCTS = (torch.matmul, torch.mm, torch.bmm, torch.einsum, operator.matmul, "matmul", "mm", "bmm")
_BENT = CURVES | {"abs", "square", "pow", "exp", "expm1", "sqrt", "rsqrt", "reciprocal", "log", "log1p", "cos"}
_GATING = frozenset({"mul", "multiply", "div", "truediv", "true_divide", "where", "masked_fill", "lerp"})
_ENDS = frozenset({"softmax", "scaled_dot_product_attention", "size", "getattr", "numel", "dim"})
"""Attention's weights are what they are, and sizes are no values."""


def staying(graph: fx.Graph, modules: Mapping[str, nn.Module]) -> list[fx.Node]:
    """The steps of a graph that act as activations and stay analogue.

    A gate is none (it multiplies something else than what it was computed from), nor are attention weights or what
    the network answers with: a step counts if a convolution or a linear layer takes what it makes.

    Args:
        graph: traced, before it is rewritten.
        modules: by path.
    """
    found = []
    for node in graph.nodes:
        source, name = input_of(node), step_name(node, modules) if node.op not in ("get_attr", "output") else ""
        if source is None or not node.meta["varies"] or not source.meta["varies"] or replaced(node, modules):
            continue
        if name in UNUSUAL:
            found.append(node)
        elif name in _BENT or _is_square(node, name) or (hasattr(node.target, "opaque") and is_bent(node, modules)):
            found += [node] if _feeds_a_layer(node, modules) else []
        elif name in COMPARISONS:
            ends = [user for user in node.users if _gates_itself(user, modules) and _feeds_a_layer(user, modules)]
            found += [user if step_name(user, modules) in _GATING else node for user in ends[:1]]
    return found


def _is_square(node: fx.Node, name: str) -> bool:
    return name in ("mul", "multiply") and len(node.args) == 2 and node.args[0] is node.args[1]


def _gates_itself(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    return any(True for _ in cones(node, modules, learned=True))


def _feeds_a_layer(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    seen, queue = {node}, list(node.users)
    while queue:
        user = queue.pop()
        if user in seen or user.op == "output" or not user.meta["varies"]:
            continue
        others = any(each.meta["varies"] for each in user.all_input_nodes if each not in seen)
        seen.add(user)
        name, product = step_name(user, modules), user.op != "call_module" and user.target in _PRODUCTS
        weighted = user.op == "call_module" and isinstance(modules[str(user.target)], _WEIGHTED)
        if weighted or user.target in _FUNCTIONS or (product and not others):
            return True
        gated = name in _GATING and others and not _gates_itself(user, modules)
        if not (product or gated or name in _ENDS or replaced(user, modules)):
            queue += user.users
    return False
