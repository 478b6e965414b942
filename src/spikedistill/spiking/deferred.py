"""Tensors that are computed when somebody asks: how BatchNorm, neuron and pooling meet in one kernel.

A BatchNorm that prepares a neuron's current returns ``Currents``: the convolution's output and what is still to be done
to it. Adding a residual gives ``Currents`` again; a neuron turns them into ``Spikes``, which a max pooling turns into
``Spikes`` again. Whatever else touches one of them, any torch function or method, gets a plain tensor, computed once.
So nothing outside has to know of them, and a network keeps its own code.

An ``autograd.Function`` that is given one would see no gradient; it gets an error in the backward pass instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from spikedistill.spiking import fused_layer
from spikedistill.spiking.bits import Bits, pack, packable
from spikedistill.spiking.fused_layer import Setting, Term
from spikedistill.spiking.recurrence import Dynamics

_DESCRIPTIONS = {
    Tensor.dim,
    Tensor.size,
    Tensor.numel,
    Tensor.is_floating_point,
    *(getattr(Tensor, name).__get__ for name in ("shape", "dtype", "device", "ndim", "layout", "is_cuda", "is_sparse")),
}
_ADDITIONS = {torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__}


class Deferred(Tensor):
    """A tensor with shape, dtype and device, and values once ``settle`` has been called."""

    _value: Tensor | None
    _grad_mode: bool

    @staticmethod
    def like(kind: type[Any], source: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Any:
        """A deferred tensor of a kind; ``source`` is what its gradient will flow to."""
        return _Unsettled.apply(source, kind, torch.Size(shape), dtype)

    def compute(self) -> Tensor:
        """The values."""
        raise NotImplementedError  # pragma: no cover

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func in _DESCRIPTIONS:
            return super().__torch_function__(func, types, args, kwargs or {})
        # a sum in place is a sum where nobody can see what is added to
        in_place = func is Tensor.__iadd__ and isinstance(args[0], Currents) and args[0]._value is None
        if (func in _ADDITIONS or in_place) and len(args) == 2 and not kwargs:
            total = _add(*args)
            if total is not None:
                return total
        return func(*map(settle_all, args), **{name: settle_all(value) for name, value in (kwargs or {}).items()})

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func} was given a deferred tensor; call spikedistill.spiking.deferred.settle first")


class _Unsettled(torch.autograd.Function):
    """Makes a deferred tensor that requires a gradient where its source does, and that must never get one."""

    @staticmethod
    def forward(ctx, source: Tensor, kind: type[Deferred], shape: torch.Size, dtype: torch.dtype) -> Tensor:  # type: ignore[override]
        strides = torch.empty(shape, device="meta", memory_format=_format(shape)).stride()
        return Tensor._make_wrapper_subclass(kind, shape, strides=strides, dtype=dtype, device=source.device)

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        raise RuntimeError(
            "a deferred tensor went into an autograd.Function; call spikedistill.spiking.deferred.settle"
        )


def _format(shape: Sequence[int]) -> torch.memory_format:
    return torch.channels_last if len(shape) == 4 else torch.contiguous_format


def settle(x: Tensor) -> Tensor:
    """The plain tensor that ``x`` stands for: computed once, in the gradient mode in which ``x`` was made."""
    if not isinstance(x, Deferred):
        return x
    if x._value is None:
        with torch.set_grad_enabled(x._grad_mode):
            x._value = x.compute()
    return x._value


_HOLDERS = (Deferred, list, tuple, dict)


def settle_all(values: Any) -> Any:
    """The same with ``settle`` on every tensor in it: lists, tuples, dicts."""
    if isinstance(values, Deferred):
        return settle(values)
    # Almost every argument is a number, or a short tuple of numbers, and a search through a tree takes longer than what
    # is called with it.
    if isinstance(values, (list, tuple)) and not any(isinstance(value, _HOLDERS) for value in values):
        return values
    return tree_map_only(Deferred, settle, values) if isinstance(values, (list, tuple, dict)) else values


class Currents(Deferred):
    """A sum of terms that waits for its neuron."""

    terms: tuple[Term, ...]

    @staticmethod
    def of(terms: tuple[Term, ...]) -> Currents:
        """The sum of one or two terms of the same shape."""
        dtype = terms[0].value.dtype
        for term in terms[1:]:
            dtype = torch.promote_types(dtype, term.value.dtype)
        x = Deferred.like(Currents, terms[0].value, terms[0].value.shape, dtype)
        x.terms, x._value, x._grad_mode = terms, None, torch.is_grad_enabled()
        return x

    def compute(self) -> Tensor:
        total = _normalised(self.terms[0])
        for term in self.terms[1:]:
            total = total + _normalised(term)
        return total


def _normalised(term: Term) -> Tensor:
    if term.norm is None:
        return term.value
    norm = term.norm
    statistics = (None, None) if norm.of_batch else (norm.mean, norm.variance)
    return torch.nn.functional.batch_norm(term.value, *statistics, norm.weight, norm.bias, norm.of_batch, 0.0, norm.eps)


def _add(a: Tensor, b: Tensor) -> Currents | None:
    """The sum of currents and currents, spikes or a plain tensor, deferred; None where it cannot be."""
    terms: list[Term] = []
    for x in (a, b):
        if isinstance(x, Currents) and x._value is None:
            terms += x.terms
        elif isinstance(x, Spikes):
            terms.append(Term(settle(x), bits=x.bits() if x.keep_bits else None))
        elif isinstance(x, Tensor):
            terms.append(Term(settle(x)))
    same = len(terms) == 2 and terms[0].value.shape == terms[1].value.shape
    return Currents.of(tuple(terms)) if same and any(term.norm for term in terms) else None


class Spikes(Deferred):
    """Zeros and ones, fired when somebody asks; packed, once, if somebody wants to keep them.

    Attributes:
        keep_bits: whether those who keep spikes for the backward pass should keep them packed.
    """

    terms: tuple[Term, ...]
    decay: float | Tensor
    setting: Setting
    keep_bits: bool
    _bits: Bits | None

    @staticmethod
    def fired(
        currents: Tensor, decay: float | Tensor, dynamics: Dynamics, timesteps: int, constant: bool, keep_bits: bool
    ) -> Spikes:
        """The spikes of a neuron: ``[T*B, ...]`` currents, or ``[B, ...]`` that hold for every step."""
        if isinstance(currents, Currents) and currents._value is None:
            terms = currents.terms
        else:
            terms = (Term(settle(currents)),)
        rows = currents.shape[0] * (timesteps if constant else 1)
        x = Deferred.like(Spikes, terms[0].value, (rows, *currents.shape[1:]), currents.dtype)
        x.terms, x.decay, x.setting = terms, decay, Setting(dynamics, timesteps, constant, False)
        x.keep_bits, x._bits, x._value, x._grad_mode = keep_bits, None, None, torch.is_grad_enabled()
        return x

    @staticmethod
    def known(value: Tensor, keep_bits: bool) -> Spikes:
        """Spikes that are there already."""
        x = Deferred.like(Spikes, value, value.shape, value.dtype)
        x.keep_bits, x._bits, x._value = keep_bits, None, value
        return x

    def again(self, value: Tensor) -> Spikes:
        """These spikes with other values of the same kind: ``value`` has gone through something in between."""
        x = Spikes.known(value, self.keep_bits)
        x._bits = self.bits() if self.keep_bits else None
        return x

    def compute(self) -> Tensor:
        value = fused_layer.run(self.terms, self.decay, self.setting)
        self.terms = ()
        return value

    def pooled(self) -> Spikes | None:
        """The spikes after a 2x2 max pooling of stride 2, in one operation; None where that cannot be."""
        if self._value is not None or not fused_layer.poolable(self.terms[0].value, self.setting.timesteps):
            return None
        setting = Setting(self.setting.dynamics, self.setting.timesteps, self.setting.constant, True)
        with torch.set_grad_enabled(self._grad_mode):
            return Spikes.known(fused_layer.run(self.terms, self.decay, setting), self.keep_bits)

    def bits(self) -> Bits | None:
        """The spikes packed; None where they cannot be."""
        value = settle(self)
        if self._bits is None and packable(value):
            self._bits = pack(value)
        return self._bits
