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

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice, product
from math import prod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from spikedistill.errors import UserError
from spikedistill.models.network import Network
from spikedistill.models.resnet import BasicBlock, ResNet
from spikedistill.spiking import LIF

FULL_WIDTH = 64
"""Table 1's channel counts belong to networks of this width; one of width w has ``w / FULL_WIDTH`` of them."""


@dataclass(frozen=True)
class Subnet:
    """One architecture: channels (in table 1's units, whatever the network's width) and blocks of each stage."""

    widths: tuple[int, ...]
    depths: tuple[int, ...]

    def __str__(self) -> str:
        """``64-128-256-512/3-4-6-3``."""
        return "/".join("-".join(map(str, numbers)) for numbers in (self.widths, self.depths))

    @classmethod
    def parse(cls, text: str) -> Subnet:
        """Reads what ``str`` wrote.

        Raises:
            UserError: a text of another form.
        """
        if not re.fullmatch(r"\d+(-\d+)*/\d+(-\d+)*", text):
            raise UserError(
                f"a subnet is the stages' channels and blocks, such as 64-128-256-512/3-4-6-3, not '{text}'"
            )
        widths, depths = (tuple(int(number) for number in part.split("-")) for part in text.split("/"))
        return cls(widths, depths)


@dataclass(frozen=True)
class Space:
    """What a subnet may be: for each stage the channel counts and the numbers of blocks to choose from, ascending."""

    widths: tuple[tuple[int, ...], ...]
    depths: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        """How many subnets there are."""
        return prod(map(len, self.widths + self.depths))

    def __contains__(self, subnet: Subnet) -> bool:
        given, choices = (*subnet.widths, *subnet.depths), self.widths + self.depths
        counts = (len(subnet.widths), len(subnet.depths)) == (len(self.widths), len(self.depths))
        return counts and all(value in options for value, options in zip(given, choices, strict=True))

    @property
    def largest(self) -> Subnet:
        """The widest and deepest subnet."""
        return Subnet(tuple(map(max, self.widths)), tuple(map(max, self.depths)))

    @property
    def smallest(self) -> Subnet:
        """The narrowest and shallowest subnet."""
        return Subnet(tuple(map(min, self.widths)), tuple(map(min, self.depths)))

    def every(self) -> list[Subnet]:
        """All subnets."""
        return [Subnet(w, d) for w, d in product(product(*self.widths), product(*self.depths))]

    def sample(self, generator: Generator) -> Subnet:
        """Draws a subnet, each with the same probability."""

        def draw(choices: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
            return tuple(options[int(torch.randint(len(options), (), generator=generator))] for options in choices)

        return Subnet(draw(self.widths), draw(self.depths))

    def check(self, subnet: Subnet) -> Subnet:
        """Returns ``subnet``.

        Raises:
            UserError: it is not in the space.
        """
        if subnet not in self:
            widths, depths = (
                " x ".join("{" + ", ".join(map(str, options)) + "}" for options in choices)
                for choices in (self.widths, self.depths)
            )
            raise UserError(f"subnet {subnet} is not in the search space: channels {widths}, blocks {depths}")
        return subnet


SPACE = Space(
    widths=((48, 64, 80), (96, 128, 160), (192, 256, 320), (384, 512, 640)),
    depths=((2, 3, 4, 5), (2, 3, 4, 5), (2, 3, 4, 5, 6, 7, 8), (2, 3, 4, 5)),
)
"""SAKD's table 1: 36,288 subnets."""

RESNET34 = Subnet((64, 128, 256, 512), (3, 4, 6, 3))
"""The teacher's architecture (the red line in figure 3)."""


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


def channels(subnet: Subnet, width: int) -> tuple[int, ...]:
    """Channels of each stage in a network of ``width``."""
    return tuple(units * width // FULL_WIDTH for units in subnet.widths)


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
            plain.settings = {**self.settings, "options": {"subnet": str(subnet)}}
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
