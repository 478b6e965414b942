"""MS-ResNet: residual networks with membrane shortcuts.

Source: Hu et al. 2021, "Advancing Spiking Neural Networks towards Deep Residual Learning".

The activation comes first in each block, and what is added is the membrane current, never spikes; convolutions of the
residual branch see spikes only. Keys and shapes are ``ResNet``'s (with the CIFAR stem), so weights can be exchanged.

Deviations from the authors' code: the last BatchNorm of a block starts at one, not at zero; all start at one, not at
the threshold; bottleneck blocks (50, 101, 152) are not in the paper. As there, the ImageNet stem has no max pooling and
the first stage is strided instead.
"""

from __future__ import annotations

from torch import Tensor, nn

from spikedistill.models.activation import Activation
from spikedistill.models.layers import conv1x1, conv3x3, initialise, shortcut
from spikedistill.models.staged import MembraneNetwork, consumers
from spikedistill.spiking import LIF


class MsBasicBlock(nn.Module):
    """Twice activation, 3x3 convolution, BatchNorm; then addition. The projection takes the membrane current."""

    expansion = 1

    def __init__(self, c_in: int, planes: int, stride: int, activation: Activation) -> None:
        super().__init__()
        self.relu1, self.conv1, self.bn1 = activation(), conv3x3(c_in, planes, stride), nn.BatchNorm2d(planes)
        self.relu2, self.conv2, self.bn2 = activation(), conv3x3(planes, planes), nn.BatchNorm2d(planes)
        self.downsample = shortcut(c_in, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(self.relu1(x)))
        y = self.bn2(self.conv2(self.relu2(y)))
        return y + (x if self.downsample is None else self.downsample(x))


class MsBottleneck(nn.Module):
    """``MsBasicBlock`` with 1x1, 3x3 (strided) and 1x1 convolutions to four times the planes."""

    expansion = 4

    def __init__(self, c_in: int, planes: int, stride: int, activation: Activation) -> None:
        super().__init__()
        c_out = planes * self.expansion
        self.relu1, self.conv1, self.bn1 = activation(), conv1x1(c_in, planes), nn.BatchNorm2d(planes)
        self.relu2, self.conv2, self.bn2 = activation(), conv3x3(planes, planes, stride), nn.BatchNorm2d(planes)
        self.relu3, self.conv3, self.bn3 = activation(), conv1x1(planes, c_out), nn.BatchNorm2d(c_out)
        self.downsample = shortcut(c_in, c_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(self.relu1(x)))
        y = self.bn2(self.conv2(self.relu2(y)))
        y = self.bn3(self.conv3(self.relu3(y)))
        return y + (x if self.downsample is None else self.downsample(x))


class MsResNet(MembraneNetwork):
    """An MS-ResNet of any depth and width.

    A block ends with the activation that takes its sum: ``relu1`` of the next block, ``relu_out`` after the last one.

    Args:
        block: ``MsBasicBlock`` or ``MsBottleneck``.
        depths, widths: blocks and planes per stage.
        num_classes, in_channels: K and C.
        stem: ``cifar`` (3x3, stride 1) or ``imagenet`` (7x7, stride 2, first stage strided).
        timesteps, neuron: as in ``Network``.
        hidden: width of an extra fully connected layer before the classifier, 0 for none.
    """

    first_activation = "layer1.0.relu1"

    def __init__(
        self,
        block: type[MsBasicBlock] | type[MsBottleneck],
        depths: tuple[int, ...],
        widths: tuple[int, ...],
        *,
        num_classes: int,
        in_channels: int,
        stem: str = "cifar",
        timesteps: int | None = None,
        neuron: LIF | None = None,
        hidden: int = 0,
    ) -> None:
        c = widths[0]
        super().__init__(in_channels=in_channels, stem=stem, stem_width=c, timesteps=timesteps, neuron=neuron)
        self.maxpool = nn.Identity()
        for stage, (depth, planes, ends) in enumerate(zip(depths, widths, consumers(depths), strict=True), 1):
            strided = stage > 1 or self.imagenet_stem
            layers = []
            for i in range(depth):
                layers.append(block(c, planes, 2 if i == 0 and strided else 1, self.activation))
                c = planes * block.expansion
            self.add_stage(layers, ends)
        self.bn_out, self.relu_out = nn.Identity(), self.activation()
        self.add_head(c, num_classes, hidden)
        initialise(self)
