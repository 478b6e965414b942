"""Tiny students and teachers for the methods' tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from spikedistill import LIF, create_model

BATCH, CHANNELS, CLASSES, SIDE, STEPS = 4, 3, 5, 16, 3

Build = Callable[..., nn.Module]


@pytest.fixture
def build() -> Build:
    """Builds a registered network of width 4 (``build("resnet18", spiking=True, seed=1, width=8)``)."""

    def make(
        name: str = "resnet14", *, spiking: bool = False, seed: int = 0, timesteps: int = STEPS, **options: int | str
    ) -> nn.Module:
        torch.manual_seed(seed)
        # A low threshold: at four channels a layer of the usual one may well be silent.
        neuron = LIF(threshold=0.5) if spiking else None
        options = {"width": 4, **options}
        return create_model(
            name,
            num_classes=CLASSES,
            in_channels=CHANNELS,
            spiking=spiking,
            timesteps=timesteps,
            neuron=neuron,
            **options,
        )

    return make


@pytest.fixture
def images() -> Tensor:
    """A batch of random images ``[B, C, H, W]``."""
    return torch.randn(BATCH, CHANNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def labels() -> Tensor:
    """Their labels ``[B]``."""
    return torch.tensor([0, 3, 1, 4])


class Plain(nn.Module):
    """A network of a user's own: no ``stages``, no ``timesteps`` unless set by hand."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.conv1, self.act1 = nn.Conv2d(CHANNELS, width, 3, padding=1), nn.ReLU()
        self.conv2, self.act2 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.ReLU(inplace=True)
        self.fc = nn.Linear(2 * width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act2(self.conv2(self.act1(self.conv1(x))))
        return self.fc(x.mean((2, 3)))


@pytest.fixture
def plain() -> Callable[..., Plain]:
    """Builds ``Plain``."""

    def make(width: int = 4, seed: int = 0, stages: dict[str, str] | None = None) -> Plain:
        torch.manual_seed(seed)
        network = Plain(width)
        if stages is not None:
            network.stages = stages  # type: ignore[assignment]
        return network

    return make


def watch(network: nn.Module, path: str, side: str) -> list[Tensor]:
    """Collects what enters (``before``) or leaves (``after``) a module, independently of the package's taps."""
    seen: list[Tensor] = []
    module = network.get_submodule(path)
    if side == "before":
        module.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].detach().double()))
    else:
        module.register_forward_hook(lambda _module, _inputs, output: seen.append(output.detach().double()))
    return seen


@pytest.fixture
def watched() -> Callable[[nn.Module, str, str], list[Tensor]]:
    """See ``watch``."""
    return watch


class Echo(nn.Module):
    """A student that answers with given logits ``[T, B, K]`` plus a trainable shift of zero."""

    def __init__(self, steps: Tensor) -> None:
        super().__init__()
        self.steps, self.timesteps = steps, steps.shape[0]
        self.shift = nn.Parameter(torch.zeros_like(steps))

    def forward(self, x: Tensor, per_step: bool = False) -> Tensor:
        steps = (self.steps + self.shift)[:, : x.shape[0]]
        return steps if per_step else steps.mean(0)


@pytest.fixture
def echo() -> Callable[[Tensor], Echo]:
    """Builds ``Echo``."""
    return Echo
