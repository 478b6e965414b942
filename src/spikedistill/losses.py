"""Loss terms: on responses (logits) and on features. Each is zero, with zero gradient, where student equals teacher.

All functions take the student's tensor first, the teacher's second, and return a scalar. Teacher tensors are treated as
constants by the methods that call these (they come from a frozen network or are detached).
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def soft_targets(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """``tau^2 * KL(softmax(teacher/tau) || softmax(student/tau))``, mean over the batch (SAKD equation 7).

    The factor ``tau^2`` keeps the gradient's size independent of the temperature (Hinton et al. 2015).

    Args:
        student, teacher: logits ``[B, K]``.
        temperature: tau.
    """
    log_p_student = F.log_softmax(student.float() / temperature, dim=-1)
    log_p_teacher = F.log_softmax(teacher.float() / temperature, dim=-1)
    return temperature**2 * F.kl_div(log_p_student, log_p_teacher, reduction="batchmean", log_target=True)


def squared_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference over all elements (SAKD equation 9)."""
    return F.mse_loss(student.float(), teacher.float())


def absolute_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean absolute difference over all elements (SAKD section 4.3)."""
    return F.l1_loss(student.float(), teacher.float())


def partial_squared_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Partial L2 of KDSNN: no penalty where ``student <= teacher <= 0``, the squared difference elsewhere.

    The teacher's feature is taken before its activation: where it is negative the ReLU would have cut it off, and a
    student that is more negative still loses nothing. Mean over all elements (the paper sums over W, H and C; its
    weight is not published, so a constant factor is the caller's alpha).
    """
    student, teacher = student.float(), teacher.float()
    free = (student <= teacher) & (teacher <= 0)
    return torch.where(free, 0.0, (teacher - student) ** 2).mean()


DISTANCES = {"l2": squared_distance, "l1": absolute_distance}
