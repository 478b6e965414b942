"""Proxies that know what they stand for: a trace may decide a condition on sizes, but none on values."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, fx

READERS = ("item", "tolist", "numpy", "__bool__", "__int__", "__float__")
"""Methods that take values out of a tensor."""

STATIC = ("dim", "ndimension", "is_floating_point", "is_complex", "element_size")

LOOKS = "control flow or a number that depends on the values of a tensor cannot be traced"


class Known(fx.Proxy):
    """A proxy that knows its value, for the whole batch and for its middle part."""

    values: tuple[Any, Any] = (None, None)
    tracer: Any

    # Zero-argument super() would look for this very name.
    @property
    def __class__(self) -> type:  # type: ignore[override]
        return type(self.values[0])

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.values[0], name)
        if name == "ndim":
            return found
        if not callable(found):
            return self.tracer.create_proxy("call_function", getattr, (self, name), {})
        if isinstance(self.values[0], Tensor) and name in STATIC:
            return found
        if isinstance(self.values[0], Tensor) and name in READERS:
            raise self.tracer.refusal(LOOKS)
        return lambda *args, **kwargs: self.tracer.create_proxy("call_method", name, (self, *args), kwargs)

    def _plain(self, kind: type) -> Any:
        if any(isinstance(value, Tensor) for value in self.values):
            raise self.tracer.refusal(LOOKS)
        whole, part = (kind(value) for value in self.values)
        if whole != part:
            raise self.tracer.refusal(
                "the batch size is taken as a plain number (int(), len(), range()), and T is folded into the batch; "
                "use x.size(0) or x.shape[0] as it is, or -1 in a reshape"
            )
        return whole

    def __bool__(self) -> bool:
        return self._plain(bool)

    def __int__(self) -> int:
        return self._plain(int)

    def __index__(self) -> int:
        return self._plain(int)

    def __float__(self) -> float:
        return self._plain(float)

    def __len__(self) -> int:
        whole, part = (len(value) for value in self.values)
        if whole != part:
            raise self.tracer.refusal("len() of the batch cannot be traced; use x.size(0)")
        return whole

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))  # pyright: ignore

    def __contains__(self, item: Any) -> bool:
        return any(bool(item == entry) for entry in self)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, key, value), {})


def _in_place(operation: str) -> Callable[[Known, Any], Any]:
    def run(self: Known, other: Any) -> Any:
        if isinstance(self.values[0], Tensor):
            return self.tracer.create_proxy("call_method", f"{operation}_", (self, other), {})
        plain = {"div": "truediv"}.get(operation, operation)
        return self.tracer.create_proxy("call_function", getattr(operator, plain), (self, other), {})

    return run


for _symbol, _name in {"iadd": "add", "isub": "sub", "imul": "mul", "itruediv": "div"}.items():
    setattr(Known, f"__{_symbol}__", _in_place(_name))
