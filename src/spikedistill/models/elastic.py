"""An elastic ResNet: one set of weights that holds every subnet of SAKD's search space (section 3.3, table 1).

A subnet takes the first channels of every layer and the first blocks of every stage. The network is a ResNet of basic
blocks as large as the space allows, with that ResNet's state-dict keys; ``choose`` says which subnet it runs, and
``extract`` returns one as a plain ``ResNet``. The stem is as wide as the first stage, as in any ResNet, so that the
teacher's architecture (ResNet-34) is one of the subnets.

BatchNorm: the running statistics are the largest subnet's. Any other subnet normalises by its batch in training mode,
leaving them alone; in evaluation mode it takes their first channels, which do not fit it until they are measured anew
(``search/calibration.py``), as BigNAS (Yu et al. 2020) does for every subnet.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikedistill.errors import UserError
from spikedistill.models.network import Network
from spikedistill.models.resnet import BasicBlock, ResNet
from spikedistill.models.subnets import FULL_WIDTH, SPACE, Space, Subnet, channels
from spikedistill.spiking import LIF


class SlicedConv2d(nn.Conv2d):
    """A convolution by the first ``c_out`` filters on as many input channels as come in."""

    c_out: int

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight[: self.c_out, : x.shape[1]], None)


class SlicedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm by the first channels, as many as come in; ``whole`` where the network runs its largest subnet."""

    whole: bool

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.whole:
            return super().forward(x)
        assert self.running_mean is not None and self.running_var is not None
        c = x.shape[1]
        statistics = (None, None) if self.training else (self.running_mean[:c], self.running_var[:c])
        return F.batch_norm(x, *statistics, self.weight[:c], self.bias[:c], self.training, 0.0, self.eps)


class SlicedLinear(nn.Linear):
    """A linear layer on as many inputs as come in."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight[:, : x.shape[1]], self.bias)


SLICED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: SlicedConv2d,
    nn.BatchNorm2d: SlicedBatchNorm2d,
    nn.Linear: SlicedLinear,
}


def plain_resnet(
    subnet: Subnet,
    *,
    num_classes: int,
    in_channels: int,
    stem: str = "cifar",
    width: int = FULL_WIDTH,
    timesteps: int | None = None,
    neuron: LIF | None = None,
) -> ResNet:
    """A subnet as the plain ResNet that it is, with weights of its own."""
    return ResNet(
        BasicBlock,
        subnet.depths,
        channels(subnet, width),
        num_classes=num_classes,
        in_channels=in_channels,
        stem=stem,
        timesteps=timesteps,
        neuron=neuron,
    )


class ElasticResNet(ResNet):
    """The supernet; runs its largest subnet until another one is chosen.

    Args:
        num_classes, in_channels, stem, timesteps, neuron: as in ``ResNet``.
        width: scales the space, ``FULL_WIDTH`` is table 1's.

    Attributes:
        space: the subnets it holds.
        chosen: the subnet that it runs; ``stages`` and ``blocks`` name the chosen one's features.
    """

    space: ClassVar[Space] = SPACE
    chosen: Subnet

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int,
        stem: str = "cifar",
        width: int = FULL_WIDTH,
        timesteps: int | None = None,
        neuron: LIF | None = None,
    ) -> None:
        largest = self.space.largest
        super().__init__(
            BasicBlock,
            largest.depths,
            channels(largest, width),
            num_classes=num_classes,
            in_channels=in_channels,
            stem=stem,
            timesteps=timesteps,
            neuron=neuron,
        )
        self.width = width
        self._plain: Callable[[Subnet], ResNet] = partial(
            plain_resnet,
            num_classes=num_classes,
            in_channels=in_channels,
            stem=stem,
            width=width,
            timesteps=timesteps,
            neuron=neuron,
        )
        for module in self.modules():
            # The layers stay what they are, initialisation included; only their forward pass takes slices.
            module.__class__ = SLICED.get(type(module), type(module))
        self.choose(largest)

    def choose(self, subnet: Subnet) -> None:
        """Runs ``subnet`` from now on.

        Raises:
            UserError: it is not in the space.
        """
        self.chosen = self.space.check(subnet)
        counts = channels(subnet, self.width)
        for module in self.modules():
            if isinstance(module, SlicedBatchNorm2d):
                module.whole = subnet == self.space.largest
        self.conv1.c_out = counts[0]  # type: ignore[assignment]
        for stage, c_out in enumerate(counts, 1):
            for module in self.get_submodule(f"layer{stage}").modules():
                if isinstance(module, SlicedConv2d):
                    module.c_out = c_out
        self.blocks = {
            f"stage{stage}.block{i + 1}": f"layer{stage}.{i}.{BasicBlock.last_activation}"
            for stage, depth in enumerate(subnet.depths, 1)
            for i in range(depth)
        }
        self.stages = {
            f"stage{stage}": self.blocks[f"stage{stage}.block{depth}"] for stage, depth in enumerate(subnet.depths, 1)
        }

    def run_stages(self, x: Tensor) -> Tensor:
        for stage, depth in enumerate(self.chosen.depths, 1):
            for block in islice(self.get_submodule(f"layer{stage}").children(), depth):
                x = block(x)
        return x

    @torch.no_grad()
    def extract(self, subnet: Subnet) -> ResNet:
        """A subnet as a plain ResNet with a copy of its weights and of its share of the running statistics.

        It computes exactly what this network does where ``subnet`` is chosen.

        Raises:
            UserError: it is not in the space.
        """
        self.space.check(subnet)
        with torch.device("meta"):  # no numbers are drawn for weights that are replaced
            plain = self._plain(subnet)
            if self.output is not None:
                plain.fire()
        ours = self.state_dict()
        state = {
            key: ours[key][tuple(slice(size) for size in value.shape)].clone()
            for key, value in plain.state_dict().items()
        }
        plain.load_state_dict(state, assign=True)
        if self.timesteps is not None:
            plain.timesteps = self.timesteps
        plain.encoding = self.encoding
        if self.settings is not None:
            options = self.settings["options"]
            assert isinstance(options, dict)
            plain.settings = {**self.settings, "options": options | {"subnet": str(subnet)}}
        return plain.train(self.training)


def elastic_resnet(
    *,
    num_classes: int,
    in_channels: int,
    stem: str = "cifar",
    width: int = FULL_WIDTH,
    subnet: str = "",
    timesteps: int | None = None,
    neuron: LIF | None = None,
) -> Network:
    """The supernet, or with ``subnet`` (such as ``64-128-256-512/3-4-6-3``) one of its subnets as a plain ResNet.

    Raises:
        UserError: a width that table 1 cannot be scaled to, or a subnet outside the space.
    """
    if width % 4:
        raise UserError(f"model elastic-resnet: width must be a multiple of 4, not {width}")
    build = partial(plain_resnet, SPACE.check(Subnet.parse(subnet))) if subnet else ElasticResNet
    return build(
        num_classes=num_classes, in_channels=in_channels, stem=stem, width=width, timesteps=timesteps, neuron=neuron
    )
