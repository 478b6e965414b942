"""What the residual families share: the stem, the named stages, the pooled head, and membrane shortcuts.

State-dict keys are the field's usual ones: ``conv1, bn1, layer1 ... layer4, fc``.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from spikedistill.errors import unknown
from spikedistill.models.layers import conv3x3
from spikedistill.models.network import Network
from spikedistill.spiking import LIF
from spikedistill.spiking.time import direct_encode, fold

STEMS = ("cifar", "imagenet")


class StagedNetwork(Network):
    """``conv1-bn1`` stem, stages ``layer1, layer2 ...`` of blocks, global average pooling, ``fc``.

    A subclass calls ``super().__init__``, then ``add_stage`` for each stage and ``add_head`` once, in this order.
    A pre-activation family sets ``bn_out`` and ``relu_out`` (what stands between the last sum and the pooling).

    Args:
        in_channels: C of the images.
        stem: ``cifar`` (3x3, stride 1) or ``imagenet`` (7x7, stride 2, max pooling 3x3 stride 2).
        stem_width: channels of the stem.
        timesteps, neuron: as in ``Network``.

    Raises:
        UserError: unknown stem.
    """

    relu: nn.Module
    bn_out: nn.Module
    relu_out: nn.Module

    def __init__(
        self, *, in_channels: int, stem: str, stem_width: int, timesteps: int | None = None, neuron: LIF | None = None
    ) -> None:
        super().__init__(timesteps, neuron)
        if stem not in STEMS:
            raise unknown("stem", stem, STEMS)
        self.in_channels = in_channels
        self.imagenet_stem = stem == "imagenet"
        c = stem_width
        self.conv1 = nn.Conv2d(in_channels, c, 7, 2, 3, bias=False) if self.imagenet_stem else conv3x3(in_channels, c)
        self.bn1 = nn.BatchNorm2d(c)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if self.imagenet_stem else nn.Identity()
        self.stages, self.blocks = {}, {}
        self.hidden = 0

    def add_stage(self, blocks: Sequence[nn.Module], ends: Sequence[str]) -> None:
        """Appends a stage.

        Args:
            blocks: its blocks, in order.
            ends: for each block, the path of the activation that ends it.
        """
        stage = len(self.stages) + 1
        self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        for block, path in enumerate(ends, 1):
            self.blocks[f"stage{stage}.block{block}"] = path
        self.stages[f"stage{stage}"] = ends[-1]

    def add_head(self, c: int, num_classes: int, hidden: int = 0) -> None:
        """Appends average pooling and the classifier of ``c`` channels, with a hidden layer unless ``hidden`` is 0."""
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.hidden = hidden
        if hidden:
            self.fc1, self.relu_fc1 = nn.Linear(c, hidden), self.activation()
        self.fc = nn.Linear(hidden or c, num_classes)

    @property
    def encoder(self) -> nn.Module:
        return self.relu

    def stem(self, x: Tensor) -> Tensor:
        return self.bn1(self.conv1(x))

    def body(self, x: Tensor) -> Tensor:
        return self.classify(self.run_stages(self.maxpool(x)))

    def run_stages(self, x: Tensor) -> Tensor:
        """The stages, one after the other: what enters ``layer1`` to what leaves the last one."""
        for stage in range(1, len(self.stages) + 1):
            x = self.get_submodule(f"layer{stage}")(x)
        return x

    def classify(self, x: Tensor) -> Tensor:
        """The last map ``[N, C, H, W]`` to logits ``[N, K]``."""
        x = self.avgpool(x).flatten(1)
        if self.hidden:
            x = self.relu_fc1(self.fc1(x))
        return self.fc(x)


class MembraneNetwork(StagedNetwork):
    """A network whose shortcuts carry the stem's analogue current past the first activation, up to ``relu_out``.

    Under direct coding the stem is computed once and its current repeated; ``body`` therefore takes the current
    ``[T*B, ...]``, not the first activation's spikes.
    """

    first_activation: str

    @property
    def encoder(self) -> nn.Module:
        return self.get_submodule(self.first_activation)

    def stem(self, x: Tensor) -> Tensor:
        return self.maxpool(self.bn1(self.conv1(x)))

    def encode(self, current: Tensor, direct: bool) -> Tensor:
        if not direct or self.timesteps is None:
            return current
        return fold(direct_encode(current, self.timesteps))

    def body(self, x: Tensor) -> Tensor:
        return self.classify(self.relu_out(self.bn_out(self.run_stages(x))))


def consumers(depths: Sequence[int]) -> list[list[str]]:
    """Where pre-activation blocks end: for each block of each stage, the path of the activation that takes its sum.

    That is the first activation (``relu1``) of the block that follows, ``relu_out`` for the last block of all.
    """
    paths = [f"layer{stage}.{i}.relu1" for stage, depth in enumerate(depths, 1) for i in range(depth)]
    paths = [*paths[1:], "relu_out"]
    starts = [sum(depths[:stage]) for stage in range(len(depths))]
    return [paths[start : start + depth] for start, depth in zip(starts, depths, strict=True)]
