"""Networks from timm (extra): thousands of pretrained ANNs, under the names ``timm/<timm's name>``."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from spikedistill.errors import UserError, first_line
from spikedistill.models.rescale import Normalisation

PREFIX = "timm/"


def from_timm(
    name: str, num_classes: int | None, in_channels: int, pretrained: bool
) -> tuple[nn.Module, Normalisation]:
    """A network of timm's and what its images are normalised with.

    Args:
        name: ``timm/`` and the name that timm knows it by.
        num_classes: K; None leaves the number that its weights are for.
        in_channels: C of the images.
        pretrained: whether to fetch its weights (from the Hugging Face hub, or timm's cache).

    Raises:
        UserError: timm is not installed, does not know the name, or cannot get the weights.
    """
    short = name.removeprefix(PREFIX)
    # timm also takes 'hf-hub:somebody/something', whose weights may be a pickle of anybody's.
    if not re.fullmatch(r"[\w.-]+", short):
        raise UserError(f"model '{name}' is none of timm's own, which are called as 'timm/resnet18.a1_in1k' is")
    try:
        import timm  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError(
            f"model '{name}' comes from timm, which is not installed: pip install 'spikedistill[timm]'"
        ) from None
    settings: dict[str, Any] = {"in_chans": in_channels, "pretrained": pretrained}
    if num_classes is not None:
        settings["num_classes"] = num_classes
    try:
        network = timm.create_model(short, **settings)
    except Exception as error:  # timm, its hub and its networks raise many kinds; the name or the network is the user's
        reason = first_line(error)
        raise UserError(f"timm cannot make '{short}': {reason}") from None
    config = network.pretrained_cfg
    return network, (tuple(config["mean"]), tuple(config["std"]))
