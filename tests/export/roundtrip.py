"""The way to a file and back."""

from __future__ import annotations

import io

import torch
from torch import Tensor, nn

from spikedistill.export import About, NirNetwork, read_nir
from spikedistill.export.nir_file import nir_bytes


def through_a_file(network: nn.Module, images: Tensor, **about: object) -> NirNetwork:
    """The network, written as NIR and read back."""
    return read_nir(io.BytesIO(nir_bytes(network, images, About(network.timesteps, **about))))


def settle(network: nn.Module, images: Tensor) -> nn.Module:
    """Gives BatchNorm statistics and weights that a training could have left there."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.uniform_(module.bias, -0.3, 0.3, generator=generator)
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(images)
    return network.eval()
