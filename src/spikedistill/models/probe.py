"""Whether a network treats each image by itself: what folding T into the batch takes for granted.

A step is carried out for a batch of four images and for the middle two of them alone. What has a batch dimension shows
it by its sizes, and its middle part must be what the two images give alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from spikedistill.errors import UserError, first_line

ROWS = 4


@dataclass(frozen=True)
class Layout:
    """Where the batch is in a tensor: along ``dim``, ``factor`` places for each image, one image after the other."""

    dim: int
    factor: int


def refusal(where: str, reason: str, to_be: str = "made spiking") -> UserError:
    """The one form in which a network is refused."""
    return UserError(f"the network cannot be {to_be} at {where}: {reason}")


def example_rows(example: Tensor) -> Tensor:
    """Four different images like those of ``example`` ``[N, ...]`` (a constant example would hide a lot)."""
    generator = torch.Generator().manual_seed(0)
    if not example.is_floating_point():
        wanted = torch.arange(ROWS) % example.shape[0]
        return torch.stack([example[int(n)].flatten().roll(i).view_as(example[0]) for i, n in enumerate(wanted)])
    shape = (ROWS, *example.shape[1:])
    low, high = float(example.min()), float(example.max())
    if low >= 0.0:
        rows = torch.rand(shape, generator=generator) * ((high - low) or 1.0) + low
    else:
        rows = torch.randn(shape, generator=generator) * (float(example.float().std(correction=0)) or 1.0)
    return rows.to(example)


def judge(whole: Any, part: Any, *, compare: bool) -> dict[str, Any]:
    """What the values of a step for four images, and for the middle two alone, tell.

    Args:
        whole, part: the two values.
        compare: whether the images' values must agree too, not only the sizes.

    Returns:
        ``tensor``: whether it is one; ``layout``: where the batch is, None if nowhere; ``sound``: whether each image
        stands for itself; ``varies``: whether it has anything to do with the batch; ``shape``: of ``whole``;
        ``floating``; ``device``; of what is no tensor, ``dims``: the layouts of its parts.
    """
    if not isinstance(whole, Tensor) or not isinstance(part, Tensor):
        several = zip(pytree.tree_leaves(whole), pytree.tree_leaves(part), strict=False)
        dims = [_layout(a, b, False)[0] if isinstance(a, Tensor) else None for a, b in several]
        return {"tensor": False, "layout": None, "sound": True, "varies": _differ(whole, part), "dims": dims}
    layout, sound = _layout(whole, part, compare)
    return {
        "tensor": True,
        "layout": layout,
        "sound": sound,
        "varies": layout is not None or not sound,
        "shape": tuple(whole.shape),
        "floating": whole.is_floating_point(),
        "device": whole.device,
    }


def _differ(whole: Any, part: Any) -> bool:
    if isinstance(whole, Tensor):
        return True
    if isinstance(whole, tuple | list) and isinstance(part, tuple | list):
        return len(whole) != len(part) or any(_differ(a, b) for a, b in zip(whole, part, strict=True))
    if isinstance(whole, dict) and isinstance(part, dict):
        return whole.keys() != part.keys() or any(_differ(whole[key], part[key]) for key in whole)
    return bool(whole != part)


def _layout(whole: Tensor, part: Tensor, compare: bool) -> tuple[Layout | None, bool]:
    if whole.dim() != part.dim():
        return None, False
    dims = [d for d in range(whole.dim()) if whole.shape[d] != part.shape[d]]
    if not dims:
        return None, not compare or close(whole, part)
    dim = dims[0]
    factor = part.shape[dim] // 2
    if len(dims) > 1 or part.shape[dim] != 2 * factor or whole.shape[dim] != ROWS * factor:
        return None, False
    return Layout(dim, factor), not compare or close(whole.narrow(dim, factor, 2 * factor), part)


def close(a: Tensor, b: Tensor, tolerance: float = 1e-3) -> bool:
    """Whether two tensors agree, relative to the largest finite value."""
    if a.shape != b.shape:
        return False
    if not a.is_floating_point():
        return torch.equal(a, b)
    finite = a[a.isfinite()]
    scale = float(finite.abs().max()) if finite.numel() else 1.0
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance * max(scale, 1e-6), equal_nan=True)


@torch.no_grad()
def check_steady(network: nn.Module, images: Tensor) -> None:
    """Refuses a network that keeps a state or draws random numbers in evaluation mode.

    Raises:
        UserError: it does, or it does not take the images.
    """
    before = {name: value.clone() for name, value in network.state_dict().items() if isinstance(value, Tensor)}
    try:
        (first, calls), (_, again) = _calls(network, images), _calls(network, images)
    except Exception as error:
        reason = first_line(error)
        raise UserError(f"the network does not take example_input {list(images.shape)}: {reason}") from None
    for name, value in network.state_dict().items():
        if not isinstance(value, Tensor):
            continue
        if name not in before:
            raise refusal(f"'{name}'", "the network registers this while it answers; call the network once first")
        if not close(value, before[name], 1e-6):
            raise refusal(f"'{name}'", "the network changes this buffer while it answers, so it keeps a state")
    for (path, value), (_, other) in zip(calls, again, strict=False):
        if isinstance(value, Tensor) and isinstance(other, Tensor) and not close(value, other, 1e-6):
            raise refusal(
                f"'{path}'" if path else type(network).__name__,
                "it answers differently from call to call in evaluation mode: it keeps a state, or draws random "
                "numbers (F.dropout without training=self.training is always on)",
            )
    if not isinstance(first, Tensor):
        raise refusal(type(network).__name__, f"it answers with a {type(first).__name__}; one tensor [B, K] is needed")


def _calls(network: nn.Module, images: Tensor) -> tuple[Any, list[tuple[str, Any]]]:
    """The network's answer, and each module's output in the order in which they end."""
    calls: list[tuple[str, Any]] = []

    def record(path: str) -> Any:
        return lambda _module, _inputs, output: calls.append(
            (path, output.clone() if isinstance(output, Tensor) else None)
        )

    handles = [module.register_forward_hook(record(path)) for path, module in network.named_modules()]
    try:
        return network(images.clone()), calls  # it may write into them
    finally:
        for handle in handles:
            handle.remove()
