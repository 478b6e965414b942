"""What a network computes in one timestep, as torch's own operators on a few images.

The network is run once, eagerly; ``torch.utils._python_dispatch`` shows every operator it comes down to. So it does not
matter how a layer is written, and shapes are known. Spiking activations are recorded as one step each, ``fire``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from spikedistill.errors import UserError, first_line
from spikedistill.models.activation import Spike, layers_of
from spikedistill.models.folded import TwinSpike
from spikedistill.models.fuse import restore
from spikedistill.models.network import Network
from spikedistill.models.twin import Twin
from spikedistill.spiking import LIF

ROWS = 3
"""Images the network is run with: a number that few other dimensions have."""

FIRE = "fire"


@dataclass(frozen=True)
class Ref:
    """A tensor that depends on the image; the other tensors are constants."""

    index: int


@dataclass(frozen=True)
class Step:
    """One operator.

    Attributes:
        name: such as ``convolution.default``, or ``FIRE``.
        args, kwargs: as called, with a ``Ref`` in the place of each tensor that depends on the image.
        outs: what it returns.
        shapes: of these, the batch in front.
        path: of the module in whose code it stands.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outs: tuple[Ref, ...]
    shapes: tuple[tuple[int, ...], ...]
    path: str

    @property
    def operator(self) -> str:
        """What it is called, for people and for the nodes of a file."""
        return self.name.split(".")[0].strip("_")

    @property
    def label(self) -> str:
        """What to call its node."""
        return self.path or self.operator

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what it returns (first), without the batch."""
        return self.shapes[0][1:]

    def arguments(self, *defaults: Any) -> list[Any]:
        """The positional arguments, with defaults for those that were left out (``...`` for those that never are)."""
        return [*self.args, *defaults[len(self.args) :]]

    @property
    def where(self) -> str:
        """Where it stands, for people."""
        return f"'{self.path}' ({self.operator})" if self.path else f"'{self.operator}'"


@dataclass(frozen=True)
class Record:
    """One timestep of a network: its steps in order, what goes in (an image of ``shape``) and what comes out."""

    steps: tuple[Step, ...]
    images: Ref
    shape: tuple[int, ...]
    answer: Ref
    spikes: dict[str, Spike]


class _Recorder(TorchDispatchMode):
    """Writes down every operator that takes a tensor which depends on the images."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.places: list[str] = [""]
        self._refs: dict[int, Ref] = {}
        self._alive: list[Tensor] = []  # an id may be used again once its tensor is gone
        self._changed: dict[int, str] = {}

    def ref(self, tensor: Tensor) -> Ref:
        """Names a tensor from now on."""
        self._alive.append(tensor)
        self._refs[id(tensor)] = ref = Ref(len(self._alive))
        return ref

    def find(self, value: Any) -> Any:
        """The name of a tensor that has one, anything else as it is.

        Raises:
            UserError: the tensor is not any more what its name stands for.
        """
        if not isinstance(value, Tensor):
            return value
        if id(value) in self._changed:
            raise UserError(
                f"NIR cannot hold the network at {self._changed[id(value)]}: it writes into a part or view of a tensor "
                "that is used later; write that as a step with a result: y = torch.where(...), y = x * mask"
            )
        return self._refs.get(id(value), value)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        named_args, named = pytree.tree_map(self.find, (args, kwargs))
        depends = any(isinstance(leaf, Ref) for leaf in pytree.tree_leaves((named_args, named)))
        out = func(*args, **kwargs)
        name = str(func).removeprefix("aten.")
        if depends:
            if func._schema.is_mutable:
                self._note_change(name, args[0])
            self.write(name, named_args, named, out)
        return out

    def _note_change(self, name: str, written: Any) -> None:
        """Every other tensor on the same memory is not what it was."""
        if not isinstance(written, Tensor):
            return
        place = written.untyped_storage().data_ptr()
        step = Step(name, (), {}, (), (), self.places[-1])
        for other in self._alive:
            if other is not written and other.untyped_storage().data_ptr() == place:
                self._changed[id(other)] = step.where

    def write(self, name: str, args: Any, kwargs: Any, out: Any) -> None:
        """Notes a step that returned ``out`` (of one in place, its argument under a new name)."""
        tensors = [leaf for leaf in pytree.tree_leaves(out) if isinstance(leaf, Tensor)]
        outs, shapes = tuple(self.ref(t) for t in tensors), tuple(tuple(t.shape) for t in tensors)
        self.steps.append(Step(name, tuple(args), dict(kwargs), outs, shapes, self.places[-1]))

    def fire(self, path: str, current: Tensor) -> Tensor:
        """Stands for a spiking activation."""
        spikes = torch.zeros_like(current)
        self.write(FIRE, (self.find(current), path), {}, spikes)
        return spikes

    @contextmanager
    def at(self, path: str) -> Iterator[None]:
        """Steps inside stand at ``path``."""
        self.places.append(path)
        try:
            yield
        finally:
            self.places.pop()


