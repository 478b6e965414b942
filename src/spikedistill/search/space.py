"""The search space as coordinates: one whole number for each stage's channels and for each stage's blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from spikedistill.models.subnets import Space, Subnet

if TYPE_CHECKING:
    from optuna import Trial

CHANNELS, BLOCKS = "channels", "blocks"


def coordinates(subnet: Subnet) -> dict[str, int]:
    """``channels1`` ... and ``blocks1`` ... of a subnet."""
    return {
        f"{kind}{stage}": value
        for kind, values in ((CHANNELS, subnet.widths), (BLOCKS, subnet.depths))
        for stage, value in enumerate(values, 1)
    }


def subnet_at(place: Mapping[str, int]) -> Subnet:
    """The subnet with these coordinates."""
    stages = range(1, len(place) // 2 + 1)
    widths, depths = (tuple(place[f"{kind}{stage}"] for stage in stages) for kind in (CHANNELS, BLOCKS))
    return Subnet(widths, depths)


def dimensions(space: Space) -> dict[str, tuple[int, ...]]:
    """What each coordinate may be."""
    return coordinates(Subnet(space.widths, space.depths))  # type: ignore[arg-type, return-value]


def suggest(trial: Trial, space: Space) -> Subnet:
    """The subnet that Optuna proposes.

    The choices of a dimension are evenly spaced in SAKD's table 1, so that they are numbers and not mere names to the
    sampler: what is known of 128 channels says something about 160.
    """
    return subnet_at(
        {
            name: trial.suggest_int(name, options[0], options[-1], step=options[1] - options[0])
            for name, options in dimensions(space).items()
        }
    )
