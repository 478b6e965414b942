"""From anybody's network to a graph: ``torch.fx`` tracing with values.

Every step is carried out while it is recorded, for a batch of four images and for the middle two of them alone. So the
tracer knows shapes and may decide conditions on them, sees where the batch dimension went, and notices at once what
stands in a spiking network's way: time is folded into the batch, therefore a step may look at the values of a tensor
in no condition, must work for any batch size, and must treat each image by itself (``probe``).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate
from torch.overrides import TorchFunctionMode

from spikedistill.errors import UserError, first_line
from spikedistill.models.folded import noise_state
from spikedistill.models.known import Known
from spikedistill.models.patched import recorded
from spikedistill.models.probe import judge, refusal
from spikedistill.models.uses import lines

TRANSPARENT = (
    nn.Sequential,
    nn.Transformer,
    nn.TransformerEncoder,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoder,
    nn.TransformerDecoderLayer,
)
"""torch's own modules that have activations inside; all others are taken as one step."""


class Opaque(TorchFunctionMode):
    """Refuses an activation inside a step that is not looked into."""

    def __init__(self, where: Callable[[], str], is_activation: Callable[..., bool]) -> None:
        super().__init__()
        self.where, self.is_activation = where, is_activation

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.is_activation(func, args, kwargs):
            name = getattr(func, "__name__", str(func))
            raise refusal(self.where(), f"it cannot be traced, and there is an activation inside ({name})")
        return func(*args, **(kwargs or {}))


