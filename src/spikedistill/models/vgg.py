"""VGG-11, 13, 16 with BatchNorm (Simonyan and Zisserman 2015, table 1, columns A, B and D).

``stem="cifar"``: five pooled stages, FC512-FC512 and the classifier. VGG-11 is KDSNN's layout (eight convolutions,
FC512-FC512-FC10: 9.75M parameters).

``stem="imagenet"``: the published ImageNet network with BatchNorm. Convolutions have biases, the last map is averaged
to 7x7 (at 224x224 pixels it is 7x7 already), and FC4096, FC4096 and the classifier follow, with dropout of 0.5 behind
both hidden layers: 138.37M parameters in VGG-16 at 1000 classes. Keys and shapes (``features.N``, ``classifier.N``) are
those of torchvision's ``vgg16_bn``, so public weights load as they are. In the SNN a dropout has one mask over T.
Weights start as in every network here, not with torchvision's standard deviation of 0.01 in linear layers.
"""

from __future__ import annotations

from torch import Tensor, nn

from spikedistill.errors import UserError, unknown
from spikedistill.models.layers import initialise
from spikedistill.models.network import Network
from spikedistill.models.staged import STEMS
from spikedistill.spiking import LIF

LAYOUTS: dict[str, tuple[tuple[int, ...], ...]] = {
    "vgg11": ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    "vgg13": ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512)),
    "vgg16": ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
}
HIDDEN = {"cifar": 512, "imagenet": 4096}
IMAGENET_MAP = 7
"""Side of the map that the ImageNet network's classifier takes."""


class VGG(Network):
    """A VGG with BatchNorm and one max pooling after each of its five stages.

    Args:
        layout: output channels of each convolution, per stage.
        num_classes, in_channels: K and C.
        stem: ``cifar`` or ``imagenet``, the network as published for ImageNet (its stem and classifier).
        image_size: side of the square input in pixels; pooling stops where the map is one pixel wide. With
            ``imagenet`` all five poolings stay, and the network takes images of any size from 32x32 pixels on.
        width: channels of the first stage (64 is the published network; all others scale with it).
        hidden: width of the two hidden fully connected layers, scaled with ``width``; 0 for a single linear classifier,
            None for the published one (512, with ``imagenet`` 4096).
        timesteps, neuron: as in ``Network``.

    Raises:
        UserError: unknown stem, or images too small to be pooled five times.
    """

    def __init__(
        self,
        layout: tuple[tuple[int, ...], ...],
        *,
        num_classes: int,
        in_channels: int,
        stem: str = "cifar",
        image_size: int = 32,
        width: int = 64,
        hidden: int | None = None,
        timesteps: int | None = None,
        neuron: LIF | None = None,
    ) -> None:
        super().__init__(timesteps, neuron)
        if stem not in STEMS:
            raise unknown("stem", stem, STEMS)
        self.in_channels, self.imagenet_stem = in_channels, stem == "imagenet"
        self.smallest = 2 ** len(layout) if self.imagenet_stem else 1
        self._check_side(image_size)
        self.image_size = None if self.imagenet_stem else image_size
        channels = tuple(tuple(full * width // 64 for full in stage) for stage in layout)
        self.features, side = self._convolutions(channels, image_size)
        self.avgpool = nn.AdaptiveAvgPool2d(side) if self.imagenet_stem else nn.Identity()
        hidden = HIDDEN[stem] if hidden is None else hidden
        hidden = max(1, hidden * width // 64) if hidden else 0
        self.classifier = self._head(channels[-1][-1] * side * side, hidden, num_classes)
        initialise(self)

    def _convolutions(self, layout: tuple[tuple[int, ...], ...], side: int) -> tuple[nn.Sequential, int]:
        """The convolutions with their poolings, and the side of the map behind them; names the features."""
        self.stages, self.blocks = {}, {}
        layers: list[nn.Module] = []
        c = self.in_channels
        for stage, channels in enumerate(layout, 1):
            for block, planes in enumerate(channels, 1):
                convolution = nn.Conv2d(c, planes, 3, 1, 1, bias=self.imagenet_stem)
                layers += [convolution, nn.BatchNorm2d(planes), self.activation()]
                self.blocks[f"stage{stage}.block{block}"] = f"features.{len(layers) - 1}"
                c = planes
            self.stages[f"stage{stage}"] = f"features.{len(layers) - 1}"
            if self.imagenet_stem or side > 1:
                layers.append(nn.MaxPool2d(2))
                side //= 2
        return nn.Sequential(*layers), IMAGENET_MAP if self.imagenet_stem else side

    def _head(self, c: int, hidden: int, num_classes: int) -> nn.Sequential:
        """Two hidden layers, unless ``hidden`` is 0, and the classifier of ``c`` values."""
        layers: list[nn.Module] = []
        for _ in range(2 if hidden else 0):
            layers += [nn.Linear(c, hidden), self.activation()]
            if self.imagenet_stem:
                layers.append(self.dropout(0.5))
            c = hidden
        return nn.Sequential(*layers, nn.Linear(c, num_classes))

    @property
    def encoder(self) -> nn.Module:
        return self.features[2]

    def stem(self, x: Tensor) -> Tensor:
        return self.features[1](self.features[0](x))

    def body(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features[3:](x)).flatten(1))

    def _check(self, x: Tensor) -> None:
        super()._check(x)
        self._check_side(min(x.shape[-2:]))

    def _check_side(self, side: int) -> None:
        if side < self.smallest:
            raise UserError(
                f"a VGG with the ImageNet stem needs images of at least {self.smallest}x{self.smallest} pixels, "
                f"not {side}"
            )
