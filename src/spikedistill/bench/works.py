"""The benchmark's pieces of work: each makes its candidates, one of which is the baseline, and says what it aims at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from spikedistill.bench.networks import Shape, convolutions_alone, inference, method_step, repeated, training
from spikedistill.bench.peers import DECAY, PEERS
from spikedistill.bench.timing import Step
from spikedistill.models.fuse import optimise
from spikedistill.spiking import LIF, compiling

SPIKINGJELLY = "SpikingJelly"
FAST, LEAN, PLAIN = "spikedistill fast", "spikedistill lean", "spikedistill, plain loop"
TWIN, FLOOR = "ReLU twin on T x B images", "its convolutions alone"


@dataclass(frozen=True)
class Setup:
    """What a benchmark runs on.

    Attributes:
        device: where.
        peers: the installed peers.
        small: shrink everything, to try the command.
    """

    device: torch.device
    peers: tuple[str, ...]
    small: bool = False


@dataclass(frozen=True)
class Target:
    """An aim: this candidate's time (or memory) is at most ``at_most`` of the baseline's (or of ``to``'s)."""

    candidate: str
    at_most: float
    to: str | None = None
    memory: bool = False


@dataclass(frozen=True)
class Work:
    """A piece of work.

    Attributes:
        title: what it is, with its sizes.
        baseline: the candidate that the others are measured against.
        candidates: makes them.
        targets: the aims on a CPU.
        gpu_targets: the aims on a GPU.
        memory: whether the bytes kept for the backward pass are counted too.
        bound: what stands in the way of an aim that is missed, and what was tried.
    """

    title: str
    baseline: str
    candidates: Callable[[Setup], Mapping[str, Step]]
    targets: tuple[Target, ...] = ()
    gpu_targets: tuple[Target, ...] = ()
    memory: bool = False
    bound: str = ""


def _resnet(setup: Setup, timesteps: int = 4, batch: int = 32, width: int = 32) -> Shape:
    return Shape(
        "resnet18", 8 if setup.small else width, 16 if setup.small else 32, 3, 4 if setup.small else batch, timesteps
    )


def _neuron(setup: Setup) -> Mapping[str, Step]:
    device, size = setup.device, (4, 4, 8, 8, 8) if setup.small else (4, 32, 64, 32, 32)
    x = torch.randn(size, device=device, requires_grad=True)
    upstream = torch.randn(size, device=device)

    def both(layer: Callable[[torch.Tensor], torch.Tensor], kernels: str = "auto") -> Step:
        def step() -> None:
            with compiling.choose(kernels):
                layer(x).backward(upstream)
            x.grad = None

        return step

    ours = LIF(decay=DECAY)
    found = {name: both(PEERS[name](device)) for name in setup.peers}
    traffic = both(_Traffic.apply)
    return {**found, PLAIN: both(ours, "plain"), FAST: both(ours), MEMORY_TRAFFIC: traffic}


MEMORY_TRAFFIC = "memory traffic alone"


class _Traffic(torch.autograd.Function):
    """The least that a neuron must move: reads a current, writes a spike; reads both again, writes a gradient."""

    @staticmethod
    def forward(ctx, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        ctx.save_for_backward(x)
        return compiling.call(_compare, [x.detach().flatten()], {}).view_as(x)  # type: ignore[union-attr]

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return compiling.call(_multiply, [x.detach().flatten(), grad.flatten()], {}).view_as(x)  # type: ignore[union-attr]


def _compare(x: torch.Tensor) -> torch.Tensor:
    return (x >= 1.0).to(x.dtype)


def _multiply(x: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    return x * grad


def _training(dtype: torch.dtype, shape_of: Callable[[Setup], Shape]) -> Callable[[Setup], Mapping[str, Step]]:
    def make(setup: Setup) -> Mapping[str, Step]:
        shape, device = shape_of(setup), setup.device
        images, labels = shape.images(device), shape.labels(device)
        sequence = images.expand(shape.timesteps, *images.shape)  # what one feeds a peer's network with direct coding
        steps = {name: training(shape.with_peer(name, device), sequence, labels, dtype) for name in setup.peers}
        steps[PLAIN] = training(shape.network(device), images, labels, dtype, kernels="plain")
        for name, memory in ((FAST, "fast"), (LEAN, "lean")):
            steps[name] = training(optimise(shape.network(device), memory), images, labels, dtype)
        twin = shape.network(device, spiking=False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        many = labels.repeat(shape.timesteps)
        steps[TWIN] = training(twin, repeated(images, shape.timesteps), many, dtype)
        steps[FLOOR] = convolutions_alone(shape, device)(dtype)
        return steps

    return make


def _mnist(setup: Setup) -> Mapping[str, Step]:
    shape = Shape("2conv", 16 if setup.small else 128, 28, 1, 8 if setup.small else 128, 4)
    device = setup.device
    images, labels = shape.images(device), shape.labels(device)
    steps = {PLAIN: training(shape.network(device), images, labels, torch.float32, kernels="plain")}
    for name, dtype in ((f"{FAST} fp32", torch.float32), (f"{FAST} bf16", torch.bfloat16)):
        steps[name] = training(optimise(shape.network(device)), images, labels, dtype)
    return steps


def _methods(name: str, settings: dict[str, float]) -> Callable[[Setup], Mapping[str, Step]]:
    def make(setup: Setup) -> Mapping[str, Step]:
        shape = _resnet(setup, batch=128)
        precision = torch.bfloat16
        return {
            "snn": method_step("snn", {}, shape, setup.device, precision),
            name: method_step(name, dict(settings), shape, setup.device, precision),
        }

    return make


def _inference(dtype: torch.dtype) -> Callable[[Setup], Mapping[str, Step]]:
    def make(setup: Setup) -> Mapping[str, Step]:
        shape, device = _resnet(setup), setup.device
        images = shape.images(device)
        sequence = images.expand(shape.timesteps, *images.shape)
        steps = {name: inference(shape.with_peer(name, device), sequence, dtype) for name in setup.peers}
        steps[FAST] = inference(optimise(shape.network(device)), images, dtype)
        twin = shape.network(device, spiking=False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        steps[TWIN] = inference(twin, repeated(images, shape.timesteps), dtype)
        return steps

    return make


def _growth(of: str, values: tuple[int, ...]) -> Callable[[Setup], Mapping[str, Step]]:
    def make(setup: Setup) -> Mapping[str, Step]:
        steps = {}
        for value in values:
            shape = _resnet(setup, **{of: value})
            images, labels = shape.images(setup.device), shape.labels(setup.device)
            network = optimise(shape.network(setup.device), "lean")
            steps[f"{of} {value}"] = training(network, images, labels, torch.float32)
        return steps

    return make


def _wide(setup: Setup) -> Shape:
    return _resnet(setup, batch=128, width=64)


WORKS: dict[str, Work] = {
    "neuron": Work(
        "LIF alone, forward and backward, [4, 32, 64, 32, 32], fp32",
        SPIKINGJELLY,
        _neuron,
        (Target(FAST, 0.33), Target(FAST, 1.25, MEMORY_TRAFFIC)),
    ),
    "train-fp32": Work(
        "ResNet-18 of width 32, T=4, B=32, 32x32: training step, fp32",
        SPIKINGJELLY,
        _training(torch.float32, _resnet),
        (Target(FAST, 0.70), Target(LEAN, 1.10, FAST), Target(LEAN, 0.26, memory=True)),
        memory=True,
    ),
    "train-bf16": Work(
        "the same in bf16",
        SPIKINGJELLY,
        _training(torch.bfloat16, _resnet),
        (Target(FAST, 0.52),),
        memory=True,
    ),
    "train-gpu": Work(
        "ResNet-18 of width 64, T=4, B=128, 32x32: training step, bf16",
        SPIKINGJELLY,
        _training(torch.bfloat16, _wide),
        gpu_targets=(Target(FAST, 0.70), Target(LEAN, 0.45, memory=True)),
        memory=True,
    ),
    "mnist": Work(
        "2conv on 28x28, T=4, B=128: training step",
        PLAIN,
        _mnist,
        (Target(f"{FAST} bf16", 0.35),),
    ),
    "sakd": Work(
        "SAKD's step beside the plain SNN's: ResNet-18 of width 32, T=4, B=128, bf16",
        "snn",
        _methods("sakd", {"alpha": 1.0, "beta": 10.0, "temperature": 4.0}),
        (Target("sakd", 1.15),),
    ),
    "joint": Work(
        "Joint A-SNN's step beside the plain SNN's: ResNet-18 of width 32, T=4, B=128, bf16",
        "snn",
        _methods("joint-asnn", {}),
        (Target("joint-asnn", 1.30),),
        bound="the ANN's own forward and backward pass is a quarter of the plain step, composing the weights from "
        "their factors a twentieth, the branches the rest. All weights of one shape are composed in one batched "
        "product for both networks, and the branches' gradient joins the spikes' in one pass; the plain step itself "
        "has become faster than what the aim was set against",
    ),
    "inference": Work(
        "inference: ResNet-18 of width 32, T=4, B=32, fp32",
        SPIKINGJELLY,
        _inference(torch.float32),
        (Target(FAST, 0.50),),
        bound="the convolutions: the ReLU twin, which has nothing else but BatchNorm, takes as long. BatchNorm and "
        "neuron already run in one pass over the convolution's output, and the image goes through the first "
        "convolution once. In bf16 the aim is reached",
    ),
    "inference-bf16": Work(
        "inference, the same in bf16",
        SPIKINGJELLY,
        _inference(torch.bfloat16),
        (Target(FAST, 0.50),),
    ),
    "timesteps": Work(
        "growth with T: ResNet-18 of width 32, B=32, lean, fp32",
        "timesteps 1",
        _growth("timesteps", (1, 2, 4, 8, 16)),
        (Target("timesteps 16", 17.6), Target("timesteps 16", 16.0, memory=True)),
        memory=True,
    ),
    "batch": Work(
        "growth with the batch: ResNet-18 of width 32, T=4, lean, fp32",
        "batch 8",
        _growth("batch", (8, 16, 32, 64)),
        memory=True,
    ),
    "width": Work(
        "growth with the width: ResNet-18, T=4, B=32, lean, fp32",
        "width 8",
        _growth("width", (8, 16, 32, 64)),
        memory=True,
    ),
}
ON_GPU_ONLY = frozenset({"train-gpu"})
