"""What comes before the first neurons is computed once for an image that is the same at every step."""

from __future__ import annotations

from torch import fx
from torch.fx.node import map_arg

from spikedistill.models.folded import outline, repeated, same_at_every_step
from spikedistill.models.rebuild import has_effect


def once_where_possible(graph: fx.Graph, masks: frozenset[str]) -> fx.Graph:
    """The graph for images that are the same at every step: what precedes the first neurons is computed once.

    Args:
        graph: of folded time.
        masks: paths of the dropout modules.
    """
    return _Once(graph, masks).build()


class _Once:
    """Builds the new graph; ``once`` and ``folded`` say what a node has become before and behind the first neurons."""

    def __init__(self, graph: fx.Graph, masks: frozenset[str]) -> None:
        self.graph, self.masks, self.new = graph, masks, fx.Graph()
        self.once: dict[fx.Node, fx.Node] = {}
        self.folded: dict[fx.Node, fx.Node] = {}
        self.behind: set[fx.Node] = set()
        self.timesteps: fx.Node | None = None

    def build(self) -> fx.Graph:
        for node in self.graph.nodes:
            if node.meta.get("spike") or any(source in self.behind for source in node.all_input_nodes):
                self.behind.add(node)
        for node in self.graph.nodes:
            if node.op == "output":
                self.new.output(map_arg(node.args[0], self._at_every_step))
            elif node not in self.behind:
                self.once[node] = self._before(node)
            elif node.meta.get("spike") and not any(n in self.behind for n in node.all_input_nodes):
                self.folded[node] = self._method(node, "encode", self.once)
            else:
                self.folded[node] = self.new.node_copy(node, self._at_every_step)
        self.new.eliminate_dead_code(has_effect)
        return self.new

    def _before(self, node: fx.Node) -> fx.Node:
        if node.target is same_at_every_step:
            return self.once[node.all_input_nodes[0]]
        if node.op == "call_module" and node.target in self.masks:
            return self._method(node, "once", self.once)
        copy = self.new.node_copy(node, self.once.__getitem__)
        if node.meta.get("stepping"):
            copy.update_arg(1, 1)
        if node.op == "placeholder" and node.target == "timesteps":
            self.timesteps = copy
        return copy

    def _method(self, node: fx.Node, method: str, env: dict[fx.Node, fx.Node]) -> fx.Node:
        module = self.new.create_node("get_attr", str(node.target))
        call = self.new.create_node("call_method", method, (module, env[node.all_input_nodes[0]]))
        call.meta = dict(node.meta)
        return call

    def _at_every_step(self, node: fx.Node) -> fx.Node:
        if node in self.folded:
            return self.folded[node]
        if not node.meta["varies"]:
            return self.once[node]
        layout = node.meta["layout"]
        if layout is not None and node.meta["sound"]:
            made = self.new.create_node("call_function", repeated, (self.once[node], self.timesteps, layout.dim))
        else:
            # A size, or several tensors: the same step again, on what stands for its arguments at every step.
            inner = self._size if not node.meta["tensor"] and _is_size(node) else self._at_every_step
            made = self.new.node_copy(node, inner)
        self.folded[node] = made
        return made

    def _size(self, node: fx.Node) -> fx.Node:
        layout = node.meta["layout"]
        if not node.meta["tensor"] or layout is None or node in self.behind or not node.meta["sound"]:
            return self._at_every_step(node)
        return self.new.create_node("call_function", outline, (self.once[node], self.timesteps, layout.dim))


def _is_size(node: fx.Node) -> bool:
    return (node.op == "call_method" and node.target in ("size", "numel", "nelement")) or (
        node.target is getattr and node.args[1] == "shape"
    )
