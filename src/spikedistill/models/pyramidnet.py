"""PyramidNet (Han et al. 2017, "Deep Pyramidal Residual Networks"): every block is a little wider than the one before.

KDSNN's Pyramidnet18 (1.56M parameters, 368.74M FLOPs, 95.1 % on CIFAR-10) has neither 18 layers nor the paper's 110:
the layout that fits is the additive network of a widely copied implementation whose growth is planned for 18 blocks a
stage (alpha = 48, so 48 / 54 channels a block from 16 on) but which builds 17: 51 blocks, 104 layers, 61 channels at
the end, 1,558,881 parameters. Its 360.84M multiply-accumulates, four operations for each element that passes a
BatchNorm (7.90M) and those of the average pooling make 368.74M. The same network of 18 blocks a stage would have 1.77M.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from spikedistill.errors import UserError
from spikedistill.models.activation import Activation
from spikedistill.models.layers import conv3x3, initialise
from spikedistill.models.staged import MembraneNetwork, consumers
from spikedistill.spiking import LIF

STAGES = 3
BLOCKS_PER_STAGE = 17
PLANNED_BLOCKS_PER_STAGE = 18


class PyramidBlock(nn.Module):
    """BatchNorm, 3x3, BatchNorm, activation, 3x3, BatchNorm; addition of the zero-padded identity.

    Args:
        c_in, c_out, stride: shape of the block, ``c_out >= c_in``.
        activation: the activation factory.
        both: an activation behind the first BatchNorm as well (not in the paper; then every convolution of the SNN
            takes spikes).
    """

    def __init__(self, c_in: int, c_out: int, stride: int, activation: Activation, both: bool) -> None:
        super().__init__()
        self.bn1, self.relu1 = nn.BatchNorm2d(c_in), activation() if both else nn.Identity()
        self.conv1, self.bn2, self.relu2 = conv3x3(c_in, c_out, stride), nn.BatchNorm2d(c_out), activation()
        self.conv2, self.bn3 = conv3x3(c_out, c_out), nn.BatchNorm2d(c_out)
        self.pool = nn.AvgPool2d(2, ceil_mode=True) if stride == 2 else nn.Identity()
        self.padding = c_out - c_in

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu2(self.bn2(self.conv1(self.relu1(self.bn1(x)))))
        y = self.bn3(self.conv2(y))
        return y + functional.pad(self.pool(x), (0, 0, 0, 0, 0, self.padding))


class PyramidNet(MembraneNetwork):
    """The additive PyramidNet of 3 x 17 blocks.

    With one activation a block, a sum is taken by no activation of its own stage's shape, so a block is said to end
    with its inner activation (``relu2``), the last block of all with ``relu_out``. With two, as in ``MsResNet``, with
    the activation that takes its sum. The shortcuts carry the stem's analogue current.

    Args:
        num_classes, in_channels: K and C.
        stem: ``cifar`` or ``imagenet``, as in ``ResNet``.
        width: channels of the stem (16 is the published network); each block adds width / 18 more.
        activations: 1 for the paper's block, in whose SNN the first convolution of each block takes analogue values;
            2 for one whose convolutions all take spikes.
        timesteps, neuron: as in ``Network``.

    Raises:
        UserError: an unknown stem or another number of activations.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int,
        stem: str = "cifar",
        width: int = 16,
        activations: int = 1,
        timesteps: int | None = None,
        neuron: LIF | None = None,
    ) -> None:
        super().__init__(in_channels=in_channels, stem=stem, stem_width=width, timesteps=timesteps, neuron=neuron)
        if activations not in (1, 2):
            raise UserError(f"a pyramidnet block has 1 or 2 activations, not {activations}")
        both = activations == 2
        depths = (BLOCKS_PER_STAGE,) * STAGES
        # In whole numbers: widths must not depend on how a sum of fractions is rounded.
        planes = [
            round(width * (PLANNED_BLOCKS_PER_STAGE + i) / PLANNED_BLOCKS_PER_STAGE) for i in range(sum(depths) + 1)
        ]
        self.first_activation = "layer1.0.relu1" if both else "layer1.0.relu2"
        for stage, ends in enumerate(consumers(depths) if both else _inner(depths), 1):
            start = (stage - 1) * BLOCKS_PER_STAGE
            blocks = [
                PyramidBlock(planes[i], planes[i + 1], 2 if i == start > 0 else 1, self.activation, both)
                for i in range(start, start + BLOCKS_PER_STAGE)
            ]
            self.add_stage(blocks, ends)
        self.bn_out, self.relu_out = nn.BatchNorm2d(planes[-1]), self.activation()
        self.add_head(planes[-1], num_classes)
        initialise(self)


def _inner(depths: tuple[int, ...]) -> list[list[str]]:
    """The inner activation of each block of each stage, ``relu_out`` for the last one."""
    paths = [[f"layer{stage}.{i}.relu2" for i in range(depth)] for stage, depth in enumerate(depths, 1)]
    paths[-1][-1] = "relu_out"
    return paths
