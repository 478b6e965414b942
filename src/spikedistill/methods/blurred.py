"""BKDSNN: Enhancing the Performance of Learning-based SNNs Training with Blurred Knowledge Distillation.

Xu, You, Guo, Wang, He; ECCV 2024. The student's feature in front of its last layer is blurred (channels are dropped at
random), restored by two convolutions, and compared with the teacher's; logits are distilled beside it ("mixed"
distillation, the paper's best)::

    L = CE + gamma * L_logits + alpha * sum over C, H, W of (F_t - G(M * A(F_s)))^2
    G = 3x3 convolution, ReLU, 3x3 convolution;  A = 1x1 convolution where channels differ, else the identity
    M = 0 with probability ratio, 1 otherwise, drawn for each image and channel

``F_s`` is averaged over T; sums are means over the batch. With ``pool`` the restored map and ``F_t`` are averaged over
their pixels first, and the sum is over C. Restoring what was dropped keeps the student from copying single activations,
whose discrete values it cannot match. ``L_logits`` is the authors' code's: soft targets with a weight for each image
(weighted soft labels, Zhou et al. 2021).

The authors' code has both sums. For SEW ResNets it sums over C, H, W; that loss's default of alpha, 7e-5, is the one
here (its ImageNet script passes 7e-5 as well, its CIFAR10-DVS script 2e-3). For Spikingformers on CIFAR-100 and
ImageNet it pools, with 2e-3: ``pool: true, alpha: 2.0e-3``.

Deviations: maps of different size are averaged down to the smaller, unless they are pooled. The code can scale the
teacher's map to the student's maximum (off in its scripts), which is ``rescale`` here, with the student's maximum taken
in front of A and as a constant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikedistill.losses import summed_squared_distance, weighted_soft_targets
from spikedistill.methods.base import Method, Progress
from spikedistill.methods.features import FeaturePairs, common_points, module_key, same_size
from spikedistill.ranges import check_ranges


class Restoration(nn.Module):
    """Blurs a student's map and restores the teacher's from it: ``[B, c_in, H, W]`` to ``[B, c_out, H, W]``.

    Args:
        c_in, c_out: channels of the student's and of the teacher's map.
        ratio: share of the channels that are dropped.
    """

    def __init__(self, c_in: int, c_out: int, ratio: float) -> None:
        super().__init__()
        self.ratio = ratio
        self.align = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)
        self.restore = nn.Sequential(
            nn.Conv2d(c_out, c_out, 3, padding=1), nn.ReLU(), nn.Conv2d(c_out, c_out, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.restore(self.blur(self.align(x)))

    def blur(self, x: Tensor) -> Tensor:
        """Sets whole channels of single images to zero; the others stay as they are (no scaling up, unlike dropout)."""
        kept = torch.rand(x.shape[:2], device=x.device) >= self.ratio
        return x * kept[:, :, None, None].to(x.dtype)


class BKDSNN(Method):
    """Blurred-feature distillation: dropped channels, two convolutions that restore them, squared distance."""

    summary = "BKDSNN: blurred student features restored to the teacher's"

    @dataclass(frozen=True)
    class Settings:
        """Weights, blur and features.

        Attributes:
            alpha: weight of the feature term, which is a sum over C, H, W (over C with ``pool``).
            gamma: weight of the logits' term.
            temperature: tau of the logits' term.
            ratio: share of the channels that are dropped.
            pool: average the restored map and the teacher's over their pixels before they are compared.
            rescale: scale the teacher's map so that its maximum is the student's.
            stages: names of the stages to match; empty for the last in common.
        """

        alpha: float = 7e-5
        gamma: float = 1.0
        temperature: float = 2.0
        ratio: float = 0.15
        pool: bool = False
        rescale: bool = False
        stages: tuple[str, ...] = ()
        __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

        def __post_init__(self) -> None:
            ranges = {"at least 0": ["alpha", "gamma"], "above 0": ["temperature"], "between 0 and 1": ["ratio"]}
            check_ranges(self, ranges)

    def __init__(self, student: nn.Module, teacher: nn.Module | None, settings: Any, example: Tensor) -> None:
        super().__init__(student, teacher, settings, example)
        assert teacher is not None
        chosen = settings.stages or list(common_points(student, teacher, "stage")[0])[-1:]
        self.pairs = FeaturePairs(student, teacher, example, chosen=chosen, sides=("after", "after"))
        self.restorations = nn.ModuleDict(
            {
                module_key(name): Restoration(ours[1], theirs[1], settings.ratio)
                for name, (ours, theirs) in self.pairs.shapes.items()
            }
        )

    def forward(self, images: Tensor, labels: Tensor, progress: Progress) -> tuple[Tensor, dict[str, Tensor]]:
        assert self.teacher is not None
        settings = self.settings
        answer = self.teacher(images)
        logits = self.student(images)
        losses = {
            "task": F.cross_entropy(logits.float(), labels),
            "response": settings.gamma * weighted_soft_targets(logits, answer, labels, settings.temperature),
        }
        for name, pair in self.pairs.take(labels.shape[0]).items():
            ours, theirs = pair if settings.pool else same_size(*pair)
            if settings.pool:
                theirs = theirs.mean((2, 3))
            if settings.rescale:
                theirs = theirs / theirs.amax().clamp(min=1e-6) * ours.detach().amax()
            restored = self.restorations[module_key(name)](ours)
            if settings.pool:
                restored = restored.mean((2, 3))
            losses[f"feature/{name}"] = settings.alpha * summed_squared_distance(restored, theirs)
        return logits, losses

    def close(self) -> None:
        self.pairs.close()
