"""KDSNN: Constructing Deep Spiking Neural Networks from Artificial Neural Networks with Knowledge Distillation.

Xu, Li, Shen, Liu, Tang, Pan; CVPR 2023. A frozen ANN of any architecture teaches the SNN by its responses or by its
features.

Deviations. Response: what is published prints no formula for it; this is the usual one (Hinton et al. 2015) with the
weights alpha and 1 - alpha, its soft-target cross-entropy written as a KL divergence (they differ by the teacher's
entropy, a constant, so gradients are the same and the term is zero where student equals teacher). Feature: the
partial L2 is a mean instead of a sum over W, H, C (alpha is not published); which layers are matched is not published
either, here it is any set of stages; where maps of two architectures differ in size the larger is averaged down.
Both: the paper's output layer fires and its spikes are counted (Algorithm 1); in the recipes, as in the other
methods, its currents are averaged over T, so that the logits that are compared are not among T + 1 values.
``student.options={output: spikes}`` is the paper's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from spikedistill.losses import partial_squared_distance, soft_targets
from spikedistill.methods.base import Method, Progress
from spikedistill.methods.features import FeaturePairs, module_key, regressor, same_size
from spikedistill.ranges import check_ranges


class KDSNNResponse(Method):
    """Response-based distillation: ``alpha * tau^2 * KL(teacher || student) + (1 - alpha) * CE(labels)``."""

    summary = "KDSNN, response: soft targets of a frozen ANN"

    @dataclass(frozen=True)
    class Settings:
        """alpha: weight of the soft targets, 1 - alpha that of the labels; temperature: tau."""

        alpha: float = 0.5
        temperature: float = 4.0
        __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

        def __post_init__(self) -> None:
            check_ranges(self, {"between 0 and 1": ["alpha"], "above 0": ["temperature"]})

    def forward(self, images: Tensor, labels: Tensor, progress: Progress) -> tuple[Tensor, dict[str, Tensor]]:
        assert self.teacher is not None
        target = self.teacher(images)
        logits = self.student(images)
        alpha = self.settings.alpha
        return logits, {
            "task": (1.0 - alpha) * F.cross_entropy(logits.float(), labels),
            "response": alpha * soft_targets(logits, target, self.settings.temperature),
        }


class KDSNNFeature(Method):
    """Feature-based distillation: ``CE + alpha * sum over stages of the partial L2``.

    The teacher's features are taken before its activation, the student's are firing rates (after the spike) mapped by a
    1x1 convolution and BatchNorm; these regressors are trained beside the student and never saved with it.
    """

    summary = "KDSNN, feature: partial L2 to the frozen ANN's stages"

    @dataclass(frozen=True)
    class Settings:
        """alpha: weight of the feature term; stages: names of the stages to match, empty for all in common."""

        alpha: float = 1.0
        stages: tuple[str, ...] = ()
        __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

        def __post_init__(self) -> None:
            check_ranges(self, {"at least 0": ["alpha"]})

    def __init__(self, student: nn.Module, teacher: nn.Module | None, settings: Any, example: Tensor) -> None:
        super().__init__(student, teacher, settings, example)
        assert teacher is not None
        self.pairs = FeaturePairs(student, teacher, example, chosen=settings.stages, sides=("after", "before"))
        self.regressors = nn.ModuleDict(
            {module_key(name): regressor(ours[1], theirs[1]) for name, (ours, theirs) in self.pairs.shapes.items()}
        )

    def forward(self, images: Tensor, labels: Tensor, progress: Progress) -> tuple[Tensor, dict[str, Tensor]]:
        assert self.teacher is not None
        self.teacher(images)
        logits = self.student(images)
        losses = {"task": F.cross_entropy(logits.float(), labels)}
        for name, (ours, theirs) in self.pairs.take(labels.shape[0]).items():
            mapped, target = same_size(self.regressors[module_key(name)](ours), theirs)
            losses[f"feature/{name}"] = self.settings.alpha * partial_squared_distance(mapped, target)
        return logits, losses

    def close(self) -> None:
        self.pairs.close()
