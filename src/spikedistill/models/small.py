"""The small networks: KDSNN's 2conv (128C3-P2-128C3-P2-FC1152-FC10: 7.39M parameters on MNIST) and LeNet5.

Neither has an option ``stem``: the papers know no ImageNet version of them.
"""

from __future__ import annotations

from torch import Tensor, nn

from spikedistill.errors import UserError
from spikedistill.models.layers import initialise
from spikedistill.models.network import Network
from spikedistill.spiking import LIF


class TwoConv(Network):
    """Two 3x3 convolutions with BatchNorm and max pooling, one hidden layer of nine times the width.

    Args:
        num_classes, in_channels: K and C.
        image_size: side of the square input in pixels, at least 4.
        width: channels of both convolutions (128 is the published network).
        timesteps, neuron: as in ``Network``.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int,
        image_size: int = 28,
        width: int = 128,
        timesteps: int | None = None,
        neuron: LIF | None = None,
    ) -> None:
        super().__init__(timesteps, neuron)
        if image_size < 4:
            raise UserError(f"2conv pools twice and needs images of at least 4x4 pixels, not {image_size}")
        self.in_channels, self.image_size = in_channels, image_size
        self.conv1, self.bn1 = nn.Conv2d(in_channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.relu1, self.pool1 = self.activation(), nn.MaxPool2d(2)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.relu2, self.pool2 = self.activation(), nn.MaxPool2d(2)
        self.fc1, self.relu3 = nn.Linear(width * (image_size // 4) ** 2, width * 9), self.activation()
        self.fc2 = nn.Linear(width * 9, num_classes)
        self.stages = {"stage1": "relu1", "stage2": "relu2"}
        self.blocks = {"stage1.block1": "relu1", "stage2.block1": "relu2"}
        initialise(self)

    @property
    def encoder(self) -> nn.Module:
        return self.relu1

    def stem(self, x: Tensor) -> Tensor:
        return self.bn1(self.conv1(x))

    def body(self, x: Tensor) -> Tensor:
        x = self.pool1(x)
        x = self.pool2(self.relu2(self.bn2(self.conv2(x))))
        return self.fc2(self.relu3(self.fc1(x.flatten(1))))


class LeNet5(Network):
    """LeNet5 (LeCun et al. 1998): 6C5-P2-16C5-P2-FC120-FC84-FC10, average pooling, no BatchNorm.

    Args:
        num_classes, in_channels: K and C.
        image_size: side of the square input in pixels; 28 is padded by 2 as in the original, others by 2 as well.
        width: channels of the first convolution (6 is the published network; the others scale with it).
        timesteps, neuron: as in ``Network``.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int,
        image_size: int = 28,
        width: int = 6,
        timesteps: int | None = None,
        neuron: LIF | None = None,
    ) -> None:
        super().__init__(timesteps, neuron)
        side = (image_size // 2 - 4) // 2
        if side < 1:
            raise UserError(f"lenet5 needs images of at least 12x12 pixels, not {image_size}")
        self.in_channels, self.image_size = in_channels, image_size
        c1, c2, f1, f2 = width, 16 * width // 6, 20 * width, 14 * width
        self.conv1, self.relu1 = nn.Conv2d(in_channels, c1, 5, padding=2), self.activation()
        self.conv2, self.relu2 = nn.Conv2d(c1, c2, 5), self.activation()
        self.pool1, self.pool2 = nn.AvgPool2d(2), nn.AvgPool2d(2)
        self.fc1, self.relu3 = nn.Linear(c2 * side * side, f1), self.activation()
        self.fc2, self.relu4 = nn.Linear(f1, f2), self.activation()
        self.fc3 = nn.Linear(f2, num_classes)
        self.stages = {"stage1": "relu1", "stage2": "relu2"}
        self.blocks = {"stage1.block1": "relu1", "stage2.block1": "relu2"}
        initialise(self)

    @property
    def encoder(self) -> nn.Module:
        return self.relu1

    def stem(self, x: Tensor) -> Tensor:
        return self.conv1(x)

    def body(self, x: Tensor) -> Tensor:
        x = self.pool1(x)
        x = self.pool2(self.relu2(self.conv2(x)))
        x = self.relu3(self.fc1(x.flatten(1)))
        return self.fc3(self.relu4(self.fc2(x)))
