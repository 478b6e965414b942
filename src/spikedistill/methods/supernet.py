"""Supernet: training every subnet of an elastic ResNet at once (SAKD section 3.3; BigNAS).

SAKD: "Self-Architectural Knowledge Distillation for Spiking Neural Networks", equation 6 and table 1. A frozen ANN
(ResNet-34) teaches the subnets of one spiking supernet by features and logits; they are used afterwards as they are.
BigNAS: Yu et al., "Scaling Up Neural Architecture Search with Big Single-Stage Models", ECCV 2020, which it follows:

* Sandwich rule. A step trains the largest subnet, the smallest, and ``random`` ones drawn uniformly; their gradients
  go into one update. Which ones is a function of (seed, step), both of which are part of the checkpoint.
* In-place distillation. The largest learns from labels and teacher; the others from the largest's logits alone.
* Initialisation. Every block's residual branch starts at zero (``zero_init``: the weight of its last BatchNorm). At
  threshold 1 a LIF passes spikes on as they are, so that a block starts as the identity and 23 of them are no harder to
  train than 8; without it the largest subnet's gradient is many times the smallest's, and none of them learns.

SAKD draws one random subnet a step instead (equation 6), and gives each the whole loss of its equation 5. Here a step
is BigNAS's; whom all but the largest learn from is ``others``: ``teacher`` (SAKD's, the default: which student suits a
teacher is the search's very question, and a trained ANN knows more than the largest SNN does for many epochs) or
``biggest`` (BigNAS's).

Deviations. The loss is the mean over the step's subnets, not the sum, so that a learning rate means what it means for
one network. The feature transform (1x1 convolution and BatchNorm, equation 8) is sliced like the supernet: a subnet's
feature goes through its first input channels. BigNAS's soft targets have temperature 1, here SAKD's. Its further rules
(the learning rate's floor, dropout for the largest only) are left to the recipe or left out.

All subnets of a step are kept until the backward pass: it takes as much memory as ``2 + random`` networks. A recipe
with ``compile: true`` would compile each subnet anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from spikedistill.data.seeds import generator
from spikedistill.errors import UserError, unknown
from spikedistill.losses import DISTANCES, soft_targets
from spikedistill.methods.base import Method, Progress
from spikedistill.methods.features import (
    MethodTaps,
    common_points,
    feature_shapes,
    module_key,
    regressor,
    same_size,
    student_rates,
    untouched_taps,
)
from spikedistill.models.elastic import ElasticResNet
from spikedistill.models.features import taps
from spikedistill.models.resnet import BasicBlock
from spikedistill.models.subnets import Space, Subnet
from spikedistill.ranges import check_ranges

OTHERS = ("teacher", "biggest")


def sandwich(space: Space, random: int, draws: Generator) -> list[Subnet]:
    """The subnets of one step: the largest, the smallest, and ``random`` ones."""
    return [space.largest, space.smallest, *(space.sample(draws) for _ in range(random))]


@torch.no_grad()
def start_as_identity(network: ElasticResNet) -> None:
    """Sets the last BatchNorm's weight of every block to zero where it still is the one it is made with."""
    for module in network.modules():
        if isinstance(module, BasicBlock) and bool((module.bn2.weight == 1).all()):
            module.bn2.weight.zero_()


