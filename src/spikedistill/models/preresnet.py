"""Pre-activation networks with BatchNorm in front of each activation: PreActResNet-20 and the WideResNets.

PreActResNet-d (He et al. 2016, "Identity Mappings in Deep Residual Networks"): three stages of (d - 2) / 6 blocks with
16, 32, 64 planes (d = 20: 0.27M). WideResNet-d-k (Zagoruyko and Komodakis 2016): stem 16, three stages of (d - 4) / 6
blocks with 16k, 32k, 64k planes. They are one network: with the stem's activation shared by both paths of the first
block, and the projecting blocks' first activation shared likewise, PreActResNet-20 is the WideResNet with n = 3, k = 1.

WRN16-2 has 0.69M parameters and WRN28-4 5.85M; KDSNN's FLOPs of WRN28-4, 849.33M, are 845.60M multiply-accumulates
plus four operations for each element that passes a BatchNorm.
"""

from __future__ import annotations

from torch import Tensor, nn

from spikedistill.models.activation import Activation
from spikedistill.models.layers import conv1x1, conv3x3, initialise
from spikedistill.models.staged import StagedNetwork, consumers
from spikedistill.spiking import LIF


class PreActBlock(nn.Module):
    """Twice BatchNorm, activation, 3x3 convolution; then addition.

    A projection (1x1, no BatchNorm) takes the first activation's output, an identity takes what entered the block.

    Args:
        c_in, planes, stride: shape of the block.
        activation: the activation factory.
        first: the block follows the stem, whose BatchNorm and activation stand for its own first ones.
    """

    def __init__(self, c_in: int, planes: int, stride: int, activation: Activation, first: bool = False) -> None:
        super().__init__()
        self.bn1, self.relu1 = (nn.Identity(), nn.Identity()) if first else (nn.BatchNorm2d(c_in), activation())
        self.conv1 = conv3x3(c_in, planes, stride)
        self.bn2, self.relu2, self.conv2 = nn.BatchNorm2d(planes), activation(), conv3x3(planes, planes)
        self.downsample = None if stride == 1 and c_in == planes else conv1x1(c_in, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.bn1(x))
        identity = x if self.downsample is None else self.downsample(y)
        return self.conv2(self.relu2(self.bn2(self.conv1(y)))) + identity


class PreActResNet(StagedNetwork):
    """A pre-activation ResNet of any depth and width.

    A block ends with the activation that takes its sum: ``relu1`` of the next block (behind that block's BatchNorm),
    ``relu_out`` after the last one.

    Args:
        depths, widths: blocks and planes per stage.
        stem_width: channels of the stem.
        num_classes, in_channels: K and C.
        stem: ``cifar`` or ``imagenet``, as in ``ResNet``.
        timesteps, neuron: as in ``Network``.
    """

    def __init__(
        self,
        depths: tuple[int, ...],
        widths: tuple[int, ...],
        stem_width: int,
        *,
        num_classes: int,
        in_channels: int,
        stem: str = "cifar",
        timesteps: int | None = None,
        neuron: LIF | None = None,
    ) -> None:
        c = stem_width
        super().__init__(in_channels=in_channels, stem=stem, stem_width=c, timesteps=timesteps, neuron=neuron)
        self.relu = self.activation()
        for stage, (depth, planes, ends) in enumerate(zip(depths, widths, consumers(depths), strict=True), 1):
            layers = []
            for i in range(depth):
                stride = 2 if i == 0 and stage > 1 else 1
                layers.append(PreActBlock(c, planes, stride, self.activation, first=stage == 1 and i == 0))
                c = planes
            self.add_stage(layers, ends)
        self.bn_out, self.relu_out = nn.BatchNorm2d(c), self.activation()
        self.add_head(c, num_classes)
        initialise(self)

    def body(self, x: Tensor) -> Tensor:
        return self.classify(self.relu_out(self.bn_out(self.run_stages(self.maxpool(x)))))
