"""A small network that has learned the digits, and the digits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import spikedistill as sd
from spikedistill.data.digits import read_digits

CLASSES = 10


@pytest.fixture(autouse=True)
def _plain_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is about kernels, and one compiles longer than all of these tests run."""
    monkeypatch.setenv("SPIKEDISTILL_KERNELS", "plain")


@pytest.fixture(scope="session")
def digits() -> tuple[Tensor, Tensor]:
    """The digits' 1,297 training images, normalised, and their labels."""
    train, _ = read_digits()
    return (train.images.float() / 255 - 0.305) / 0.3758, train.labels


@pytest.fixture(scope="session")
def trained(digits: tuple[Tensor, Tensor]) -> sd.Network:
    """A 2conv of LIF neurons that knows most digits."""
    images, labels = digits
    torch.manual_seed(0)
    sizes = {"num_classes": CLASSES, "in_channels": 1, "image_size": 8, "width": 8}
    network = sd.create_model("2conv", **sizes, spiking=True, timesteps=4, neuron=sd.LIF(surrogate="arctan"))
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(3):
        for rows in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(network(images[rows]), labels[rows]).backward()
            optimizer.step()
    return network.eval()
