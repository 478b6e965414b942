"""The base of the registry's networks: written once, an ANN or an SNN by the activation it is given.

A network is a ``stem`` (what precedes the first activation: analogue, computed once under direct coding), an
``encoder`` (that first activation) and a ``body`` (from there to the logits). An SNN's logits are the body's currents,
or the spikes of one more layer of neurons behind them (``output``).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from spikedistill.errors import UserError
from spikedistill.models.activation import Activation, Clock, Spike, relu, spiking
from spikedistill.models.folded import OneMask
from spikedistill.spiking import LIF
from spikedistill.spiking.time import fold, readout, unfold


class Network(nn.Module):
    """Base class: handles time, leaves the layers to its subclasses.

    A subclass calls ``super().__init__(timesteps, neuron)`` first, makes each activation by ``self.activation()`` (a
    dropout by ``self.dropout(p)``), and defines ``stem``, ``encoder``, ``body``, ``stages`` and ``blocks``.

    Args:
        timesteps: T of the SNN, or None for the ANN.
        neuron: template of the SNN's neurons; None with timesteps takes ``LIF()``.

    Attributes:
        stages: name of each stage (``stage1`` ...) to the path of the activation module that ends it.
        blocks: name of each block (``stage1.block1`` ...) to the path of the activation module that ends it.
        in_channels, image_size: what an input must look like (``image_size`` None: any).
        encoding: turns images ``[B, C, H, W]`` and T into a sequence ``[T, B, C, H, W]``; None is direct coding.
        output: neurons behind the body, whose spikes are the logits then (KDSNN algorithm 1); None for its currents.
        settings: how ``create_model`` built it, as a recipe's section ``student``.
    """

    stages: dict[str, str]
    blocks: dict[str, str]
    in_channels: int
    image_size: int | None = None
    encoding: Callable[[Tensor, int], Tensor] | None = None
    settings: dict[str, object] | None = None

    def __init__(self, timesteps: int | None = None, neuron: LIF | None = None) -> None:
        super().__init__()
        self._clock: Clock | None = None
        self._timesteps = timesteps
        self.output: nn.Module | None = None
        if timesteps is not None:
            self._clock = Clock(checked_timesteps(timesteps))
            self._factory: Activation = spiking(neuron if neuron is not None else LIF(), self._clock)
        else:
            self._factory = relu

    def activation(self) -> nn.Module:
        """A fresh activation: ReLU in the ANN, a time-folded copy of the neuron in the SNN."""
        return self._factory()

    def dropout(self, p: float) -> nn.Module:
        """A fresh dropout of the share ``p``, for the body: in the SNN what is dropped is dropped at every step."""
        if self._clock is None:
            return nn.Dropout(p)
        mask = OneMask(F.dropout, p, 0, self._clock)
        mask.over_time = True
        return mask

    @property
    def timesteps(self) -> int | None:
        """T of the SNN (may be set at any time), None for an ANN."""
        return self._timesteps

    @timesteps.setter
    def timesteps(self, value: int) -> None:
        if self._clock is None:
            raise UserError("an ANN has no timesteps to set; build the network with spiking=True")
        self._timesteps = checked_timesteps(value)

    @property
    def spiking(self) -> bool:
        """Whether this is the SNN."""
        return self._clock is not None

    @property
    def encoder(self) -> nn.Module:
        """The first activation."""
        raise NotImplementedError  # pragma: no cover

    def stem(self, x: Tensor) -> Tensor:
        """Images ``[N, C, H, W]`` to the first activation's input."""
        raise NotImplementedError  # pragma: no cover

    def encode(self, current: Tensor, direct: bool) -> Tensor:
        """The stem's output to what the body takes: the first activation.

        Args:
            current: ``[B, ...]`` under direct coding, else ``[T*B, ...]`` (an ANN: ``[B, ...]``).
            direct: direct coding, the current is the same at each of the T steps.

        Returns:
            ``[T*B, ...]``. A network whose shortcuts carry the current itself (membrane shortcuts) returns the current.
        """
        if not direct:
            return self.encoder(current)
        assert isinstance(self.encoder, Spike)
        return self.encoder.encode(current)

    def body(self, x: Tensor) -> Tensor:
        """What ``encode`` returns to logits ``[N, K]``."""
        raise NotImplementedError  # pragma: no cover

    def fire(self) -> None:
        """Puts a layer of neurons behind the body of an SNN; an ANN, which has none, stays as it is."""
        if self.spiking:
            self.output = self.activation()

    def answer(self, x: Tensor) -> Tensor:
        """What ``encode`` returns to logits ``[N, K]``: the body's, or what its output neurons make of them."""
        logits = self.body(x)
        return logits if self.output is None else self.output(logits)

    def forward(self, x: Tensor, per_step: bool = False) -> Tensor:
        """Logits of images or sequences.

        Args:
            x: images ``[B, C, H, W]`` (direct coding: the same current at every step) or a sequence
                ``[T, B, C, H, W]``, whose own length then is T. An ANN averages a sequence over time first.
            per_step: return the logits of every step instead of their mean.

        Returns:
            ``[B, K]``, or ``[T, B, K]`` with ``per_step`` (an ANN's has T = 1).

        Raises:
            UserError: a tensor of another shape.
        """
        self._check(x)
        if self._clock is None:
            logits = self.answer(self.encode(self.stem(readout(x) if x.dim() == 5 else x), direct=False))
            return logits.unsqueeze(0) if per_step else logits
        assert self._timesteps is not None
        if x.dim() == 4 and self.encoding is not None:
            x = self.encoding(x, self._timesteps)
        direct = x.dim() == 4
        steps = self._timesteps if direct else x.shape[0]
        self._clock.timesteps = steps
        logits = unfold(self.answer(self.encode(self.stem(x if direct else fold(x)), direct)), steps)
        return logits if per_step else readout(logits)

    def _check(self, x: Tensor) -> None:
        if x.dim() not in (4, 5) or x.shape[-3] != self.in_channels:
            raise UserError(
                f"the network takes images [B, {self.in_channels}, H, W] or sequences "
                f"[T, B, {self.in_channels}, H, W], not {list(x.shape)}"
            )
        if self.image_size is not None and tuple(x.shape[-2:]) != (self.image_size, self.image_size):
            raise UserError(
                f"the network was built for images of {self.image_size}x{self.image_size} pixels, "
                f"not {x.shape[-2]}x{x.shape[-1]}"
            )


