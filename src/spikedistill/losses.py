"""Loss terms: on responses (logits) and on features.

Distances and divergences are zero, with zero gradient, where student equals teacher.

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
        student, teacher: logits ``[B, K]``; the student's may also be those of every timestep, ``[T, B, K]``, each held
            against the teacher's ``[B, K]``, mean over T and B.
        temperature: tau.
    """
    return _divergence(student, teacher, temperature).mean()


def weighted_soft_targets(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """``soft_targets`` with a weight for each image (Zhou et al. 2021: "Rethinking Soft Labels").

    The weight is ``1 - exp(-CE(student) / CE(teacher))``, at temperature 1 and constant: an image on which the student
    already does better than the teacher has little to learn from it.

    Args:
        student, teacher: logits ``[B, K]``.
        labels: ``[B]``.
        temperature: tau.
    """
    with torch.no_grad():
        ours = F.cross_entropy(student.float(), labels, reduction="none")
        theirs = F.cross_entropy(teacher.float(), labels, reduction="none")
        weight = 1.0 - torch.exp(-ours / (theirs + 1e-7))
    return (weight * _divergence(student, teacher, temperature)).mean()


def _divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """``tau^2 * KL`` of each row: logits ``[..., K]`` to ``[...]``."""
    log_p_student = F.log_softmax(student.float() / temperature, dim=-1)
    log_p_teacher = F.log_softmax(teacher.float() / temperature, dim=-1)
    return temperature**2 * (log_p_teacher.exp() * (log_p_teacher - log_p_student)).sum(-1)


def entropy(logits: Tensor, temperature: float) -> Tensor:
    """Entropy in nats of ``softmax(logits/tau)`` over the last dimension, mean over the others."""
    log_p = F.log_softmax(logits.float() / temperature, dim=-1)
    return -(log_p.exp() * log_p).sum(-1).mean()


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


def summed_squared_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared difference summed over C, H and W, or over C of pooled maps; mean over the batch.

    BKDSNN's code has its weights for these sums.
    """
    return ((student.float() - teacher.float()) ** 2).flatten(1).sum(1).mean()


def saliency_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """``soft_targets`` of maps ``[B, H, W]``: compares how each image's saliency is spread over its pixels."""
    return soft_targets(student.flatten(1), teacher.flatten(1), temperature)


DISTANCES = {"l2": squared_distance, "l1": absolute_distance}
