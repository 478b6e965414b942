"""Which twin of a kernel runs: plain torch, or the same functions compiled by Inductor.

The choice is the process's, not a network's: it decides how fast a result is there and nothing else, and it is read at
every call. ``SPIKEDISTILL_KERNELS`` sets it from outside, ``choose`` for a while from inside.

    auto    compiled where the work pays for it, plain for small tensors; where Inductor or a compiler is missing,
            one warning, and plain from then on
    fused   compiled at any size; what stands in the way is an error
    plain   never compiled
"""

from __future__ import annotations

import os
import time
import types
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from spikedistill.errors import unknown
from spikedistill.spiking.joining import teach_inductor

CHOICES = ("auto", "fused", "plain")

# A compiled layer of this many elements saves about 0.3 ms a step on a CPU; a kernel costs seconds to compile.
SMALL = 2**16

INLINE_STEPS = 4  # beyond, compiling a kernel without intermediate results takes minutes

Outputs = Tensor | tuple[Tensor | None, ...]


class _State:
    """The process's choice, the kinds of device on which compiling has failed, and the seconds it has taken."""

    choice: str | None = None
    broken: ClassVar[set[str]] = set()
    seconds: float = 0.0


def choice() -> str:
    """The choice in force: ``auto``, ``fused`` or ``plain``.

    Raises:
        UserError: the environment variable says something else.
    """
    name = _State.choice or os.environ.get("SPIKEDISTILL_KERNELS") or "auto"
    if name not in CHOICES:
        raise unknown("SPIKEDISTILL_KERNELS", name, CHOICES)
    return name


def told(device: str) -> str:
    """The choice in force for records, and whether compiling has failed on a kind of device."""
    return f"{choice()}, not compiled: failed on {device}" if device in _State.broken else choice()


def seconds() -> float:
    """Seconds that this process has spent at first calls of kernels, nearly all of them compiling."""
    return _State.seconds


@contextmanager
def choose(name: str) -> Iterator[None]:
    """Sets the choice for a ``with`` block, over the environment variable's.

    Raises:
        UserError: not one of ``auto``, ``fused``, ``plain``.
    """
    if name not in CHOICES:
        raise unknown("kernels", name, CHOICES)
    before, _State.choice = _State.choice, name
    try:
        yield
    finally:
        _State.choice = before


def pays(x: Tensor, at_least: int = SMALL) -> bool:
    """Whether the fused twin should run on a tensor like this one (inside ``torch.compile``: always but for plain)."""
    name = choice()
    if name == "auto" and not torch.compiler.is_compiling():
        return x.numel() >= at_least and x.device.type not in _State.broken
    return name != "plain"


def call(
    function: Callable[..., Outputs],
    tensors: Sequence[Tensor],
    constants: Mapping[str, Hashable],
    *,
    inline: bool = False,
) -> Outputs:
    """Runs a function of tensors and constants compiled, or as it stands where compiling has failed.

    Compiled once for each set of constants, dtypes and kind of device, and each size of the first of several dimensions
    (T); other sizes may change from call to call (sizes 1 and 2, which broadcasting and windows have, are compiled in).
    Nothing is recorded for autograd; the tensors must not require gradients. Inside a network that is being compiled
    the function is traced with it.

    Args:
        function: a function of the module level, of tensors (by position) and hashable constants (by name).
        tensors, constants: its arguments.
        inline: no intermediate result goes to memory, however often it is used (compiling takes longer); up to
            ``INLINE_STEPS`` steps.
    """
    device = tensors[0].device.type
    if torch.compiler.is_compiling() or (device in _State.broken and choice() != "fused"):
        return function(*tensors, **constants)
    signature = tuple((t.dtype, *_static(t)) for t in tensors)
    kernel = _kernel(function, tuple(constants.items()), signature, device, inline)
    # Autocast changes nothing in a kernel, but a kernel would be compiled again for it.
    if torch.is_autocast_enabled(device):
        with torch.autocast(device, enabled=False):
            return kernel(*tensors)
    return kernel(*tensors)


def _static(tensor: Tensor) -> tuple[int, ...]:
    """The sizes that are compiled in, 0 for the others."""
    first = tensor.dim() > 1
    return tuple(size if size <= 2 or (first and not dim) else 0 for dim, size in enumerate(tensor.shape))


class _Kernel:
    """A function compiled at its first call; the plain function from then on if that fails."""

    def __init__(
        self, function: Callable[..., Outputs], constants: dict[str, Hashable], device: str, inline: bool
    ) -> None:
        def bound(*tensors: Tensor) -> Outputs:
            return function(*tensors, **constants)

        # A code object of its own: Dynamo counts recompilations by code object, and all kernels would share this one.
        code = bound.__code__.replace(co_name=function.__name__)
        own = types.FunctionType(code, bound.__globals__, function.__name__, None, bound.__closure__)
        self._plain = bound
        options: dict[str, Any] | None = None
        if inline:
            options = {"realize_opcount_threshold": 1000, "realize_reads_threshold": 1000}
        self._run: Callable[..., Outputs] = torch.compile(own, fullgraph=True, options=options)
        self._device = device
        self._proven = False

    def __call__(self, *tensors: Tensor) -> Outputs:
        if self._proven:
            return self._called(tensors)
        started = time.perf_counter()
        for tensor in tensors:
            for dim, size in enumerate(_static(tensor)):
                if not size:
                    torch._dynamo.maybe_mark_dynamic(tensor, dim)
        try:
            return self._called(tensors)
        finally:
            _State.seconds += time.perf_counter() - started

    def _called(self, tensors: Sequence[Tensor]) -> Outputs:
        try:
            if not self._proven:
                teach_inductor()
            out = self._run(*tensors)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            # What ran once fails for a reason of its own, unless Dynamo refuses to compile it yet again.
            again = type(error).__name__ == "FailOnRecompileLimitHit"
            if choice() == "fused" or (self._proven and not again):
                raise
            _give_up(self._device, error)
            self._run, out = self._plain, self._plain(*tensors)
        self._proven = True
        return out


def _give_up(device: str, error: Exception) -> None:
    _State.broken.add(device)
    reason = str(error).strip().splitlines() or [type(error).__name__]
    warnings.warn(
        f"spiking kernels cannot be compiled for {device} here, plain torch runs instead, several times slower "
        f"(torch.compile: {reason[0]})",
        stacklevel=2,
    )


@cache
def _kernel(
    function: Callable[..., Outputs],
    constants: tuple[tuple[str, Hashable], ...],
    _signature: tuple[tuple[torch.dtype | int, ...], ...],
    device: str,
    inline: bool,
) -> _Kernel:
    return _Kernel(function, dict(constants), device, inline)