def checked_timesteps(value: int) -> int:
    """Returns ``value`` if it is a number of timesteps, at least 1; raises UserError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"timesteps must be a whole number of at least 1, not {value!r}")
    return value


def settings_of(network: nn.Module) -> dict[str, Any] | None:
    """How ``create_model`` made a network; None for one of anybody's own, whatever it calls its attributes."""
    settings = getattr(network, "settings", None)
    made_here = isinstance(settings, dict) and {"model", "options"} <= settings.keys()
    return settings if made_here else None


def encoding_of(network: nn.Module) -> nn.Module | Callable[..., Tensor] | None:
    """A network's input coding, None for direct coding; a module of that name in anybody's own network is none."""
    return network.encoding if isinstance(network, Network) else None


def checked_network(given: Any, role: str = "network") -> nn.Module:
    """Returns ``given`` if it is a network; raises UserError otherwise. ``role`` is what the caller calls it."""
    if isinstance(given, nn.Module):
        return given
    remedy = f"; a run folder's is sd.load({str(given)!r})" if isinstance(given, str | Path) else ""
    kind = f"the class {given.__name__}; make one of it: {given.__name__}(...)" if isinstance(given, type) else None
    raise UserError(f"{role} must be a torch.nn.Module, not {kind or f'{given!r:.60}'}{remedy}")
