"""SAKD: Self-Architectural Knowledge Distillation for Spiking Neural Networks (Qiu et al.; Neural Networks 178, 2024).

A frozen ANN teaches an SNN of the same architecture by its logits and by its features (equations 5, 7, 8, 9)::

    L = alpha * CE + beta * sum over features of distance(T_s(F_s), T_t(F_t))
        + gamma * tau^2 * KL(softmax(teacher / tau) || softmax(student / tau))

``F_s`` is the student's feature averaged over T. Deep networks (ResNet-101, 152), which surrogate-gradient training
alone does not bring to converge, need ``level="block", side="after"`` (table 10): every block then has a target of its
own and a gradient that does not come through the blocks behind it. They also need the recipe's ``clip: 1.0``, which is
not in the paper: gradients grow on their way back through fresh spiking blocks, a thousandfold in ResNet-101, and
AdamW's second moment remembers those of the first steps for a thousand more, in which early blocks would stand still.

The defaults are the paper's for CIFAR. For ImageNet: ``temperature=1, alpha=1, gamma=10, beta=10, beta_until=10,
beta_after=0.01``, and the student starts from the teacher's weights (recipe: ``init.kind=copy``; it hurts on CIFAR).
Positions the paper found best: ResNet-18 stage/after, ResNet-34 and 50 stage/before, ResNet-101 block/after.

What the paper leaves open, and this file's choice: the convolution of equation 8 is 1x1; a distance is a mean over
elements (of a sum, beta=100 would not train); distances of several features are added, not averaged; ``norm`` (Liu et
al. 2022, "Normalized Feature Distillation") standardises both features over the pixels of each image and channel;
where two architectures' maps differ in size the larger is averaged down.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikedistill.errors import UserError, unknown
from spikedistill.losses import DISTANCES, soft_targets
from spikedistill.methods.base import Method, Progress
from spikedistill.methods.features import FeaturePairs, module_key, regressor, same_size
from spikedistill.ranges import check_ranges

EPSILON = 1e-5


class Standardise(nn.Module):
    """Zero mean and unit variance over the pixels of each image and channel: ``[B, C, H, W]`` to the same shape."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()
        variance, mean = torch.var_mean(x, dim=(2, 3), correction=0, keepdim=True)
        return (x - mean) * torch.rsqrt(variance + EPSILON)


Shapes = tuple[torch.Size, torch.Size]


def _convolved(name: str, shapes: Shapes) -> tuple[nn.Module, nn.Module]:
    ours, theirs = shapes
    return regressor(ours[1], theirs[1]), nn.Identity()


def _unchanged(name: str, shapes: Shapes) -> tuple[nn.Module, nn.Module]:
    _refuse_other_channels("none", name, shapes)
    return nn.Identity(), nn.Identity()


def _standardised(name: str, shapes: Shapes) -> tuple[nn.Module, nn.Module]:
    _refuse_other_channels("norm", name, shapes)
    if min(shape[2:].numel() for shape in shapes) < 2:
        raise UserError(
            f"method.transform=norm standardises over pixels, and feature '{name}' has only one; use transform=conv"
        )
    return Standardise(), Standardise()


def _refuse_other_channels(transform: str, name: str, shapes: Shapes) -> None:
    ours, theirs = shapes
    if ours[1] != theirs[1]:
        raise UserError(
            f"method.transform={transform} needs features of equal channels; feature '{name}' has {ours[1]} in the "
            f"student and {theirs[1]} in the teacher; use transform=conv or a teacher of the student's architecture"
        )


TRANSFORMS: dict[str, Callable[[str, Shapes], tuple[nn.Module, nn.Module]]] = {
    "none": _unchanged,
    "conv": _convolved,
    "norm": _standardised,
}
"""Name to what makes the transforms of the student's and of the teacher's feature, T_s and T_t in equation 8."""