class ValueTracer(fx.Tracer):
    """Records a network and its values.

    Args:
        rows: the batch of four.
        is_activation: whether a function called with arguments is one of those that neurons replace.

    Each node's ``meta`` has ``path`` (of the module whose code it stands in) and what ``probe.judge`` found.
    """

    proxy_buffer_attributes = True

    def __init__(self, rows: Tensor, is_activation: Callable[..., bool]) -> None:
        super().__init__()
        self.rows, self.is_activation = rows, is_activation
        self.working = False
        self._parameters: dict[str, fx.Proxy] = {}

    # What fx calls.

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return Known(node, self)

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> tuple[Any, list[Any]]:
        # Only the images are traced; whatever else the forward takes keeps its default.
        images = self.create_proxy("placeholder", "images", (), {})
        assert isinstance(images, Known)
        # Copies: a step may write into them, and training mode is traced with the same.
        images.values = (self.rows.clone(), self.rows[1:3].clone())
        images.node.meta |= judge(*images.values, compare=True)
        return root_fn, [self.root, images]

    def create_arg(self, a: Any) -> Any:
        if type(a) is not Known:
            return super().create_arg(a)
        if a.tracer is not self:
            raise self.refusal("it keeps something that it computed in an attribute and uses it at the next call")
        return a.node

    def create_node(self, kind: str, *rest: Any, **named: Any) -> fx.Node:
        node = super().create_node(kind, *rest, **named)
        node.meta |= {"path": self.scope.module_path, "tensor": False, "layout": None, "sound": True, "varies": False}
        node.meta["lines"] = lines()
        return node

    def create_proxy(
        self,
        kind: str,
        target: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        name: str | None = None,
        type_expr: Any = None,
        proxy_factory_fn: Any = None,
    ) -> Any:
        before = noise_state(self.rows.device)
        values = None if kind == "placeholder" else tuple(self._value(kind, target, args, kwargs, i) for i in (0, 1))
        noisy = not torch.equal(before, noise_state(self.rows.device))
        proxy = super().create_proxy(kind, target, args, kwargs, name, None, proxy_factory_fn)
        if values is not None:
            assert isinstance(proxy, Known)
            proxy.values = (values[0], values[1])
            # In training mode BatchNorm and noise make images depend on each other, and are meant to.
            proxy.node.meta |= judge(*values, compare=not self.root.training) | {"noisy": noisy}
        if kind == "get_attr" or torch.is_grad_enabled() or not proxy.node.meta.get("floating"):
            return proxy
        with torch.enable_grad():  # the code stands in torch.no_grad(), which leaves no node
            return self.create_proxy("call_method", "detach", (proxy,), {})

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m).__module__.startswith(("torch.nn.", "torch.ao.nn.")) and not isinstance(m, TRANSPARENT)

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.working:
            return forward(*args, **kwargs)
        assert self.submodule_paths is not None
        if m not in self.submodule_paths:
            if not self._is_slice(m) and any(True for _ in [*m.parameters(), *m.buffers()]):
                raise self.refusal(f"it calls a {type(m).__name__} with weights that is no sub-module of the network")
            return forward(*args, **kwargs)
        before, stack = len(self.graph.nodes), dict(self.module_stack)
        try:
            return super().call_module(m, forward, args, kwargs)
        except UserError:
            raise
        except Exception:
            # Code that fx cannot follow (scripts, numpy, isinstance): one step, if there is nothing to replace inside.
            self._forget(before)
            self.module_stack.clear()
            self.module_stack.update(stack)
            with self._scope(m):
                return self.create_proxy("call_module", self.path_of_module(m), args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        self._parameters = parameter_proxy_cache
        return attr_val if self.working else super().getattr(attr, attr_val, parameter_proxy_cache)

    # What is added.

    def refusal(self, reason: str) -> UserError:
        """A refusal that names the module in whose code the trace stands."""
        return refusal(self._where(), reason)

    def record(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Records a call that would otherwise be carried out once and for all."""
        if self.working:
            return function(*args, **kwargs)
        try:
            return self.create_proxy("call_function", function, args, kwargs)
        except NotImplementedError:  # arguments that no code can be written for, such as arrays
            return function(*args, **kwargs)

    def _is_slice(self, m: nn.Module) -> bool:
        """Whether a module is a Sequential made in forward (``self.features[:2]``) of what is registered."""
        registered: Any = self.submodule_paths
        return type(m) is nn.Sequential and all(child in registered for child in m)

    def _where(self) -> str:
        path = self.scope.module_path
        return f"'{path}' ({type(self.root.get_submodule(path)).__name__})" if path else type(self.root).__name__

    def _scope(self, m: nn.Module) -> Any:
        from torch.fx.proxy import Scope, ScopeContextManager

        return ScopeContextManager(self.scope, Scope(self.path_of_module(m), type(m)))

    def _forget(self, before: int) -> None:
        for node in list(reversed(self.graph.nodes))[: len(self.graph.nodes) - before]:
            self._parameters = {k: v for k, v in self._parameters.items() if v.node is not node}
            self.graph.erase_node(node)

    def _value(self, kind: str, target: Any, args: Any, kwargs: Any, which: int) -> Any:
        if kind == "get_attr":
            found: Any = self.root
            for atom in target.split("."):
                found = getattr(found, atom) if not isinstance(found, nn.Module) else self._attribute(found, atom)
            return found
        args, kwargs = map_aggregate((args, kwargs), lambda a: a.values[which] if type(a) is Known else a)  # pyright: ignore
        module = self.root.get_submodule(target) if kind == "call_module" else None
        opaque = (module is not None and not self.is_leaf_module(module, target)) or hasattr(target, "opaque")
        if kind == "call_method" and target == "requires_grad_":  # shapes and values do not depend on it
            return args[0]
        self.working = True
        try:
            with ExitStack() as stack:
                if opaque:
                    stack.enter_context(Opaque(self._where, self.is_activation))
                if module is not None:
                    return module(*args, **kwargs)
                return (
                    getattr(args[0], target)(*args[1:], **kwargs) if kind == "call_method" else target(*args, **kwargs)
                )
        except UserError:
            raise
        except Exception as error:
            name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
            reason = first_line(error)
            hint = "T is folded into the batch, so a reshape must take the batch size from its input: x.size(0), or -1"
            case = "in training mode" if self.root.training else "for another batch size than the example's"
            raise self.refusal(f"{name} fails {case} ({reason}); {hint}") from None
        finally:
            self.working = False

    def _attribute(self, module: nn.Module, name: str) -> Any:
        self.working, before = True, self.working
        try:
            return getattr(module, name)
        finally:
            self.working = before


def trace(network: nn.Module, rows: Tensor, is_activation: Callable[..., bool]) -> fx.Graph:
    """The graph of a network in the mode it is in.

    Args:
        network: a copy to trace on, without gradients: its buffers may change, and constants are attached to it.
        rows: images ``[4, ...]``.
        is_activation: whether a function called with arguments is one of those that neurons replace.

    Raises:
        UserError: it cannot be traced; the sentence says where and why.
    """
    tracer = ValueTracer(rows, is_activation)
    try:
        with torch.enable_grad(), recorded(tracer):
            graph = tracer.trace(network)
    except UserError:
        raise
    except Exception as error:
        reason = first_line(error)
        raise tracer.refusal(f"its forward cannot be traced: {reason}") from None
    for node in graph.nodes:
        node.type = None
    return graph
