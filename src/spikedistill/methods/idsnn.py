"""IDSNN: Towards High-Performance and Low-Latency SNN Training via Initialization and Distillation.

Fan, Zhang, Zhang; Biomimetics 2023, 8, 375. A larger frozen ANN gives the SNN its start (``init.kind=resample``, see
``transfer/resample.py``) and teaches it by its responses. The two are separate switches of one recipe:

    baseline         method.alpha=0    init.kind=random
    initialisation   method.alpha=0    init.kind=resample
    distillation     method.alpha=0.5  init.kind=random
    both             method.alpha=0.3  init.kind=resample

alpha 0.3 with the initialisation and 0.5 without are the authors' code's, as is tau 4; the paper prints neither.

Deviation: equation 7 writes KL(student, teacher); meant, as in the code, is the divergence from the teacher's
distribution to the student's, ``KL(teacher || student)``. Algorithm 1 encodes images as Poisson spikes, the authors'
code repeats them: the recipes do as the code, and ``encoding=poisson`` is the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from spikedistill.losses import soft_targets
from spikedistill.methods.base import Method, Progress
from spikedistill.ranges import check_ranges


class IDSNN(Method):
    """Response distillation: ``CE + alpha * tau^2 * KL(teacher || student)`` (equation 8)."""

    summary = "IDSNN: soft targets of a larger ANN, whose weights may start the student"

    @dataclass(frozen=True)
    class Settings:
        """alpha: weight of the soft targets (0: the teacher is not asked at all); temperature: tau."""

        alpha: float = 0.3
        temperature: float = 4.0
        __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

        def __post_init__(self) -> None:
            check_ranges(self, {"at least 0": ["alpha"], "above 0": ["temperature"]})

    @classmethod
    def asks_teacher(cls, settings: Any) -> bool:
        return settings.alpha > 0

    def forward(self, images: Tensor, labels: Tensor, progress: Progress) -> tuple[Tensor, dict[str, Tensor]]:
        target = None if self.teacher is None else self.teacher(images)
        logits = self.student(images)
        losses = {"task": F.cross_entropy(logits.float(), labels)}
        if target is not None:
            losses["response"] = self.settings.alpha * soft_targets(logits, target, self.settings.temperature)
        return logits, losses
