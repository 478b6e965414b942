"""What a trace changes of torch while it lasts, so that it records what ``torch.fx`` overlooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils import checkpoint

from spikedistill.errors import UserError
from spikedistill.models.known import Known

FACTORIES = (
    *("finfo", "iinfo"),
    *("arange", "as_tensor", "empty", "eye", "full", "linspace", "ones", "tensor", "zeros"),
    *("rand", "randn", "randint", "randperm", "normal"),
)
"""Functions that make something of no tensor: fx would carry them out once and for all, or not at all."""

NUMBERS_FIRST = (
    *("where", "pow", "float_power", "remainder", "xlogy", "isin", "bucketize", "result_type"),
    *("bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_left_shift", "bitwise_right_shift"),
)
"""Functions that also take a number where they take a tensor: torch looks for the number in what poses as a tensor
here, and ends the process."""
SPECIAL = (
    *("xlogy", "xlog1py", "zeta", "laguerre_polynomial_l", "legendre_polynomial_p"),
    *("hermite_polynomial_h", "hermite_polynomial_he"),
    *(f"{shifted}chebyshev_polynomial_{kind}" for shifted in ("", "shifted_") for kind in "tuvw"),
)
"""Those of ``torch.special``."""


@contextmanager
def recorded(tracer: Any) -> Iterator[None]:
    """Has a ``ValueTracer`` record tensors made of nothing, autograd functions and what scripted functions do."""

    def recording(function: Any, always: bool) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            return (tracer.record if always or _traced(args, kwargs) else _call)(function, args, kwargs)

        return call

    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        bound = original.__get__(None, cls)
        if cls is checkpoints[0] and not tracer.working:
            return straight(*args)
        if tracer.working or not _traced(args, kwargs):
            return bound(*args, **kwargs)
        return tracer.record(_named(bound, cls), args, kwargs)

    def straight(function: Any, _preserve: bool, *args: Any) -> Any:
        return function(*args)

    def nothing(*_: Any, **__: Any) -> Iterator[None]:
        yield

    original, script = torch.autograd.Function.__dict__["apply"], torch.jit.ScriptFunction.__call__
    # Checkpointing hands what it is given to C++; a twin remembers instead of computing once more.
    checkpoints = (checkpoint.CheckpointFunction, checkpoint._checkpoint_without_reentrant_generator)
    places = [*((torch, name) for name in (*FACTORIES, *NUMBERS_FIRST)), *((torch.special, name) for name in SPECIAL)]
    before = [(place, name, getattr(place, name)) for place, name in places if hasattr(place, name)]
    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        for place, name, function in before:
            setattr(place, name, recording(function, name in FACTORIES))
        torch.autograd.Function.apply = classmethod(apply)  # type: ignore[assignment]
        torch.jit.ScriptFunction.__call__ = _unscripted(tracer.refusal, script)
        checkpoint._checkpoint_without_reentrant_generator = nothing
        torch.backends.mha.set_fastpath_enabled(False)
        yield
    finally:
        for place, name, function in before:
            setattr(place, name, function)
        torch.autograd.Function.apply = original
        torch.jit.ScriptFunction.__call__ = script
        checkpoint._checkpoint_without_reentrant_generator = checkpoints[1]
        torch.backends.mha.set_fastpath_enabled(fast)


def _call(function: Any, args: Any, kwargs: Any) -> Any:
    return function(*args, **kwargs)


def _traced(args: Any, kwargs: Any) -> bool:
    return any(type(a) is Known for a in pytree.tree_leaves((args, kwargs)))


def _unscripted(refusal: Callable[[str], UserError], script: Any) -> Any:
    """Calls a scripted function as the Python that it was made from.

    TorchScript is C++: it takes what poses as a tensor for one, and ends the process.
    """

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        written = getattr(self, "_torchdynamo_inline", None)
        if written is not None:
            return written(*args, **kwargs)
        if _traced(args, kwargs):
            raise refusal(
                f"it calls the TorchScript function '{self.name}', which cannot be traced; call the Python function "
                "that it was made from"
            )
        return script(self, *args, **kwargs)

    return call


def _named(bound: Any, cls: type) -> Any:
    """A function of its own name: fx writes calls by name, and all ``apply`` have the same."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return bound(*args, **kwargs)

    call.__name__ = call.__qualname__ = f"apply_{cls.__name__}_{id(cls)}"
    call.opaque = True  # type: ignore[attr-defined]
    return call
