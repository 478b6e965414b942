"""Where the weights in training are: whole in every process, or shared out over all of them (``strategy: fsdp``).

Shared out (torch's ``fully_shard``; Zhao et al. 2023, "PyTorch FSDP"), each process keeps its part of every weight, of
its gradient and of the optimiser's state. A part of the network is put together when it is about to compute and taken
apart behind that. What is trained is then a copy; the method that everybody else knows, plain and whole, is brought up
to date when somebody wants to look: checkpoints, evaluation and the run folder are those of any other run.
"""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from spikedistill.engine.finite import Found
from spikedistill.engine.processes import own_part
from spikedistill.methods.base import Method, Progress
from spikedistill.models.fuse import channels_last_inputs
from spikedistill.models.network import Network
from spikedistill.models.twin import Twin
from spikedistill.spiking.deferred import Spikes, settle_all

if TYPE_CHECKING:
    from lightning_fabric import Fabric

LARGEST, SMALLEST = 0.25, 0.01
"""Shares of all weights: of what is put together at once, and below which weights go with those of the whole."""


class Whole:
    """Every process has all weights.

    Attributes:
        method: plain and whole; up to date after ``collect``.
        trained: what is trained, which is the same here.
        each_batch: whether gradients are shared after every batch, not only before an update.
    """

    each_batch = False

    def __init__(self, fabric: Fabric, method: Method) -> None:
        self.fabric, self.method, self.trained = fabric, method, method

    def collect(self) -> Method:
        """The method as it stands, with its student on the device; all processes at the same place."""
        return self.method

    def restore(self, optimizer: Any, state: dict[str, Any]) -> None:
        """Goes on from the method, which has just been loaded, and a whole optimiser's state."""
        entries = {index: dict(held) for index, held in state["state"].items()}
        for index, parameter in enumerate(_parameters(optimizer)):
            for key, value in entries.get(index, {}).items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    # Laid out as the parameter: a fused step runs through memory, and sharded runs leave rows.
                    entries[index][key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        _load(optimizer, state | {"state": entries})

    def state_of(self, optimizer: Any) -> dict[str, Any]:
        """The whole optimiser's state; all processes at the same place."""
        return optimizer.state_dict()

    def gradients(self) -> None:
        """Before an update: shares what the backward pass has not."""

    def clip(self, model: Any, optimizer: Any, norm: float) -> None:
        """Scales the gradient down to a norm."""
        self.fabric.clip_gradients(model, optimizer, max_norm=norm, error_if_nonfinite=False)

    def known_to_all(self, values: Tensor) -> Tensor:
        """Losses and gradients of which one that is not finite anywhere is so in every process."""
        return values

    def agreed(self, found: Found | None) -> Found | None:
        """What any process has found, in all of them."""
        return found


class Sharded(Whole):
    """Every process has a part of each weight.

    Args:
        fabric: launched, with the strategy ``fsdp``.
        method: plain, on the CPU; it stays so.
        example: images ``[2, C, H, W]``, to learn from which modules compute on their own.
    """

    each_batch = True

    def __init__(self, fabric: Fabric, method: Method, example: Tensor) -> None:
        super().__init__(fabric, method)
        self.trained = copy.deepcopy(method).to(fabric.device)
        channels_last_inputs(self.trained)
        self.single = [p for p in self.trained.parameters() if p.dim() == 0]  # what cannot be cut
        self._cut(units(self.trained, example.to(fabric.device)))

    def _cut(self, paths: Iterable[str]) -> None:
        from torch.distributed.fsdp import FSDPModule, fully_shard

        # Spikes are a view of [T, B, ...]; nothing of ours is written into, and others' networks are not cut.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
        mesh = self.fabric.strategy.device_mesh["data_parallel"]  # type: ignore[attr-defined]
        single = set(self.single)
        for parameter in self.trained.parameters():
            parameter.data = parameter.data.contiguous()
        for path in paths:
            fully_shard(self.trained.get_submodule(path), mesh=mesh, ignored_params=single)
            _let_spikes_through(self.trained.get_submodule(path))
        fully_shard(self.trained, mesh=mesh, ignored_params=single)
        for module in self.trained.modules():
            if isinstance(module, FSDPModule):
                module.set_force_sum_reduction_for_comms(dist.get_backend() != "nccl")  # gloo knows no mean

    def collect(self) -> Method:
        from torch.distributed.tensor import DTensor

        state = self.trained.state_dict()
        whole = {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in state.items()}
        self.method.load_state_dict(whole)
        self.method.student.to(self.fabric.device)
        return self.method

    def restore(self, optimizer: Any, state: dict[str, Any]) -> None:
        parts = self.trained.state_dict()
        whole = self.method.state_dict()
        self.trained.load_state_dict({name: _part(value, parts[name]) for name, value in whole.items()})
        parameters = _parameters(optimizer)
        cut = {
            index: {key: _part(value, parameters[index]) for key, value in entries.items()}
            for index, entries in state["state"].items()
        }
        _load(optimizer, state | {"state": cut})

    def state_of(self, optimizer: Any) -> dict[str, Any]:
        from torch.distributed.tensor import DTensor

        state, whole = optimizer.state_dict(), {}
        for index, entries in state["state"].items():
            full = {key: v.full_tensor() if isinstance(v, DTensor) else v for key, v in entries.items()}
            if self.fabric.is_global_zero:  # nobody else keeps it
                whole[index] = {key: v.cpu() if isinstance(v, Tensor) else v for key, v in full.items()}
        return state | {"state": whole}

    def gradients(self) -> None:
        for parameter in self.single:
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad /= self.fabric.world_size

    def clip(self, model: Any, optimizer: Any, norm: float) -> None:
        single = {id(p) for p in self.single}
        parts, wholes = [], []
        for parameter in self.trained.parameters():
            if parameter.grad is not None:
                (wholes if id(parameter) in single else parts).append(own_part(parameter.grad))
        total = _squares(parts, self.fabric.device)
        dist.all_reduce(total)
        total = (total + _squares(wholes, self.fabric.device)).sqrt()
        factor = (norm / (total + 1e-6)).clamp(max=1.0)
        for gradient in (*parts, *wholes):
            gradient.mul_(factor.to(gradient.dtype))

    def known_to_all(self, values: Tensor) -> Tensor:
        bad = (~values.isfinite()).to(values.dtype)
        dist.all_reduce(bad)
        return torch.where((bad > 0) & values.isfinite(), torch.full_like(values, torch.nan), values)

    def agreed(self, found: Found | None) -> Found | None:
        everyone: list[Found | None] = [None] * self.fabric.world_size
        dist.all_gather_object(everyone, found)
        return next((each for each in everyone if each is not None), None)


def _let_spikes_through(part: nn.Module) -> None:
    """Has FSDP's hook on a module see plain tensors, and the module the spikes that they are, packed if they were."""
    held: list[tuple[Any, ...]] = []

    def before(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        held.append(inputs)
        return settle_all(inputs)

    def behind(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        were = held.pop()
        return tuple(x.again(y) if isinstance(x, Spikes) else y for x, y in zip(were, inputs, strict=True))

    part.register_forward_pre_hook(before, prepend=True)
    part.register_forward_pre_hook(behind)


def _squares(tensors: list[Tensor], device: torch.device) -> Tensor:
    total = torch.zeros((), device=device)
    for tensor in tensors:
        total += tensor.float().square().sum()
    return total


def _parameters(optimizer: Any) -> list[Tensor]:
    """In the order in which the optimiser's state numbers them."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def _load(optimizer: Any, state: dict[str, Any]) -> None:
    """Loads an optimiser's state; how its step runs stays its own affair, as that goes by where its parameters are."""
    own = [{key: group[key] for key in ("fused", "foreach") if key in group} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, settings in zip(optimizer.param_groups, own, strict=True):
        group.update(settings)


def _part(value: Any, like: Any) -> Any:
    """This process's part of a whole tensor, where ``like`` is one; anything else as it is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    whole = value.to(like.device).contiguous()
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)


def units(method: Method, example: Tensor) -> list[str]:
    """Paths of the modules whose weights are put together and taken apart at once.

    Such a module computes once in a step, has its weights to itself, and nobody else looks at them (what stands in for
    a network's weights, as in Joint A-SNN, takes their place for the whole step). A network that is neither built nor
    rebuilt here may write into what its layers return, where FSDP loses sight of it: it is one piece.
    """
    alone = _alone(method, example)
    total = sum(p.numel() for p in method.parameters())

    def within(path: str, module: nn.Module) -> list[str]:
        size = sum(p.numel() for p in module.parameters())
        if size < SMALLEST * total:
            return []
        if path in alone and size <= LARGEST * total:
            return [path]
        inner = [unit for name, child in module.named_children() for unit in within(f"{path}.{name}", child)]
        return inner or ([path] if path in alone else [])

    foreign = method.student if not isinstance(method.student, Network | Twin) else None
    return [unit for name, child in method.named_children() if child is not foreign for unit in within(name, child)]


def _alone(method: Method, example: Tensor) -> set[str]:
    """The modules with weights that compute once in a step, on their own weights, which are nobody else's."""
    subject = copy.deepcopy(method).eval()
    modules = dict(subject.named_modules())
    owners: dict[int, list[str]] = {}
    for path, module in subject.named_modules(remove_duplicate=False):
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(f"{path}.")
    own = {path: {id(p) for p in module.parameters()} for path, module in modules.items()}
    calls: Counter[str] = Counter()

    def note(path: str) -> Any:
        def look(module: nn.Module, _inputs: Any) -> None:
            calls[path] += 1 if {id(p) for p in module.parameters()} == own[path] else 2

        return look

    for path, module in modules.items():
        module.register_forward_pre_hook(note(path))
    with torch.no_grad(), torch.random.fork_rng(devices=[example.device] if example.is_cuda else []):
        subject(example, torch.zeros(len(example), dtype=torch.long, device=example.device), Progress(0, 1))
    return {
        path
        for path, ids in own.items()
        if path and ids and calls[path] == 1 and all(o.startswith(f"{path}.") for i in ids for o in owners[i])
    }
