"""ResNets with basic and bottleneck blocks, and their two spiking variants that keep the field's state-dict keys.

``ResNet``: activation after the addition (He et al. 2016; as an SNN, Spiking ResNet). With ``SewBasicBlock`` or
``SewBottleneck`` it is SEW-ResNet with the connection ADD (Fang et al. 2021, "Deep Residual Learning in Spiking Neural
Networks"). The membrane-shortcut variant stands in ``msresnet.py``.

Keys are ``conv1, bn1, layer1.0.conv1, layer1.0.downsample.0, fc``, so public ImageNet weights load. Which networks the
names in the registry stand for:

* ResNet-18, 34, 50, 101, 152: He et al. 2016, table 1; the stride of a bottleneck sits in its 3x3 convolution.
  ResNet-18 with the CIFAR stem has 11.17M parameters; KDSNN's FLOPs (557.88M on CIFAR, 457.72M on MNIST) are 555.42M
  and 455.80M multiply-accumulates plus four operations for each element that passes a BatchNorm.
* ResNet-19: tdBN's (Zheng et al. 2021): stem 128, stages of 3, 3, 2 blocks with 128, 256, 512 planes, FC 256; 12.70M.
* ResNet-20: He et al. 2016, section 4.2 (6n+2 with n = 3, planes 16, 32, 64), with projections where the shape changes
  (option B; 0.27M). Some SNN papers call a four-stage network from 64 planes on ResNet-20; ``width=64`` comes near.
* ResNet-14: the same with n = 2 (0.18M). KDSNN gives no size; its accuracy below WRN16-2's fits this one.
"""

from __future__ import annotations

from torch import Tensor, nn

from spikedistill.models.activation import Activation
from spikedistill.models.layers import conv1x1, conv3x3, initialise, shortcut
from spikedistill.models.staged import STEMS, StagedNetwork
from spikedistill.spiking import LIF

__all__ = ["STEMS", "BasicBlock", "Bottleneck", "ResNet", "SewBasicBlock", "SewBottleneck"]


class ResidualBlock(nn.Module):
    """A residual branch that ends in BatchNorm, an identity or projection, addition, activation."""

    expansion: int
    last_activation: str
    downsample: nn.Sequential | None

    def branch(self, x: Tensor) -> Tensor:
        """The residual branch, up to its last BatchNorm."""
        raise NotImplementedError  # pragma: no cover

    def identity(self, x: Tensor) -> Tensor:
        """What the branch is added to."""
        return x if self.downsample is None else self.downsample(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.get_submodule(self.last_activation)(self.branch(x) + self.identity(x))


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions, addition, activation."""

    expansion = 1
    last_activation = "relu2"

    def __init__(self, c_in: int, planes: int, stride: int, activation: Activation) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu1 = conv3x3(c_in, planes, stride), nn.BatchNorm2d(planes), activation()
        self.conv2, self.bn2, self.relu2 = conv3x3(planes, planes), nn.BatchNorm2d(planes), activation()
        self.downsample = shortcut(c_in, planes, stride)

    def branch(self, x: Tensor) -> Tensor:
        y = self.relu1(self.bn1(self.conv1(x)))
        return self.bn2(self.conv2(y))


class Bottleneck(ResidualBlock):
    """1x1, 3x3 (strided), 1x1 to four times the planes, addition, activation."""

    expansion = 4
    last_activation = "relu3"

    def __init__(self, c_in: int, planes: int, stride: int, activation: Activation) -> None:
        super().__init__()
        c_out = planes * self.expansion
        self.conv1, self.bn1, self.relu1 = conv1x1(c_in, planes), nn.BatchNorm2d(planes), activation()
        self.conv2, self.bn2, self.relu2 = conv3x3(planes, planes, stride), nn.BatchNorm2d(planes), activation()
        self.conv3, self.bn3, self.relu3 = conv1x1(planes, c_out), nn.BatchNorm2d(c_out), activation()
        self.downsample = shortcut(c_in, c_out, stride)

    def branch(self, x: Tensor) -> Tensor:
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.relu2(self.bn2(self.conv2(y)))
        return self.bn3(self.conv3(y))


class SpikeElementWise(ResidualBlock):
    """Mixed into a block, makes it spike-element-wise with g = ADD: the activation first, then the addition.

    What leaves the block is a sum of spikes, a small whole number. The projection ends in an activation too. The block
    is said to end with the activation that feeds the sum: before it the residual branch's current, after it the
    residual branch's spikes.
    """

    def __init__(self, c_in: int, planes: int, stride: int, activation: Activation) -> None:
        super().__init__(c_in, planes, stride, activation)  # type: ignore[call-arg]
        if self.downsample is not None:
            self.downsample.append(activation())

    def forward(self, x: Tensor) -> Tensor:
        return self.get_submodule(self.last_activation)(self.branch(x)) + self.identity(x)


class SewBasicBlock(SpikeElementWise, BasicBlock):
    """SEW-ResNet's basic block."""


class SewBottleneck(SpikeElementWise, Bottleneck):
    """SEW-ResNet's bottleneck."""


class ResNet(StagedNetwork):
    """A ResNet of any depth and width.

    Args:
        block: ``BasicBlock``, ``Bottleneck``, ``SewBasicBlock`` or ``SewBottleneck``.
        depths: blocks per stage; three or four stages.
        widths: planes per stage.
        num_classes, in_channels: K and C.
        stem: ``cifar`` (3x3, stride 1) or ``imagenet`` (7x7, stride 2, max pooling 3x3 stride 2).
        timesteps, neuron: as in ``Network``.
        hidden: width of an extra fully connected layer before the classifier (ResNet-19 has one of 256), 0 for none.
        stem_width: channels of the stem, the first stage's where None.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: tuple[int, ...],
        widths: tuple[int, ...],
        *,
        num_classes: int,
        in_channels: int,
        stem: str = "cifar",
        timesteps: int | None = None,
        neuron: LIF | None = None,
        hidden: int = 0,
        stem_width: int | None = None,
    ) -> None:
        c = widths[0] if stem_width is None else stem_width
        super().__init__(in_channels=in_channels, stem=stem, stem_width=c, timesteps=timesteps, neuron=neuron)
        self.relu = self.activation()
        for stage, (depth, planes) in enumerate(zip(depths, widths, strict=True), 1):
            layers = []
            for i in range(depth):
                layers.append(block(c, planes, 2 if i == 0 and stage > 1 else 1, self.activation))
                c = planes * block.expansion
            self.add_stage(layers, [f"layer{stage}.{i}.{block.last_activation}" for i in range(depth)])
        self.add_head(c, num_classes, hidden)
        initialise(self)
