"""Feature taps of a traced network: those it names itself, else the activations where the size is about to halve."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import fx, nn

from spikedistill.errors import nearest, shortened


def stages_and_blocks(graph: fx.Graph, channels_last: frozenset[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Names for the activations of a rebuilt graph.

    A stage is a run of activations with maps of one size, up to the first of about half of it. The maps of gates
    (squeeze-and-excitation: one pixel, before larger ones follow), of a decoder (sizes that grow again) and maps whose
    channels are the last dimension (behind a linear layer) are none. It ends with its last activation that everything
    passes through, such as the one behind a residual addition, else with its last one. Its blocks are all those that
    everything passes through, else the end alone.

    Args:
        graph: rebuilt, of evaluation mode.
        channels_last: names of modules behind which the last dimension is the channels'.

    Returns:
        ``stages`` and ``blocks`` as in ``Network``; empty for a network without maps ``[N, C, H, W]``.
    """
    maps = [node for node in graph.nodes if node.meta.get("spike") and _is_map(node, channels_last)]
    narrow = _narrow(graph)
    stages: dict[str, str] = {}
    blocks: dict[str, str] = {}
    for number, stage in enumerate(_runs(maps), 1):
        passed = [node for node in stage if node in narrow]
        ends = passed or stage[-1:]
        stages[f"stage{number}"] = str(ends[-1].target)
        blocks |= {f"stage{number}.block{block}": str(node.target) for block, node in enumerate(ends, 1)}
    return stages, blocks


def _is_map(node: fx.Node, channels_last: frozenset[str]) -> bool:
    layout, source = node.meta["layout"], node.all_input_nodes[0]
    if source.target in channels_last or source.target is F.linear:
        return False
    return len(node.meta["shape"]) == 4 and layout.dim == 0 and layout.factor == 1


def _side(node: fx.Node) -> tuple[int, int]:
    return node.meta["shape"][2], node.meta["shape"][3]


def _runs(maps: list[fx.Node]) -> list[list[fx.Node]]:
    """The activations of each stage."""
    area = [_side(node)[0] * _side(node)[1] for node in maps]
    trunk = [node for i, node in enumerate(maps) if area[i] > 1 or max(area[i:]) == 1]
    runs: list[list[fx.Node]] = []
    for node in trunk:
        if not runs or _halved(_side(runs[-1][-1]), _side(node)):
            runs.append([node])
        elif not _halved(_side(node), _side(runs[-1][-1])):
            runs[-1].append(node)
    # What was pooled to one pixel at once is the classifier's, no stage.
    if len(runs) > 1 and _side(runs[-1][0]) == (1, 1) and max(_side(runs[-2][-1])) > 3:
        runs.pop()
    return runs


def _halved(before: tuple[int, int], after: tuple[int, int]) -> bool:
    return any(2 * b <= a + 1 and b < a for a, b in zip(before, after, strict=True))


def _narrow(graph: fx.Graph) -> set[fx.Node]:
    """The activations that everything passes through: nothing computed before them is used behind them."""
    order = {node: position for position, node in enumerate(graph.nodes)}
    reach = 0
    found: set[fx.Node] = set()
    for node in graph.nodes:
        if not node.meta.get("tensor") or not node.meta["varies"]:
            continue
        if node.meta.get("spike") and reach <= order[node]:
            found.add(node)
        # Sizes are no information about the image.
        users = [order[user] for user in node.users if user.meta.get("tensor", True)]
        reach = max([reach, *users])
    return found


def found_points(graphs: Mapping[bool, fx.Graph], linear: frozenset[str]) -> dict[str, dict[str, str]]:
    """The features of the graph of evaluation mode that are computed in training, too."""
    both = {node.target for node in graphs[True].nodes}
    found = zip(("stages", "blocks"), stages_and_blocks(graphs[False], linear), strict=True)
    return {level: {name: path for name, path in points.items() if path in both} for level, points in found}


def own_points(network: nn.Module, paths: Sequence[str]) -> dict[str, dict[str, str]]:
    """The features that the network names itself, of a level where each of them is an activation that was replaced."""
    found = {}
    for level in ("stages", "blocks"):
        points = network.__dict__.get(level)
        if not isinstance(points, Mapping) or not all(isinstance(path, str) for path in points.values()):
            continue
        strange = [path for path in points.values() if path not in paths]
        if points and not strange:
            found[level] = dict(points)
        elif strange:
            warnings.warn(
                f"{type(network).__name__}.{level} names '{strange[0]}', where no activation is"
                f"{nearest(strange[0], paths)}; features are taken where the size halves "
                f"(activations: {shortened(paths, 12)})",
                UserWarning,
                stacklevel=2,
            )
    return found
