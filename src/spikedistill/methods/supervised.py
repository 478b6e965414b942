"""Training without a teacher: the plain SNN (surrogate gradient) and the plain ANN, on the cross-entropy."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from spikedistill.methods.base import NO_TEACHER, Method, Progress


class SNN(Method):
    """The baseline of every table: surrogate-gradient training of the SNN on the labels alone."""

    summary = "plain SNN: surrogate gradient, no teacher"
    teacher_role = NO_TEACHER

    def forward(self, images: Tensor, labels: Tensor, progress: Progress) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.student(images)
        return logits, {"task": F.cross_entropy(logits.float(), labels)}


class ANN(SNN):
    """The plain ANN: how teachers are made."""

    summary = "plain ANN: how teachers are made"
    spiking_student = False
