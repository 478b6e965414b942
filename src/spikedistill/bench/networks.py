"""What is measured: networks with our neurons or a peer's, and steps on them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikedistill.bench.peers import DECAY, PEERS
from spikedistill.bench.timing import Step
from spikedistill.methods import METHODS
from spikedistill.methods.base import Progress
from spikedistill.models.activation import Spike
from spikedistill.models.fuse import channels_last, optimise
from spikedistill.models.registry import create_model
from spikedistill.spiking import LIF, compiling

CLASSES = 10


@dataclass(frozen=True)
class Shape:
    """A network and what goes through it."""

    model: str
    width: int
    side: int
    channels: int
    batch: int
    timesteps: int

    def images(self, device: torch.device) -> Tensor:
        """Random images ``[B, C, H, W]``."""
        return torch.randn(self.batch, self.channels, self.side, self.side, device=device)

    def labels(self, device: torch.device) -> Tensor:
        """Random labels ``[B]``."""
        return torch.randint(CLASSES, (self.batch,), device=device)

    def network(self, device: torch.device, *, spiking: bool = True) -> nn.Module:
        """The network with our neuron, or its ReLU twin; the same weights each time."""
        torch.manual_seed(0)
        settings: dict[str, Any] = {"num_classes": CLASSES, "in_channels": self.channels, "width": self.width}
        settings |= {"image_size": self.side} if self.model == "2conv" else {"stem": "cifar"}
        if spiking:
            settings |= {"spiking": True, "timesteps": self.timesteps, "neuron": LIF(decay=DECAY)}
        return create_model(self.model, **settings).to(device)

    def with_peer(self, peer: str, device: torch.device) -> nn.Module:
        """The network with a peer's neuron, for which time is folded into the batch as for ours."""
        network = self.network(device)
        for module in network.modules():
            if isinstance(module, Spike):
                module.neuron = PEERS[peer](device)  # type: ignore[assignment]
        return network.to(device)


def training(network: nn.Module, images: Tensor, labels: Tensor, dtype: torch.dtype, *, kernels: str = "auto") -> Step:
    """A training step without its optimiser: forward, cross-entropy, backward."""

    def step() -> None:
        with compiling.choose(kernels), autocast(images.device, dtype):
            loss = F.cross_entropy(network(images).float(), labels)
        with compiling.choose(kernels):
            loss.backward()
        for parameter in network.parameters():
            parameter.grad = None

    return step


def inference(network: nn.Module, images: Tensor, dtype: torch.dtype) -> Step:
    """A forward pass in eval mode without gradients."""
    network.eval()

    def step() -> None:
        with torch.inference_mode(), autocast(images.device, dtype):
            network(images)

    return step


def method_step(name: str, settings: dict[str, Any], shape: Shape, device: torch.device, dtype: torch.dtype) -> Step:
    """A training step of a method whose teacher is the student's ReLU twin."""
    student, teacher = shape.network(device), shape.network(device, spiking=False)
    images, labels = shape.images(device), shape.labels(device)
    kind = METHODS[name]
    needs = None if kind.teacher_role == "none" else teacher
    method = kind(student, needs, kind.Settings(**settings), images[:2]).to(device).train()
    optimise(method.student)
    channels_last(teacher)

    def step() -> None:
        with autocast(device, dtype):
            _, losses = method(images, labels, Progress(0, 1))
        torch.stack(list(losses.values())).sum().backward()
        for parameter in method.parameters():
            parameter.grad = None

    return step


def autocast(device: torch.device, dtype: torch.dtype) -> Any:
    """Mixed precision, or nothing for float32."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


def convolutions_alone(shape: Shape, device: torch.device) -> Callable[[torch.dtype], Step]:
    """The network's convolutions and additions on T x B images: BatchNorm and activations do nothing."""
    network = shape.network(device, spiking=False)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d | nn.ReLU):
                setattr(module, name, nn.Identity())
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = repeated(shape.images(device), shape.timesteps)
    labels = shape.labels(device).repeat(shape.timesteps)
    return lambda dtype: training(network, images, labels, dtype)


def repeated(images: Tensor, timesteps: int) -> Tensor:
    """T copies of the images: ``[T*B, C, H, W]``."""
    return images.repeat(timesteps, 1, 1, 1)