class SAKD(Method):
    """Logits and features of an ANN of the same architecture; deep SNNs converge."""

    summary = "SAKD: logits and features of an ANN of the same architecture"

    @dataclass(frozen=True)
    class Settings:
        """Weights, features and distances.

        Attributes:
            alpha: weight of the labels' cross-entropy.
            beta: weight of the feature term; with 0 throughout no features are touched.
            gamma: weight of the soft targets.
            temperature: tau of the soft targets.
            transform: what the features go through: ``none``, ``conv`` (the student's, through a trained 1x1
                convolution and BatchNorm) or ``norm`` (both are standardised).
            distance: ``l2`` or ``l1``.
            level: match features after each ``stage`` or after each ``block``.
            side: match them ``before`` or ``after`` the spike (the teacher's: its activation).
            stages: names of the features to match, empty for all in common.
            beta_until: number of epochs with ``beta``; None for all.
            beta_after: weight of the feature term after those epochs.
        """

        alpha: float = 0.0
        beta: float = 100.0
        gamma: float = 1.0
        temperature: float = 20.0
        transform: Literal["none", "conv", "norm"] = "conv"
        distance: Literal["l2", "l1"] = "l2"
        level: Literal["stage", "block"] = "stage"
        side: Literal["before", "after"] = "after"
        stages: tuple[str, ...] = ()
        beta_until: int | None = None
        beta_after: float = 0.01
        __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

        def __post_init__(self) -> None:
            weights = ["alpha", "beta", "gamma", "beta_until", "beta_after"]
            check_ranges(self, {"at least 0": weights, "above 0": ["temperature"]})
            if self.beta_until is None and self.beta_after != type(self).beta_after:
                raise UserError("method.beta_after holds after method.beta_until epochs; say how many")
            for name, accepted in (("transform", TRANSFORMS), ("distance", DISTANCES)):
                if getattr(self, name) not in accepted:
                    raise unknown(f"method.{name}", getattr(self, name), list(accepted))

        @property
        def uses_features(self) -> bool:
            """Whether the feature term has a weight in any epoch."""
            return self.beta > 0 or (self.beta_until is not None and self.beta_after > 0)

    def __init__(self, student: nn.Module, teacher: nn.Module | None, settings: Any, example: Tensor) -> None:
        super().__init__(student, teacher, settings, example)
        assert teacher is not None
        self.pairs: FeaturePairs | None = None
        self.student_transforms, self.teacher_transforms = nn.ModuleDict(), nn.ModuleDict()
        if settings.uses_features:
            self.pairs = FeaturePairs(
                student,
                teacher,
                example,
                level=settings.level,
                chosen=settings.stages,
                sides=(settings.side, settings.side),
            )
            for name, shapes in self.pairs.shapes.items():
                ours, theirs = TRANSFORMS[settings.transform](name, shapes)
                self.student_transforms[module_key(name)] = ours
                self.teacher_transforms[module_key(name)] = theirs

    def beta(self, progress: Progress) -> float:
        """Weight of the feature term in this epoch."""
        settings = self.settings
        over = settings.beta_until is not None and progress.epoch >= settings.beta_until
        return settings.beta_after if over else settings.beta

    def forward(self, images: Tensor, labels: Tensor, progress: Progress) -> tuple[Tensor, dict[str, Tensor]]:
        assert self.teacher is not None
        target = self.teacher(images)
        logits = self.student(images)
        losses = {
            "task": self.settings.alpha * F.cross_entropy(logits.float(), labels),
            "response": self.settings.gamma * soft_targets(logits, target, self.settings.temperature),
        }
        return logits, losses | self._feature_losses(labels.shape[0], self.beta(progress))

    def _feature_losses(self, batch: int, weight: float) -> dict[str, Tensor]:
        """One term a stage: a deep network's blocks are added up within theirs."""
        distance = DISTANCES[self.settings.distance]
        losses: dict[str, Tensor] = {}
        for name, (ours, theirs) in (self.pairs.take(batch) if self.pairs is not None else {}).items():
            key, term = module_key(name), f"feature/{name.partition('.')[0]}"
            mapped, target = self.student_transforms[key](ours), self.teacher_transforms[key](theirs)
            loss = weight * distance(*same_size(mapped, target))
            losses[term] = losses[term] + loss if term in losses else loss
        return losses

    def close(self) -> None:
        if self.pairs is not None:
            self.pairs.close()
