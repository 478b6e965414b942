"""Joint A-SNN: Joint Training of Artificial and Spiking Neural Networks via Self-Distillation and Weight Factorization.

Guo, Peng, Chen, Zhang, Liu, Huang, Ma; Pattern Recognition 2023. An ANN and an SNN of one architecture are trained
together from the start; the ANN teaches the SNN at four branches, and their weights share singular vectors.

    L = CE(all branches of both) + l1 * sum_i KL(ANN_i || SNN_i) + l2 * sum_i ||ANN_i - SNN_i||^2     equations 7 to 10

with the ANN's outputs detached in the last two. ``method.ce``, ``kld``, ``norm`` and ``factorise`` switch the parts of
the paper's table 4: its first row is the method ``snn``, its second (a trained ANN teaches) ``idsnn`` with alpha 1 and
temperature 1, the others are ``kld`` 1 or 0, ``norm`` 0.3 or 0, and, for factorisation alone, ``ce`` false as well.

Beyond the paper: ``method.distil`` names another method by which the ANN, as far as it has come, teaches the SNN beside
all that; its loss terms take the place of the cross-entropy at the SNN's output. And the two need not start at random:
the ANN starts as at the recipe's ``teacher.path``, or both as ``init`` makes them of the network at ``init.path``.

What the paper leaves open:

* Branches. "Four intermediate branches right after the end of each stage", each a global average pooling and a linear
  layer, and eight cross-entropies in all: so the last branch is the network's own classifier (in a ResNet the same
  thing; were it another, the output would never see a label). The authors' code has three and the output, too. A stage
  ends where the channels increase behind it ("a downsample and an increase of the channel numbers"), which makes four
  of VGG-16's five poolings as well; in a network of one width every stage but the last has a branch; ``stages`` names
  other places. Pooling stands behind the stage's activation; the
  SNN's branches answer with the mean over T, like its output (equation 3; the authors' code sums).
* Branches cost a narrow network its accuracy: a ResNet-18 of width 16, whose first branch has 16 channels to tell the
  classes by (the paper's has 64), on 10,000 CIFAR-10 images (T = 1, 20 epochs of SGD, ``weight_decay`` 5e-4, one seed;
  the SNN on 2,500 held-out images): all four cross-entropies 62.9 %, stages 2 and 3 and the output 64.3, stage 3 and
  the output 67.5, the output alone (``ce`` off) 69.4; the plain SNN 62.1.
* ``ce`` off leaves the labels at the two outputs (without them nothing is trained), and the other terms there too.
* The norm term is a mean over images and outputs, which makes it K times weaker than equation 9's sum over the K
  outputs; ``norm_reduction="sum"`` is that one. With it lambda 2 = 0.3 outweighs the labels, and through the shared
  singular vectors, which no detaching protects, it spoils the ANN and with it the SNN: on the digits data (ResNet-14
  of width 8, 12 epochs of Adam, seeds 0 and 1) ANN 47 %, SNN 27 %; with the mean 91 and 75 %.
* Factorised are all convolutions (but frozen ones), as in the authors' code; ``linear`` adds the linear layers ("all
  layers can be implemented with WFT"). These share vectors without a BatchNorm behind them that takes the scale out
  again: the norm term then enlarges the ANN's outputs, which are its own target, and in a network with a large hidden
  layer training runs away (2conv on digits: 18.8 % at the end, 97 % without). BatchNorm, biases and the branches'
  layers are each network's own. The initial weights are the ANN's (in a recipe as random as the SNN's, with
  ``init.kind=copy`` the same). U and V have min(c_out, c_in) columns
  and rows, not the full bases of section 4.3.1: the others would never get a gradient.
* Weight decay acts on U, V and S, for they are what is trained: a pull on the three factors, not on their product. It
  starves the small singular values: in the last layers of a ResNet-18 of width 16 (128 channels) the effective rank is
  15 to 20 after 20 epochs of 10,000 CIFAR-10 images (T = 1, SGD, 5e-4). With ``weight_decay`` the optimiser's leaves
  the factors alone and that much pulls on the two networks' weights, as without factorisation: the rank is 93 to 95.

Deviations from the authors' code, beside those: the kernel entries are taken by a permutation, so the factors reproduce
the initial weights; branches are plain linear layers, as the paper says, not bottlenecks of three convolutions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from spikedistill.errors import UserError, unknown
from spikedistill.losses import soft_targets, squared_distance
from spikedistill.methods.base import (
    FROZEN_TEACHER,
    JOINT_TEACHER,
    LearningTeacher,
    Lesson,
    Method,
    Progress,
    answer_to,
    check_classes,
    seen_by,
)
from spikedistill.methods.factorisation import SharedFactors, factorisable
from spikedistill.methods.features import common_points, feature_shapes, module_key, untouched_taps
from spikedistill.ranges import check_ranges
from spikedistill.spiking.time import rate

REDUCTIONS = ("mean", "sum")


class Branches(nn.Module):
    """Linear layers on the pooled outputs of some of a network's stages.

    Args:
        network: the network, which is tapped until ``taps.close`` and no sub-module of this.
        points: stage name to the path of the activation behind which the branch leaves.
        example: a few images, to learn the number of channels and of classes from.
    """

    def __init__(self, network: nn.Module, points: dict[str, str], example: Tensor) -> None:
        super().__init__()
        classes = answer_to(network, example).shape[-1]
        shapes = feature_shapes(network, points, "after", example)
        self.layers = nn.ModuleDict({module_key(name): nn.Linear(shapes[name][1], classes) for name in points})
        self.taps = untouched_taps(network, points, "after", example)

    def forward(self, output: Tensor) -> Tensor:
        """The outputs of all branches in the network's last pass, with its own ``output`` as the last.

        Args:
            output: ``[B, K]``.

        Returns:
            ``[branches, B, K]`` in float32.
        """
        answers = []
        for name, feature in self.taps.take().items():
            answers.append(self.layers[module_key(name)](pooled(rate(feature, len(output)))).float())
        return torch.stack([*answers, output.float()])


def pooled(feature: Tensor) -> Tensor:
    """Global average pooling ``[N, C, H, W] -> [N, C]``, at least float32.

    Summed before it is divided: the gradient of a sum is a view of one value per map, that of a mean a whole map.
    """
    total = feature.sum((2, 3), dtype=torch.promote_types(feature.dtype, torch.float32))
    return total / (feature.shape[2] * feature.shape[3])


def summed_cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropies of all branches ``[branches, B, K]``, added up (equation 7)."""
    return len(outputs) * F.cross_entropy(outputs.flatten(0, 1), labels.repeat(len(outputs)))


