"""Registered networks at a size that runs in milliseconds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from spikedistill import LIF, Network, create_model

SIDE, CHANNELS, CLASSES, BATCH = 16, 3, 10, 6

# What a network needs beside ``width=4``.
SMALL: dict[str, dict[str, int]] = {
    "2conv": {"image_size": SIDE},
    "lenet5": {"width": 6, "image_size": SIDE},
    "vgg11": {"image_size": SIDE},
    "vgg13": {"image_size": SIDE},
    "vgg16": {"image_size": SIDE},
    "spikformer-tiny": {"width": 16, "depth": 2, "heads": 2},
    "vit-tiny": {"depth": 3, "heads": 2, "image_size": SIDE},
}

Build = Callable[..., Network]


@pytest.fixture(autouse=True)
def _plain_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is about kernels, and one compiles longer than all of these tests run."""
    monkeypatch.setenv("SPIKEDISTILL_KERNELS", "plain")


@pytest.fixture
def small() -> Build:
    """Builds a registered network at small width, seeded; ``small(name, spiking=True, timesteps=2)``."""

    def build(name: str, *, spiking: bool = False, timesteps: int = 2, **options: int | str) -> Network:
        torch.manual_seed(0)
        # A low threshold: at four channels a layer of the usual one may well be silent.
        return create_model(
            name,
            num_classes=CLASSES,
            in_channels=CHANNELS,
            spiking=spiking,
            timesteps=timesteps,
            neuron=LIF(threshold=0.5) if spiking else None,
            **({"width": 4} | SMALL.get(name, {}) | options),
        )

    return build


@pytest.fixture
def images() -> torch.Tensor:
    """A batch of random images ``[B, C, H, W]``."""
    return torch.randn(BATCH, CHANNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
