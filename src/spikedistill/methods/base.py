"""The contract of a method: what is trained, on which losses, and what is left of it afterwards.

A method is one file: a class with its settings, and a line in ``methods/__init__.py``. The engine calls it and knows
nothing else about it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from spikedistill.errors import UserError, first_line
from spikedistill.models.modes import in_eval_mode
from spikedistill.spiking.time import readout

NO_TEACHER, FROZEN_TEACHER, JOINT_TEACHER = "none", "frozen", "joint"


class Progress(NamedTuple):
    """Where training stands (a tuple: Fabric rebuilds the arguments of a step and cannot rebuild a frozen dataclass).

    Attributes:
        epoch: number of the epoch, from 0.
        epochs: how many there will be.
    """

    epoch: int
    epochs: int


class FrozenTeacher:
    """A teacher that only answers: in eval mode, without gradients, and not a part of what is trained or saved.

    An ANN knows no time: of a sequence it sees the mean over T.

    It is no ``nn.Module`` so that a method that holds it neither registers its parameters nor puts it into train mode.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        return self.network(seen_by(self.network, images))


class LearningTeacher(FrozenTeacher):
    """A teacher that is trained while it teaches.

    Its answers carry no gradient, as a frozen one's; ``take`` gives the last as the network gave it, for the teacher's
    own loss.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network.requires_grad_(True)
        self._answer: Tensor | None = None

    def __call__(self, images: Tensor) -> Tensor:
        answer = self._answer = self.network(seen_by(self.network, images))
        return answer.detach()

    def take(self) -> Tensor:
        """The last answer, forgotten here so that nothing outlives the step."""
        answer, self._answer = self._answer, None
        assert answer is not None
        return answer


@dataclass(frozen=True)
class Lesson:
    """A method among another's settings: in a recipe a section like ``method`` itself.

    Attributes:
        name: the method's name.
        method: its class.
        settings: an instance of its ``Settings``.
    """

    name: str
    method: type[Method]
    settings: Any


class Method(nn.Module):
    """Base class.

    A subclass declares ``Settings`` (a frozen dataclass: the recipe's ``method:`` section beside ``name``), says which
    teacher it wants, adds trainable extras as sub-modules, and defines ``forward``. What belongs to the student alone
    lives in ``self.student``; everything else is an extra and is never part of the saved student.

    Args:
        student: the network to train (an SNN, unless ``spiking_student`` is False).
        teacher: the teacher that ``teacher_role`` asks for; None for ``none``.
        settings: an instance of the class's ``Settings``.
        example: a few images ``[B, C, H, W]``, to learn the shapes of features from.
    """

    @dataclass(frozen=True)
    class Settings:
        __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    summary: ClassVar[str] = ""
    teacher_role: ClassVar[str] = FROZEN_TEACHER
    spiking_student: ClassVar[bool] = True
    teacher_may_learn: ClassVar[bool] = True
    """Whether a teacher that is trained as well will do (``joint-asnn``'s ``distil``): it answers through
    ``self.teacher`` alone, and the student that is trained is the one that is left."""

    def __init__(self, student: nn.Module, teacher: nn.Module | None, settings: Any, example: Tensor) -> None:
        super().__init__()
        self.student = student
        self.settings = settings
        self.teacher: FrozenTeacher | None = None
        asked = self.asks_teacher(settings)
        if (asked or self.teacher_role == JOINT_TEACHER) and teacher is None:
            raise UserError("this method needs a teacher; give one in the recipe's section 'teacher' or as teacher=")
        if asked:
            assert teacher is not None
            self.teacher = FrozenTeacher(teacher)
            check_classes(student, teacher, example)

    @classmethod
    def asks_teacher(cls, settings: Any) -> bool:
        """Whether a trained teacher answers during training; with some settings a method may do without."""
        return cls.teacher_role == FROZEN_TEACHER

    def forward(self, images: Tensor, labels: Tensor, progress: Progress) -> tuple[Tensor, dict[str, Tensor]]:
        """One step's losses.

        Args:
            images: ``[B, C, H, W]`` or ``[T, B, C, H, W]``.
            labels: ``[B]``.
            progress: for weights that change over training.

        Returns:
            The student's logits ``[B, K]`` and the named losses, each already weighted; the engine adds them up.
        """
        raise NotImplementedError  # pragma: no cover

    def deployable(self) -> nn.Module:
        """The plain student as it stands now: no factors, no branches, no projections. Evaluated and saved."""
        return self.student

    def byproducts(self) -> dict[str, nn.Module]:
        """Other plain networks that training made, saved beside the student as ``<name>.safetensors``."""
        return {}

    def close(self) -> None:
        """Takes everything of the method off the student and the teacher (feature taps)."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Method:
        # The teacher follows the method to its device although it is not one of its sub-modules.
        super()._apply(fn, recurse)
        if self.teacher is not None:
            self.teacher.network._apply(fn, recurse)
        return self


def check_answer(method: Method, answer: Any, labels: Tensor) -> None:
    """Refuses what ``forward`` must not return, before it is taken for logits and losses.

    Raises:
        UserError: no pair of logits ``[B, K]`` and named scalar tensors.
    """
    asked = f"{type(method).__name__}.forward must return logits [B, K] and a dict of scalar loss tensors"
    if not (isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], dict) and answer[1]):
        raise UserError(f"{asked}, not {type(answer).__name__}")
    logits, losses = answer
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(labels):
        shape = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UserError(f"{asked}; its logits are {shape} for {len(labels)} images")
    for name, loss in losses.items():
        if not isinstance(loss, Tensor) or loss.dim():
            found = f"a tensor {list(loss.shape)}" if isinstance(loss, Tensor) else f"the {type(loss).__name__} {loss}"
            raise UserError(f"{asked}; its loss '{name}' is {found}")


def seen_by(network: nn.Module, images: Tensor) -> Tensor:
    """What a network is given of a batch: an ANN sees a sequence ``[T, B, C, H, W]`` averaged over time."""
    is_ann = getattr(network, "timesteps", None) is None
    return readout(images) if images.dim() == 5 and is_ann else images


@torch.no_grad()
def answer_to(network: nn.Module, example: Tensor) -> Tensor:
    """A network's logits for ``example``, leaving its mode and its BatchNorm statistics as they were."""
    with in_eval_mode(network):
        return network(example)


def classifies(network: nn.Module, example: Tensor, role: str = "network") -> Tensor:
    """A network's logits for one image, ``[1, K]``.

    Args:
        network: any.
        example: the image ``[1, C, H, W]``.
        role: what to call the network.

    Raises:
        UserError: it does not take such images, or does not answer with logits.
    """
    try:
        answers = answer_to(network, example)
    except (RuntimeError, ValueError) as error:
        size = "x".join(str(side) for side in example.shape[1:])
        raise UserError(f"the {role} does not take images of {size}: {first_line(error)}") from None
    if not isinstance(answers, Tensor):
        raise UserError(f"the {role} answers with a {type(answers).__name__}; it must answer with one tensor [B, K]")
    if answers.dim() != 2:
        raise UserError(
            f"the {role} answers an image with a tensor of shape {list(answers.shape[1:])}; a classifier is wanted, "
            "which answers [B, K]"
        )
    return answers


def check_classes(student: nn.Module, teacher: nn.Module, example: Tensor) -> None:
    """Refuses a teacher whose number of classes is not the student's.

    Raises:
        UserError: the class counts differ.
    """
    ours, theirs = answer_to(student, example).shape[-1], answer_to(teacher, example).shape[-1]
    if ours != theirs:
        raise UserError(f"the teacher answers with {theirs} classes and the student with {ours}; they must be the same")
