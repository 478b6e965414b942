"""Training on the logits of every timestep instead of on their mean: TET, and temporal-wise logit distillation.

TET: Deng, Li, Zhang, Gu; "Temporal Efficient Training of Spiking Neural Network via Gradient Re-weighting", ICLR 2022.

TWLD: Yu, Zhao, Liu, Yang, Wang, Li, Wang; "Efficient Logit-based Knowledge Distillation of Deep Spiking Neural Networks
for Full-Range Timestep Deployment", ICML 2025. Its option ``entropy`` is the term of TSER: Yu, Yu, Zhang, Zhao, Yang,
Wang, Zhang, Xu; "Temporal Separation with Entropy Regularization for Knowledge Distillation in Spiking Neural
Networks", CVPR 2025, whose loss is ``(1 - a) * L_TWCE + a * L_TWKL - c * H``; up to a common factor that is TWLD with
``beta=0``.

With either, a network trained at T answers well at fewer timesteps too: every prefix of its steps was trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikedistill.errors import UserError, unknown
from spikedistill.losses import entropy, soft_targets
from spikedistill.methods.base import NO_TEACHER, Method, Progress
from spikedistill.ranges import check_ranges
from spikedistill.spiking.time import direct_encode, fold, readout


def check_stepwise(student: nn.Module) -> None:
    """Refuses a network whose logits of each timestep cannot be read.

    Raises:
        UserError: it has no timesteps.
    """
    if getattr(student, "timesteps", None) is None:
        raise UserError(
            "this method reads the logits of each timestep and takes an SNN with an attribute 'timesteps' and "
            f"forward(images, per_step=True); the student {type(student).__name__} has no timesteps"
        )


def stepwise_cross_entropy(steps: Tensor, labels: Tensor) -> Tensor:
    """``1/T * sum over t of CE(z(t), y)``: logits ``[T, B, K]`` and labels ``[B]`` to a scalar (TET equation 9)."""
    return F.cross_entropy(fold(steps).float(), fold(direct_encode(labels, steps.shape[0])))


class TET(Method):
    """Temporal efficient training: ``(1 - weight) * 1/T sum CE(z(t), y) + weight * 1/T sum MSE(z(t), level)``.

    The second term keeps the logits of every timestep near one level, so that none of them is an outlier. Both sums
    are means over the batch as well, as in the authors' code.
    """

    summary = "TET: cross-entropy of every timestep, no teacher"
    teacher_role = NO_TEACHER

    @dataclass(frozen=True)
    class Settings:
        """weight: lambda, of the regularising term (the code's default for events is 0.001); level: phi, V_th there."""

        weight: float = 0.05
        level: float = 1.0
        __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

        def __post_init__(self) -> None:
            check_ranges(self, {"between 0 and 1": ["weight"]})

    def __init__(self, student: nn.Module, teacher: nn.Module | None, settings: Any, example: Tensor) -> None:
        check_stepwise(student)
        super().__init__(student, teacher, settings, example)

    def forward(self, images: Tensor, labels: Tensor, progress: Progress) -> tuple[Tensor, dict[str, Tensor]]:
        steps = self.student(images, per_step=True)
        weight = self.settings.weight
        return readout(steps), {
            "task": (1.0 - weight) * stepwise_cross_entropy(steps, labels),
            "level": weight * (steps.float() - self.settings.level).square().mean(),
        }


class TWLD(Method):
    """Temporal-wise logit distillation: ``L_TWCE + alpha * L_TWKL + beta * L_TWSD - entropy * H``.

    All are means over timesteps and images, z(t) the student's logits at step t::

        L_TWCE = CE(z(t), y)
        L_TWKL = tau^2 * KL(softmax(teacher / tau) || softmax(z(t) / tau))
        L_TWSD = tau^2 * KL(softmax(ensemble / tau) || softmax(z(t) / tau))
        H      = entropy of softmax(z(t) / tau)

    The ensemble is the mean of z over T, taken as a constant. Deviation: the authors' code averages, for each image,
    only the steps that classify it correctly (and takes the uniform distribution where none does); that is
    ``ensemble="correct"``, the paper's mean over all steps is the default. The entropy term, which keeps the student
    from repeating a teacher's overconfident errors, is written as TSER's public reimplementations have it (at tau, in
    nats); its authors' code was not at hand.
    """

    summary = "TWLD: labels, teacher and the ensemble over time at every timestep"

    @dataclass(frozen=True)
    class Settings:
        """Weights and targets.

        Attributes:
            alpha: weight of the teacher's soft targets.
            beta: weight of the ensemble's.
            temperature: tau of both.
            ensemble: which timesteps make it, ``all`` or only the ``correct`` ones.
            entropy: weight of TSER's entropy term, 0 for none.
        """

        alpha: float = 0.2
        beta: float = 0.5
        temperature: float = 3.0
        ensemble: Literal["all", "correct"] = "all"
        entropy: float = 0.0
        __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

        def __post_init__(self) -> None:
            check_ranges(self, {"at least 0": ["alpha", "beta", "entropy"], "above 0": ["temperature"]})
            if self.ensemble not in ENSEMBLES:
                raise unknown("method.ensemble", self.ensemble, list(ENSEMBLES))

    def __init__(self, student: nn.Module, teacher: nn.Module | None, settings: Any, example: Tensor) -> None:
        check_stepwise(student)
        super().__init__(student, teacher, settings, example)

    def forward(self, images: Tensor, labels: Tensor, progress: Progress) -> tuple[Tensor, dict[str, Tensor]]:
        assert self.teacher is not None
        settings = self.settings
        target = self.teacher(images)
        steps = self.student(images, per_step=True)
        ensemble = ENSEMBLES[settings.ensemble](steps.detach(), labels)
        losses = {
            "task": stepwise_cross_entropy(steps, labels),
            "response": settings.alpha * soft_targets(steps, target, settings.temperature),
            "ensemble": settings.beta * soft_targets(steps, ensemble, settings.temperature),
        }
        if settings.entropy > 0:
            losses["entropy"] = -settings.entropy * entropy(steps, settings.temperature)
        return readout(steps), losses


def all_steps(steps: Tensor, labels: Tensor) -> Tensor:
    """The mean of the logits ``[T, B, K]`` over T."""
    return readout(steps)


def correct_steps(steps: Tensor, labels: Tensor) -> Tensor:
    """The mean over the steps that classify an image correctly; zeros (a uniform target) where none does."""
    correct = (steps.argmax(-1) == labels).to(steps.dtype).unsqueeze(-1)
    share = readout(correct)
    return torch.where(share > 0, readout(steps * correct) / share.clamp(min=1.0 / steps.shape[0]), 0.0)


ENSEMBLES = {"all": all_steps, "correct": correct_steps}
