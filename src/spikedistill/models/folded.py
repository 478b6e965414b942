"""What a traced network is rebuilt from: modules that know about folded time, and the code that calls them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from spikedistill.errors import UserError
from spikedistill.models.activation import Clock, Spike
from spikedistill.spiking import LIF
from spikedistill.spiking.time import direct_encode, fold


def repeated(x: Tensor, timesteps: int, dim: int) -> Tensor:
    """What is the same at every step, at all of them: along ``dim`` the batch becomes T batches in a row."""
    if dim == 0:
        return fold(direct_encode(x, timesteps))
    return x.repeat([timesteps if d == dim else 1 for d in range(x.dim())])


def outline(x: Tensor, timesteps: int, dim: int) -> Tensor:
    """Something of the size of ``repeated`` that takes no memory; its values mean nothing."""
    sizes = [timesteps * size if d == dim else size for d, size in enumerate(x.shape)]
    return x.narrow(dim, 0, min(1, x.shape[dim])).expand(sizes)


def same_at_every_step(x: Tensor, timesteps: int, dim: int) -> Tensor:
    """Noise for T folded steps, of which the first step's is taken for all."""
    return repeated(x.narrow(dim, 0, x.shape[dim] // timesteps), timesteps, dim)


def step_by_step(
    function: Callable[..., Any],
    timesteps: int,
    dims: list[int],
    dims_out: list[int],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """A call that draws random numbers inside (attention with dropout), with the same numbers at every step.

    Args:
        function: what is called.
        timesteps: T.
        dims: of each leaf of ``(args, kwargs)``, where the batch is; -1 where there is none.
        dims_out: of each leaf of the result likewise.
        args, kwargs: folded.
    """
    if timesteps == 1:
        return function(*args, **kwargs)
    leaves, spec = pytree.tree_flatten((args, kwargs))
    device = next((leaf.device for leaf in leaves if isinstance(leaf, Tensor)), torch.device("cpu"))
    state = noise_state(device)
    results: list[list[Any]] = []
    for step in range(timesteps):
        set_noise_state(device, state)
        chunks = [x if d < 0 else x.chunk(timesteps, d)[step] for x, d in zip(leaves, dims, strict=True)]
        args, kwargs = pytree.tree_unflatten(chunks, spec)
        result, spec_out = pytree.tree_flatten(function(*args, **kwargs))
        results.append(result)
    joined = [
        steps[0] if d < 0 else torch.cat(steps, d)
        for steps, d in zip(zip(*results, strict=True), dims_out, strict=True)
    ]
    return pytree.tree_unflatten(joined, spec_out)  # pyright: ignore[reportPossiblyUnboundVariable]


def noise_state(device: torch.device) -> Tensor:
    """Where the device's random numbers stand."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def set_noise_state(device: torch.device, state: Tensor) -> None:
    """Puts the device's random numbers back."""
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)


def amplified(spike: nn.Module, spikes: Tensor) -> Tensor:
    """Spikes at the height that a calibrated neuron's stand for; as they are where it is not calibrated."""
    balance = getattr(spike, "balance", None)
    return spikes if balance is None else spikes * balance.to(spikes.dtype)


def with_item(x: Tensor, key: Any, value: Any) -> Tensor:
    """``x[key] = value`` on a copy."""
    x = x.clone()
    x[key] = value
    return x


class Slope:
    """The learned slope of nn.PReLU where another module keeps it: for several uses, or for ``F.prelu``.

    Args:
        kept: that module's parameters or buffers, in which whatever replaces the tensor is found too.
        name: of the tensor there.
    """

    def __init__(self, kept: dict[str, Any], name: str) -> None:
        self.kept, self.name = kept, name

    def __call__(self) -> Tensor:
        return self.kept[self.name]


class Sloped(nn.Module):
    """A module in an activation's place, with the activation's learned slope if it has one."""

    weight: nn.Parameter | None

    def _keep(self, slope: nn.Parameter | Slope | None) -> None:
        self._slope = slope if isinstance(slope, Slope) else None
        # Its own, under the name that it has in nn.PReLU: the state-dict keys stay what they are.
        self.register_parameter("weight", None if isinstance(slope, Slope) else slope)

    @property
    def slope(self) -> nn.Parameter | Slope | None:
        """What another module in this one's place gets."""
        return self.weight if self._slope is None else self._slope


class TwinSpike(Sloped, Spike):
    """The neuron in an activation's place.

    Calibration (``calibrate``) sets ``balance``, the threshold in units of the ANN's activation, and ``start``, the
    share of it that the first step finds in the membrane. The current is scaled to the neuron's own threshold, and
    ``amplified`` multiplies the spikes by ``balance`` before they go on: a neuron of that threshold in front of weights
    that contain the factor. The neuron's settings, and with them its surrogate and its kernels, stay the same.

    Args:
        neuron: the layer's own neuron.
        clock: the network's.
        function: the ANN's activation, which is not part of the SNN.
        dim: where the batch is.
        slope: of nn.PReLU, unused.
    """

    OPTIONAL_STATE = ("balance", "start")

    balance: Tensor | None
    start: Tensor | None

    def __init__(
        self,
        neuron: LIF,
        clock: Clock,
        function: Callable[..., Tensor],
        dim: int,
        slope: nn.Parameter | Slope | None,
    ) -> None:
        super().__init__(neuron, clock)
        self.function, self.dim = function, dim
        self.register_buffer("balance", None)
        self.register_buffer("start", None)
        self._keep(slope)

    @property
    def threshold(self) -> float:
        """The firing threshold in units of the ANN's activation."""
        return self.neuron.threshold if self.balance is None else float(self.balance)

    def forward(self, x: Tensor, constant: bool = False) -> Tensor:
        if self.dim == 0 and self.balance is None:
            return super().forward(x, constant)
        x = repeated(x, self.clock.timesteps, self.dim) if constant else x
        steps = x.unflatten(self.dim, (self.clock.timesteps, -1)).movedim(self.dim, 0)
        return self.neuron(self._current(steps)).movedim(0, self.dim).flatten(self.dim, self.dim + 1)

    def _current(self, steps: Tensor) -> Tensor:
        if self.balance is None or self.start is None:
            return steps
        own = self.neuron.threshold
        steps = steps * (own / self.balance).to(steps.dtype)
        return torch.cat([steps[:1] + (own * self.start).to(steps.dtype), steps[1:]])

    def _load_from_state_dict(self, state_dict: Any, prefix: str, metadata: Any, strict: bool, *lists: Any) -> None:
        # A calibrated neuron takes an ANN's weights and keeps its threshold; any neuron takes a calibrated one's.
        for name in self.OPTIONAL_STATE:
            if f"{prefix}{name}" in state_dict and getattr(self, name) is None:
                setattr(self, name, torch.empty_like(state_dict[f"{prefix}{name}"]))
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, *lists)
        missing = lists[0]
        missing[:] = [key for key in missing if key.removeprefix(prefix) not in self.OPTIONAL_STATE]


class Analogue(Sloped):
    """The activation itself, in the ANN that a traced network is rebuilt as; ``dim`` is where the batch is."""

    def __init__(self, function: Callable[..., Tensor], slope: nn.Parameter | Slope | None, dim: int = 0) -> None:
        super().__init__()
        self.function, self.dim = function, dim
        self._keep(slope)

    def forward(self, x: Tensor) -> Tensor:
        slope = self._slope() if self._slope is not None else self.weight
        return self.function(x) if slope is None else self.function(x, slope)

    def extra_repr(self) -> str:
        function = getattr(self.function, "func", self.function)
        return getattr(function, "__name__", str(function))


class OneMask(nn.Module):
    """Dropout with one mask over T: what is dropped is dropped at every step.

    In an ANN (``over_time`` False) it is the dropout that it was, in an SNN one that sets to zero: the alpha ones
    preserve the moments of SELU, which spikes do not have.

    Args:
        function: ``F.dropout`` or one of its kin.
        p: share that is dropped.
        dim: where the batch is; a call may say otherwise, for one module may serve in several places.
        clock: the network's.
    """

    def __init__(self, function: Callable[..., Tensor], p: float, dim: int, clock: Clock) -> None:
        super().__init__()
        self.function, self.p, self.dim, self.clock = function, p, dim, clock
        self.over_time = False

    def forward(self, x: Tensor, dim: int | None = None) -> Tensor:
        if not self.training or self.p == 0.0:
            return x
        if not self.over_time:
            return self.function(x, self.p, True)
        timesteps, dim = self.clock.timesteps, self.dim if dim is None else dim
        return x * repeated(self._mask(x.narrow(dim, 0, x.shape[dim] // timesteps)), timesteps, dim)

    def once(self, x: Tensor) -> Tensor:
        """For what is computed once instead of T times."""
        return x * self._mask(x) if self.training and self.p > 0.0 else x

    def _mask(self, x: Tensor) -> Tensor:
        return ZEROING.get(self.function, self.function)(torch.ones_like(x), self.p, True)

    def extra_repr(self) -> str:
        return f"{self.function.__name__}, p={self.p}"


DROPOUTS: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.Dropout: F.dropout,
    nn.Dropout1d: F.dropout1d,
    nn.Dropout2d: F.dropout2d,
    nn.Dropout3d: F.dropout3d,
    nn.AlphaDropout: F.alpha_dropout,
    nn.FeatureAlphaDropout: F.feature_alpha_dropout,
}
DROPOUT_FUNCTIONS: dict[Any, Callable[..., Tensor]] = {function: function for function in DROPOUTS.values()} | {
    torch.dropout: F.dropout
}
ZEROING: dict[Callable[..., Tensor], Callable[..., Tensor]] = {
    F.alpha_dropout: F.dropout,
    F.feature_alpha_dropout: torch.feature_dropout,
}
"""What drops the same entries as the alpha dropouts do, by setting them to zero."""


class Program:
    """A graph as code: ``run(network, images, timesteps)``. It holds no module, so copies of a network share it."""

    def __init__(self, graph: fx.Graph) -> None:
        self.graph = graph
        code = graph.python_code("self")
        self.source = code.src
        namespace = dict(code.globals)
        exec(compile(self.source, "<spikified network>", "exec"), namespace)
        self.run: Callable[[nn.Module, Tensor, int], Tensor] = namespace["forward"]

    def __deepcopy__(self, memo: dict[int, Any]) -> Program:
        return self

    def __reduce__(self) -> Any:
        # Its code calls functions that exist in this process alone.
        raise UserError(
            "a spikified network cannot be saved whole; save its weights, torch.save(twin.state_dict(), path), and "
            "load them into sd.spikify(network, ...)"
        )
