"""VGG-11, 13, 16 with BatchNorm: VGG-11 is KDSNN's layout (eight convolutions, FC512-FC512-FC10: 9.75M parameters)."""

from __future__ import annotations

from torch import Tensor, nn

from spikedistill.models.layers import initialise
from spikedistill.models.network import Network
from spikedistill.spiking import LIF

LAYOUTS: dict[str, tuple[tuple[int, ...], ...]] = {
    "vgg11": ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    "vgg13": ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512)),
    "vgg16": ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
}


class VGG(Network):
    """A VGG with BatchNorm and one max pooling after each of its five stages.

    Args:
        layout: output channels of each convolution, per stage.
        num_classes, in_channels: K and C.
        image_size: side of the square input in pixels; pooling stops where the map is one pixel wide.
        width: channels of the first stage (64 is the published network; all others scale with it).
        hidden: width of the two hidden fully connected layers, scaled with ``width``; 0 for a single linear classifier.
        timesteps, neuron: as in ``Network``.
    """

    def __init__(
        self,
        layout: tuple[tuple[int, ...], ...],
        *,
        num_classes: int,
        in_channels: int,
        image_size: int = 32,
        width: int = 64,
        hidden: int = 512,
        timesteps: int | None = None,
        neuron: LIF | None = None,
    ) -> None:
        super().__init__(timesteps, neuron)
        self.in_channels, self.image_size = in_channels, image_size
        self.stages, self.blocks = {}, {}
        layers: list[nn.Module] = []
        c, side = in_channels, image_size
        for stage, channels in enumerate(layout, 1):
            for block, full in enumerate(channels, 1):
                planes = full * width // 64
                layers += [nn.Conv2d(c, planes, 3, 1, 1, bias=False), nn.BatchNorm2d(planes), self.activation()]
                self.blocks[f"stage{stage}.block{block}"] = f"features.{len(layers) - 1}"
                c = planes
            self.stages[f"stage{stage}"] = f"features.{len(layers) - 1}"
            if side > 1:
                layers.append(nn.MaxPool2d(2))
                side //= 2
        self.features = nn.Sequential(*layers)
        c *= side * side
        head: list[nn.Module] = []
        if hidden:
            hidden = hidden * width // 64
            for _ in range(2):
                head += [nn.Linear(c, hidden), self.activation()]
                c = hidden
        self.classifier = nn.Sequential(*head, nn.Linear(c, num_classes))
        initialise(self)

    @property
    def encoder(self) -> nn.Module:
        return self.features[2]

    def stem(self, x: Tensor) -> Tensor:
        return self.features[1](self.features[0](x))

    def body(self, x: Tensor) -> Tensor:
        return self.classifier(self.features[3:](x).flatten(1))
