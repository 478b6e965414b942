"""Named taps on the activations of any network: a feature before or after the spike."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from spikedistill.errors import UserError, nearest, unknown
from spikedistill.models.activation import Spike
from spikedistill.spiking.deferred import Spikes, settle
from spikedistill.spiking.rates import with_rate

SIDES = ("before", "after")


class Taps:
    """Records, at every forward pass, what enters or leaves chosen activations of a network.

    Args:
        network: any module.
        points: feature name to the path of the activation module.
        side: ``before`` (the activation's input: currents) or ``after`` (its output: spikes).
        rates: record the mean over T of what leaves a spiking activation, ``[B, ...]``, whose gradient then costs less.
        copied: names of features that the network writes over later (``h = relu(x); h += skip``), see ``overwritten``.

    The recorded tensors are the folded ones, ``[T*B, ...]`` for an SNN (or ``[B, ...]`` where the current is constant
    in time), with their gradients. ``values`` holds the last pass only; ``close`` removes the taps.
    """

    def __init__(
        self,
        network: nn.Module,
        points: Mapping[str, str],
        side: str,
        *,
        rates: bool = False,
        copied: Collection[str] = (),
    ) -> None:
        if side not in SIDES:
            raise unknown("feature side", side, SIDES)
        self.values: dict[str, Tensor] = {}
        self._copied = frozenset(copied)
        modules = dict(network.named_modules())
        self._handles = []
        for name, path in points.items():
            if path not in modules:
                raise UserError(f"no module '{path}' in the network for feature '{name}'{nearest(path, list(modules))}")
            tapped = modules[path]
            if side == "before":
                self._handles.append(tapped.register_forward_pre_hook(self._before(name, tapped)))
            elif rates and isinstance(tapped, Spike) and getattr(tapped, "dim", 0) == 0:
                self._handles.append(tapped.register_forward_hook(self._rate(name, tapped)))
            else:
                self._handles.append(tapped.register_forward_hook(self._after(name, tapped)))

    # A deep copy of a tapped network carries these hooks along: what it computes must not be recorded here.

    def _before(self, name: str, tapped: nn.Module) -> Callable[..., None]:
        def record(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if module is tapped:  # what an activation overwrites is not what came to it
                self.values[name] = inputs[0].clone() if getattr(module, "inplace", False) else inputs[0]

        return record

    def _after(self, name: str, tapped: nn.Module) -> Callable[..., None]:
        def record(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if module is tapped:
                self.values[name] = output.clone() if name in self._copied else output

        return record

    def _rate(self, name: str, tapped: Spike) -> Callable[..., Tensor | None]:
        def record(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            if module is not tapped:
                return None
            spikes, self.values[name] = with_rate(settle(output), tapped.clock.timesteps)
            return Spikes.known(spikes, output.keep_bits) if isinstance(output, Spikes) else spikes

        return record

    def take(self) -> dict[str, Tensor]:
        """The features of the last forward pass, forgotten here so that nothing outlives the step."""
        values, self.values = self.values, {}
        return values

    def close(self) -> None:
        """Removes the taps."""
        for handle in self._handles:
            handle.remove()
        self.values = {}


@torch.no_grad()
def overwritten(network: nn.Module, points: Mapping[str, str], example: Tensor) -> frozenset[str]:
    """The features whose tensors a network writes over after its activations have made them.

    Args:
        network: any, in evaluation mode; tensors that neurons make are never written over.
        points: feature name to the path of the activation module.
        example: images.
    """
    versions: dict[str, tuple[Tensor, int]] = {}

    def note(name: str) -> Callable[..., None]:
        def record(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            versions[name] = (output, output._version)

        return record

    modules = dict(network.named_modules())
    handles = [
        modules[path].register_forward_hook(note(name))
        for name, path in points.items()
        if not isinstance(modules[path], Spike)
    ]
    try:
        if handles:
            network(example)
    finally:
        for handle in handles:
            handle.remove()
    return frozenset(name for name, (output, version) in versions.items() if output._version != version)


@contextmanager
def taps(network: nn.Module, points: Mapping[str, str], side: str) -> Iterator[Taps]:
    """``Taps`` that are removed at the end of a ``with`` block."""
    tap = Taps(network, points, side)
    try:
        yield tap
    finally:
        tap.close()
