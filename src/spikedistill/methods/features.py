"""What feature distillation needs: which features, their shapes, and bringing two maps to one size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikedistill.errors import UserError, unknown
from spikedistill.models.features import Taps, taps
from spikedistill.spiking.time import rate


def points_of(network: nn.Module, level: str) -> dict[str, str]:
    """Feature names and activation paths of a network at ``level`` (``stage`` or ``block``).

    Raises:
        UserError: a network without named features, or an unknown level.
    """
    levels = {"stage": getattr(network, "stages", None), "block": getattr(network, "blocks", None)}
    if level not in levels:
        raise unknown("feature level", level, list(levels))
    points = levels[level]
    if not points:
        raise UserError(f"the network {type(network).__name__} names no features at level '{level}' (attribute '{level}s')")
    return dict(points)


def common_points(
    student: nn.Module, teacher: nn.Module, level: str, chosen: Sequence[str] = ()
) -> tuple[dict[str, str], dict[str, str]]:
    """The features that student and teacher have in common, restricted to ``chosen`` names if any.

    Raises:
        UserError: a chosen feature that one of them lacks, or none in common.
    """
    ours, theirs = points_of(student, level), points_of(teacher, level)
    shared = [name for name in ours if name in theirs]
    for name in chosen:
        if name not in shared:
            raise unknown(f"feature ({level})", name, shared)
    names = [name for name in shared if not chosen or name in chosen]
    if not names:
        raise UserError(f"student and teacher have no feature names in common at level '{level}'")
    return {n: ours[n] for n in names}, {n: theirs[n] for n in names}


@torch.no_grad()
def feature_shapes(network: nn.Module, points: dict[str, str], side: str, example: Tensor) -> dict[str, torch.Size]:
    """Shapes ``[B, C, H, W]`` (mean over T taken) of features for ``example``; mode and statistics stay as they were."""
    training = network.training
    network.eval()
    try:
        with taps(network, points, side) as tap:
            network(example)
            return {name: rate(value, example.shape[0]).shape for name, value in tap.take().items()}
    finally:
        network.train(training)


def student_rates(tap: Taps, batch: int) -> dict[str, Tensor]:
    """The student's features of the last pass, averaged over T: ``[B, C, H, W]`` each."""
    return {name: rate(value, batch) for name, value in tap.take().items()}


def same_size(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Averages the larger of two maps ``[B, C, H, W]`` down to the smaller one's H and W."""
    if a.shape[2:] == b.shape[2:]:
        return a, b
    size = [min(x, y) for x, y in zip(a.shape[2:], b.shape[2:], strict=True)]
    return F.adaptive_avg_pool2d(a, size), F.adaptive_avg_pool2d(b, size)


def regressor(c_in: int, c_out: int) -> nn.Sequential:
    """1x1 convolution and BatchNorm: maps a student's rates into the teacher's continuous space (SAKD equation 8)."""
    return nn.Sequential(nn.Conv2d(c_in, c_out, 1, bias=False), nn.BatchNorm2d(c_out))
