"""What feature distillation needs: which features, their shapes, taps on them, and bringing two maps to one size."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikedistill.errors import UserError, unknown
from spikedistill.models.adopt import Adopted
from spikedistill.models.features import Taps, overwritten, taps
from spikedistill.models.modes import in_eval_mode
from spikedistill.models.twin import Twin
from spikedistill.spiking.time import rate


def points_of(network: nn.Module, level: str, role: str = "network") -> dict[str, str]:
    """Feature names and activation paths of a network at ``level`` (``stage`` or ``block``); ``role`` is for messages.

    Raises:
        UserError: a network without named features, or an unknown level.
    """
    levels = ("stage", "block")
    if level not in levels:
        raise unknown("feature level", level, levels)
    if isinstance(network, Adopted):
        raise UserError(
            f"{network.name} runs step by step, and methods that compare features cannot tell its steps apart; choose "
            "one that compares answers, such as kdsnn-response or twld"
        )
    points = getattr(network, f"{level}s", None)
    if not isinstance(points, Mapping):  # a sub-module of that name: a traced network keeps its features elsewhere
        if points is not None and not isinstance(points, nn.Module):
            raise UserError(
                f"the {role}'s attribute '{level}s' is of type {type(points).__name__}; it must be a dict of feature "
                "names to paths of activation modules"
            )
        points = network.points.get(f"{level}s") if isinstance(network, Twin) else None
    if not points:
        raise UserError(
            f"the {role} {type(network).__name__} names no features at level '{level}'; set its attribute "
            f"'{level}s' to a dict of feature names to paths of activation modules that give maps [B, C, H, W], or "
            "choose a method that compares answers, such as kdsnn-response or twld"
        )
    return dict(points)


def common_points(
    student: nn.Module, teacher: nn.Module, level: str, chosen: Sequence[str] = ()
) -> tuple[dict[str, str], dict[str, str]]:
    """The features that student and teacher have in common, restricted to ``chosen`` names if any.

    Raises:
        UserError: a chosen feature that one of them lacks, or none in common.
    """
    ours, theirs = points_of(student, level, "student"), points_of(teacher, level, "teacher")
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
    """Shapes ``[B, C, H, W]`` (mean over T taken) of features for ``example``; mode and statistics stay as they were.

    Args:
        network: any network.
        points: feature names to paths of its activations.
        side: ``before`` or ``after`` the activation.
        example: images ``[B, C, H, W]`` or a sequence ``[T, B, C, H, W]``.

    Raises:
        UserError: a feature that is not a map.
    """
    with in_eval_mode(network), taps(network, points, side) as tap:
        network(example)
        found = tap.take()
    batch = example.shape[-4]
    timesteps = len(example) if example.dim() == 5 else getattr(network, "timesteps", None) or 1
    for name, value in found.items():
        if value.dim() != 4 or len(value) not in (batch, batch * timesteps):
            images = f"{batch} images" + (f" and {timesteps} timesteps" if timesteps > 1 else "")
            raise UserError(
                f"feature '{name}' of the network {type(network).__name__} has shape {list(value.shape)} for {images}; "
                "feature distillation takes maps [B, C, H, W]; name other activations, or choose a method that "
                "compares answers, such as kdsnn-response or twld"
            )
    return {name: rate(value, batch).shape for name, value in found.items()}


class MethodTaps(Taps):
    """``Taps`` of a method, on rates: a deep copy of the method taps the network that was copied with it.

    (A copied network carries the hooks of the one it was copied from, and those record nothing.)
    """

    def __init__(self, network: nn.Module, points: Mapping[str, str], side: str, copied: Collection[str] = ()) -> None:
        super().__init__(network, points, side, rates=True, copied=copied)
        self._made_of = (network, dict(points), side, copied)

    def __deepcopy__(self, memo: dict[int, Any]) -> MethodTaps:
        network, points, side, copied = self._made_of
        return MethodTaps(copy.deepcopy(network, memo), points, side, copied)


def untouched_taps(network: nn.Module, points: dict[str, str], side: str, example: Tensor) -> MethodTaps:
    """Taps on a network that anybody wrote: what it writes over later (``h += skip``) is recorded as it was before."""
    with in_eval_mode(network):
        copied = overwritten(network, points, example) if side == "after" else frozenset()
    return MethodTaps(network, points, side, copied)


class FeaturePairs:
    """Taps on the features that student and teacher have in common.

    Args:
        student, teacher: two networks that name features (``stages``, ``blocks``).
        example: images, to learn the shapes from.
        level: ``stage`` or ``block``.
        chosen: names of the features, empty for all in common.
        sides: where the student's and the teacher's features are taken, ``before`` or ``after`` their activations.

    Attributes:
        shapes: of each feature by name, the student's and the teacher's ``[B, C, H, W]``.

    Raises:
        UserError: features that are missing, unknown or no maps.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        example: Tensor,
        *,
        level: str = "stage",
        chosen: Sequence[str] = (),
        sides: tuple[str, str],
    ) -> None:
        ours, theirs = common_points(student, teacher, level, chosen)
        our_shapes = feature_shapes(student, ours, sides[0], example)
        their_shapes = feature_shapes(teacher, theirs, sides[1], example)
        self.shapes = {name: (our_shapes[name], their_shapes[name]) for name in ours}
        self._student = MethodTaps(student, ours, sides[0])
        self._teacher = untouched_taps(teacher, theirs, sides[1], example)

    def take(self, batch: int) -> dict[str, tuple[Tensor, Tensor]]:
        """Features of the last pass of both networks, forgotten here.

        Args:
            batch: B, the number of images of that pass.

        Returns:
            By name, the student's (mean over T) and the teacher's ``[B, C, H, W]``, each of its own C, H, W. The
            teacher's are targets: no gradient goes back to one that is trained as well.
        """
        ours, theirs = student_rates(self._student, batch), student_rates(self._teacher, batch)
        return {name: (ours[name], theirs[name].detach()) for name in self.shapes}

    def close(self) -> None:
        """Removes the taps from both networks."""
        self._student.close()
        self._teacher.close()


def student_rates(tap: Taps, batch: int) -> dict[str, Tensor]:
    """The student's features of the last pass, averaged over T: ``[B, C, H, W]`` each."""
    return {name: rate(value, batch) for name, value in tap.take().items()}


def same_size(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Averages the larger of two maps ``[B, C, H, W]`` down to the smaller one's H and W."""
    if a.shape[2:] == b.shape[2:]:
        return a, b
    size = (min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3]))
    return F.adaptive_avg_pool2d(a, size), F.adaptive_avg_pool2d(b, size)


def regressor(c_in: int, c_out: int) -> nn.Sequential:
    """1x1 convolution and BatchNorm: maps a student's rates into the teacher's continuous space (SAKD equation 8).

    The paper prints no kernel size; 1x1 mixes channels and leaves each pixel its own.
    """
    return nn.Sequential(nn.Conv2d(c_in, c_out, 1, bias=False), nn.BatchNorm2d(c_out))


def module_key(name: str) -> str:
    """A feature's name as a key of an ``nn.ModuleDict``, which takes no dots and no names of its own attributes."""
    return "feature_" + name.replace(".", "_")