class Supernet(Method):
    """Trains an elastic network so that all its subnets work; the trained student is the largest of them."""

    summary = "supernet: every subnet of an elastic SNN taught at once (SAKD's architecture search)"
    teacher_may_learn = False
    student_model = "elastic-resnet"

    @dataclass(frozen=True)
    class Settings:
        """Weights as in ``sakd``, and the subnets of a step.

        Attributes:
            alpha: weight of the labels' cross-entropy.
            beta: weight of the feature term; with 0 no features are touched.
            gamma: weight of the soft targets.
            temperature: tau of the soft targets.
            distance: ``l2`` or ``l1``.
            side: match features ``before`` or ``after`` the spike.
            random: subnets of a step beside the largest and the smallest.
            others: whom all but the largest learn from: ``teacher`` (the whole loss) or ``biggest`` (its logits).
            zero_init: start the residual branches at zero, those that were not trained before.
        """

        alpha: float = 0.0
        beta: float = 100.0
        gamma: float = 1.0
        temperature: float = 20.0
        distance: Literal["l2", "l1"] = "l2"
        side: Literal["before", "after"] = "after"
        random: int = 2
        others: Literal["teacher", "biggest"] = "teacher"
        zero_init: bool = True
        __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

        def __post_init__(self) -> None:
            check_ranges(self, {"at least 0": ["alpha", "beta", "gamma", "random"], "above 0": ["temperature"]})
            for name, accepted in (("distance", tuple(DISTANCES)), ("others", OTHERS)):
                if getattr(self, name) not in accepted:
                    raise unknown(f"method.{name}", getattr(self, name), accepted)

    def __init__(self, student: nn.Module, teacher: nn.Module | None, settings: Any, example: Tensor) -> None:
        if not isinstance(student, ElasticResNet):
            raise UserError(
                "method 'supernet' trains a network with subnets, and the student has none; set "
                "student.model=elastic-resnet, without its option 'subnet'"
            )
        super().__init__(student, teacher, settings, example)
        assert teacher is not None
        self.seed, self.step = int(torch.randint(2**62, ())), 0
        student.choose(student.space.largest)
        if settings.zero_init:
            start_as_identity(student)
        self.regressors = nn.ModuleDict()
        self.targets: MethodTaps | None = None
        if settings.beta:
            ours, theirs = common_points(student, teacher, "stage")
            our_shapes = feature_shapes(student, ours, settings.side, example)
            their_shapes = feature_shapes(teacher, theirs, settings.side, example)
            for name in ours:
                self.regressors[module_key(name)] = regressor(our_shapes[name][1], their_shapes[name][1])
            self.targets = untouched_taps(teacher, theirs, settings.side, example)

    @property
    def network(self) -> ElasticResNet:
        """The student."""
        assert isinstance(self.student, ElasticResNet)
        return self.student

    def forward(self, images: Tensor, labels: Tensor, progress: Progress) -> tuple[Tensor, dict[str, Tensor]]:
        assert self.teacher is not None
        target = self.teacher(images)
        features = student_rates(self.targets, len(labels)) if self.targets is not None else {}
        biggest, *others = sandwich(
            self.network.space, self.settings.random, generator(self.seed, "subnets", self.step)
        )
        self.step += 1
        answer, losses = self._taught(biggest, images, labels, target, features)
        total = torch.zeros_like(losses["task"])
        for subnet in others:
            if self.settings.others == "biggest":
                total = total + self._soft(self._run(subnet, images), answer.detach())
            else:
                total = total + sum(self._taught(subnet, images, labels, target, features)[1].values())
        self.network.choose(biggest)
        losses["subnets"] = total
        return answer, {name: loss / (1 + len(others)) for name, loss in losses.items()}

    def _run(self, subnet: Subnet, images: Tensor) -> Tensor:
        self.network.choose(subnet)
        return self.network(images)

    def _soft(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.settings.gamma * soft_targets(logits, target, self.settings.temperature)

    def _taught(
        self, subnet: Subnet, images: Tensor, labels: Tensor, target: Tensor, targets: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """A subnet's logits and its loss of SAKD's equation 5, by the teacher's logits and features."""
        settings = self.settings
        self.network.choose(subnet)
        points = {name: self.network.stages[name] for name in targets}
        with taps(self.network, points, settings.side) as tap:
            logits = self.network(images)
            features = student_rates(tap, len(labels))
        losses = {
            "task": settings.alpha * F.cross_entropy(logits.float(), labels),
            "response": self._soft(logits, target),
        }
        if features:
            distances = [self._distance(name, features[name], targets[name]) for name in targets]
            losses["feature"] = settings.beta * torch.stack(distances).sum()
        return logits, losses

    def _distance(self, name: str, feature: Tensor, target: Tensor) -> Tensor:
        convolution, norm = self.regressors[module_key(name)].children()
        mapped = norm(F.conv2d(feature, convolution.get_parameter("weight")[:, : feature.shape[1]]))
        return DISTANCES[self.settings.distance](*same_size(mapped, target))

    def deployable(self) -> nn.Module:
        self.network.choose(self.network.space.largest)
        return self.network

    def close(self) -> None:
        if self.targets is not None:
            self.targets.close()

    def get_extra_state(self) -> dict[str, int]:
        """What decides the next step's subnets."""
        return {"seed": self.seed, "step": self.step}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.seed, self.step = state["seed"], state["step"]
