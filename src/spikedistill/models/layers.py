"""Layers that several families of networks are made of."""

from __future__ import annotations

from torch import nn


def conv3x3(c_in: int, c_out: int, stride: int = 1) -> nn.Conv2d:
    """3x3 convolution, padding 1, no bias."""
    return nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)


def conv1x1(c_in: int, c_out: int, stride: int = 1) -> nn.Conv2d:
    """1x1 convolution, no bias."""
    return nn.Conv2d(c_in, c_out, 1, stride, bias=False)


def shortcut(c_in: int, c_out: int, stride: int) -> nn.Sequential | None:
    """Projection of the identity where the shape changes, None where it does not."""
    if stride == 1 and c_in == c_out:
        return None
    return nn.Sequential(conv1x1(c_in, c_out, stride), nn.BatchNorm2d(c_out))


def initialise(network: nn.Module) -> None:
    """He initialisation of convolutions (fan out) and hidden linear layers (fan in); BatchNorm at one and zero.

    The last linear layer, the classifier, keeps torch's own initialisation. For the others it would be too little:
    without BatchNorm the currents of a hidden layer would hardly ever reach the threshold.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    for module in [module for module in network.modules() if isinstance(module, nn.Linear)][:-1]:
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