def summed_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """``KL(softmax(teacher) || softmax(student))`` of all branches ``[branches, B, K]``, added up (equation 8)."""
    return len(student) * soft_targets(student.flatten(0, 1), teacher.flatten(0, 1), 1.0)


def summed_squared_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the outputs of all branches ``[branches, B, K]``, added up (equation 9)."""
    return len(student) * squared_distance(student, teacher)


def half_square(weights: Iterable[Tensor]) -> Tensor:
    """Half the sum of the squares of all of them: its gradient is the weights themselves."""
    return torch.stack([weight.float().square().sum() for weight in weights]).sum() / 2


class JointASNN(Method):
    """An ANN and an SNN trained together, with branches and shared singular vectors.

    With factorisation the two networks' own convolution and linear weights are no parameters of the training: the
    composed weights stand in for them at each step, and ``deployable`` and ``byproducts`` write them back. The teacher
    is a network of the student's architecture, usually untrained; it is trained in place.
    """

    summary = "Joint A-SNN: ANN and SNN trained together, branches and shared singular vectors"
    teacher_role = JOINT_TEACHER

    @dataclass(frozen=True)
    class Settings:
        """The parts of the method.

        ce: cross-entropy at all branches of both networks (off: at their outputs only); kld, norm: lambda 1 and 2, 0
        for off; norm_reduction: over the outputs, ``mean`` or ``sum``; factorise: share singular vectors of the
        convolutions, linear: and of the linear layers; weight_decay: an L2 penalty on the factorised weights, in place
        of the optimiser's on their factors; stages: where branches leave, empty for the paper's places; distil: a
        method with its settings by which the ANN teaches as well.
        """

        ce: bool = True
        kld: float = 1.0
        norm: float = 0.3
        norm_reduction: Literal["mean", "sum"] = "mean"
        factorise: bool = True
        linear: bool = False
        weight_decay: float | None = None
        stages: tuple[str, ...] = ()
        distil: Lesson | None = None
        __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

        def __post_init__(self) -> None:
            check_ranges(self, {"at least 0": ["kld", "norm", "weight_decay"]})
            if self.norm_reduction not in REDUCTIONS:
                raise unknown("method.norm_reduction", self.norm_reduction, REDUCTIONS)
            if self.stages and not self.ce:
                raise UserError("method.stages places branches, but method.ce=false trains none; leave one of them out")
            if self.linear and not self.factorise:
                raise UserError(
                    "method.linear says what is factorised, but method.factorise=false; leave one of them out"
                )
            if self.norm_reduction != "mean" and not self.norm:
                raise UserError("method.norm_reduction is of the norm term, but method.norm is 0; leave one out")
            if self.weight_decay is not None and not self.factorise:
                raise UserError(
                    "method.weight_decay is that of factorised weights, but method.factorise=false has none; set "
                    "optimizer.weight_decay"
                )
            if self.distil is not None and not self._may_be(self.distil.method):
                raise UserError(
                    f"method.distil is '{self.distil.name}', by which no ANN can teach that is trained itself; name a "
                    "method by which one can, such as kdsnn-feature or sakd"
                )

        @staticmethod
        def _may_be(method: type[Method]) -> bool:
            return method.teacher_role == FROZEN_TEACHER and method.teacher_may_learn

    def __init__(self, student: nn.Module, teacher: nn.Module | None, settings: Any, example: Tensor) -> None:
        super().__init__(student, teacher, settings, example)
        assert teacher is not None
        check_classes(student, teacher, example)
        self.ann = teacher.requires_grad_(True)
        self.lesson = _lesson(settings.distil, student, teacher, example) if settings.distil else None
        ours, theirs = _branch_points(student, teacher, settings, example) if settings.ce else ({}, {})
        self.snn_branches = Branches(student, ours, example)
        self.ann_branches = Branches(teacher, theirs, example)
        self.factors = _factors(student, teacher, settings) if settings.factorise else None

    def forward(self, images: Tensor, labels: Tensor, progress: Progress) -> tuple[Tensor, dict[str, Tensor]]:
        ann_weights, snn_weights = self._weights()
        if self.lesson is None:
            answer = functional_call(self.ann, ann_weights, (seen_by(self.ann, images),))
            logits = functional_call(self.student, snn_weights, (images,))
            losses = {"task": F.cross_entropy(logits.float(), labels)}
        else:
            stand_ins = {f"ann.{name}": weight for name, weight in ann_weights.items()}
            stand_ins |= {f"student.{name}": weight for name, weight in snn_weights.items()}
            logits, losses = functional_call(self.lesson, stand_ins, (images, labels, progress))
            assert isinstance(self.lesson.teacher, LearningTeacher)
            answer = self.lesson.teacher.take()
        ann, snn = self.ann_branches(answer), self.snn_branches(logits)
        target = ann.detach()
        losses["ann"] = summed_cross_entropy(ann, labels)
        if len(snn) > 1:
            losses["branches"] = summed_cross_entropy(snn[:-1], labels)
        if self.settings.kld:
            losses["kld"] = self.settings.kld * summed_divergence(snn, target)
        if self.settings.norm:
            weight = self.settings.norm * (snn.shape[-1] if self.settings.norm_reduction == "sum" else 1)
            losses["norm"] = weight * summed_squared_distance(snn, target)
        if self.settings.weight_decay:
            losses["decay"] = self.settings.weight_decay * half_square([*ann_weights.values(), *snn_weights.values()])
        return logits, losses

    def deployable(self) -> nn.Module:
        self._write_back()
        return self.student

    def byproducts(self) -> dict[str, nn.Module]:
        self._write_back()
        return {"ann": self.ann}

    def close(self) -> None:
        """Takes the taps off; both networks are plain ones again, their weights parameters as before."""
        self.snn_branches.taps.close()
        self.ann_branches.taps.close()
        if self.lesson is not None:
            self.lesson.close()
        self._write_back()
        for network in (self.ann, self.student):
            for name in self.factors.names if self.factors is not None else ():
                network.get_parameter(name).requires_grad_(True)

    def _weights(self) -> list[dict[str, Tensor]]:
        """What stands in for the ANN's and the SNN's own weights."""
        return [{}, {}] if self.factors is None else self.factors.compose()

    @torch.no_grad()
    def _write_back(self) -> None:
        for network, weights in zip((self.ann, self.student), self._weights(), strict=True):
            for name, weight in weights.items():
                network.get_parameter(name).copy_(weight)


def _lesson(lesson: Lesson, student: nn.Module, teacher: nn.Module, example: Tensor) -> Method:
    """The method by which a teacher that is trained itself teaches; the teacher is its sub-module ``ann``."""
    method = lesson.method(student, teacher, lesson.settings, example)
    method.teacher = LearningTeacher(teacher)
    method.add_module("ann", teacher)
    return method


def _branch_points(
    student: nn.Module, teacher: nn.Module, settings: Any, example: Tensor
) -> tuple[dict[str, str], dict[str, str]]:
    """Where branches leave the student and the teacher: stage names to paths."""
    ours, theirs = common_points(student, teacher, "stage", settings.stages)
    names = settings.stages
    if not names:
        channels = {name: shape[1] for name, shape in feature_shapes(student, ours, "after", example).items()}
        names = [here for here, behind in pairwise(ours) if channels[behind] > channels[here]] or list(ours)[:-1]
    return {name: ours[name] for name in names}, {name: theirs[name] for name in names}


def _factors(student: nn.Module, teacher: nn.Module, settings: Any) -> SharedFactors:
    """Factors of both networks' weights, started from the teacher's; the networks' own are no longer trained.

    Raises:
        UserError: the two are not of one architecture.
    """
    ours, theirs = factorisable(student, settings.linear), factorisable(teacher, settings.linear)
    for name in [*ours, *theirs]:
        shapes = [list(weights[name].shape) if name in weights else "missing" for weights in (ours, theirs)]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"method.factorise needs an ANN of the student's architecture: '{name}' is {shapes[0]} in the student, "
                f"{shapes[1]} in the ANN; leave the recipe's section 'teacher' out, or set method.factorise=false"
            )
    frozen = {name for weights in (ours, theirs) for name, weight in weights.items() if not weight.requires_grad}
    ours, theirs = ({k: w for k, w in weights.items() if k not in frozen} for weights in (ours, theirs))
    for name, weight in [*ours.items(), *theirs.items()]:
        if not isinstance(weight, nn.Parameter):
            raise UserError(
                f"method.factorise: '{name}' is no parameter but computed from others (a parametrization), and cannot "
                "be factorised; take that off (torch.nn.utils.parametrize), or set method.factorise=false"
            )
        weight.requires_grad_(False)
    return SharedFactors(theirs, undecayed=settings.weight_decay is not None)
