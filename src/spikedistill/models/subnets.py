"""The subnets of SAKD's search space (section 3.3, table 1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import torch
from torch import Generator

from spikedistill.errors import UserError

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


def channels(subnet: Subnet, width: int) -> tuple[int, ...]:
    """Channels of each stage in a network of ``width``."""
    return tuple(units * width // FULL_WIDTH for units in subnet.widths)