class _Marker(nn.Module):
    """A spiking activation while the network is recorded."""

    def __init__(self, path: str, recorder: _Recorder) -> None:
        super().__init__()
        self.path, self.recorder = path, recorder

    def forward(self, x: Tensor) -> Tensor:
        return self.recorder.fire(self.path, x)


class _Walk(fx.Interpreter):
    """Runs a traced network, telling the recorder in which module's code each step stood."""

    def __init__(self, network: Twin, recorder: _Recorder) -> None:
        super().__init__(network, graph=network.graph)
        self.recorder, self.extra_traceback = recorder, False  # a refusal is one sentence

    def run_node(self, n: fx.Node) -> Any:
        path = n.target if n.op == "call_module" else n.meta.get("path")
        with self.recorder.at(str(path or "")):
            return super().run_node(n)


def plain_copy(network: nn.Module) -> Network | Twin:
    """A copy of a spiking network as it is exported: evaluation mode, float32, on the CPU, no fused layers.

    Raises:
        UserError: not a spiking network that this package has made.
    """
    if not isinstance(network, Network | Twin):
        raise UserError(
            f"a {type(network).__name__} cannot be exported: it takes a network of create_model(..., spiking=True) or "
            "spikify(...)"
        )
    if network.timesteps is None:
        raise UserError("the network is an ANN; export takes a spiking one: create_model(..., spiking=True), spikify")
    # In torch's own layout: fused layers leave weights channels-last, and then an adaptive pooling writes in place.
    plain = restore(copy.deepcopy(network)).float().cpu().eval()
    plain = plain.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    assert isinstance(plain, Network | Twin)
    for path, spike in layers_of(plain).items():
        if type(spike.neuron).forward is not LIF.forward:
            raise UserError(f"'{path}' cannot be exported: its neuron is a {type(spike.neuron).__name__}, not a LIF")
    return plain


@torch.no_grad()
def record(network: Network | Twin, images: Tensor) -> Record:
    """Runs one timestep of ``plain_copy``'s network and writes it down; the network is used up.

    Args:
        network: see above.
        images: at least one, ``[B, ...]``.

    Raises:
        UserError: the images do not fit.
    """
    rows = _rows(network, images)
    recorder, spikes = _Recorder(), dict(layers_of(network))
    for path in spikes:
        parent, _, name = path.rpartition(".")
        network.get_submodule(parent)._modules[name] = _Marker(path, recorder)
    for path, module in network.named_modules():
        if path and not isinstance(network, Twin):
            module.register_forward_pre_hook(_entering(recorder, path))
            module.register_forward_hook(_leaving(recorder))
    with recorder:
        ref = recorder.ref(rows)
        if isinstance(network, Twin):
            answer = _Walk(network, recorder).run(rows, 1)
        else:
            answer = network.answer(network.encode(network.stem(rows), direct=False))
    return Record(tuple(recorder.steps), ref, tuple(rows.shape[1:]), recorder.find(answer), spikes)


def is_sequence(network: Network | Twin, images: Tensor) -> bool:
    """Whether images are sequences ``[T, B, ...]``.

    Raises:
        UserError: they are neither that nor images ``[B, ...]``, or there are none.
    """
    dims = network._dims if isinstance(network, Twin) else 4
    if not isinstance(images, Tensor) or images.dim() not in (dims, dims + 1) or not images.numel():
        raise UserError(
            f"export takes images as the network does, a tensor [B, ...] of {dims} dimensions with at least one image "
            f"(or sequences [T, B, ...]), not {list(getattr(images, 'shape', []))}"
        )
    return images.dim() == dims + 1


def _rows(network: Network | Twin, images: Tensor) -> Tensor:
    """Images to run one timestep with: the first ones, repeated where there are too few."""
    images = images.float().cpu()
    rows = images[0] if is_sequence(network, images) else images
    rows = rows[torch.arange(ROWS) % len(rows)]
    try:
        network(rows)
    except RuntimeError as error:
        reason = first_line(error)
        raise UserError(f"the network does not take images {list(rows.shape[1:])}: {reason}") from None
    return rows


def _entering(recorder: _Recorder, path: str) -> Callable[..., None]:
    return lambda *_: recorder.places.append(path)


def _leaving(recorder: _Recorder) -> Callable[..., None]:
    def leave(*_: Any) -> None:
        recorder.places.pop()

    return leave


def pair(value: Any) -> tuple[int, int]:
    """One or two numbers as two."""
    numbers = [value] if isinstance(value, int) else list(value)
    return int(numbers[0]), int(numbers[-1])


def batch_first(spike: Spike) -> bool:
    """Whether the rows of an activation are images (a spikified network may have its tokens in front)."""
    return not isinstance(spike, TwinSpike) or spike.dim == 0
