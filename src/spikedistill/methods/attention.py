"""SAMD and NLD: A Closer Look at Knowledge Distillation in Spiking Neural Network Training.

Liu, Xia, Zhou, Xu, Guo; AAAI 2026 (arXiv 2511.06902), "CKDSNN". ``L = CE + beta * L_SAMD + gamma * L_NLD``.

Saliency-scaled activation map distillation. The student's map is the number of spikes at each pixel of a stage, summed
over T and C; the teacher's is its Grad-CAM for the class it predicts. Both go through a softmax over pixels::

    L_SAMD = tau_map^2 * KL(softmax(CAM / tau_map) || softmax(SAM / tau_map))

Noise-smoothed logits distillation. The student's logits z are smoothed by noise with their own statistics::

    L_NLD = tau^2 * KL(softmax(teacher / tau) || softmax((z + noise * eps) / tau)),  eps ~ N(mean(z), std(z)^2)

Notes and deviations.

* Both maps are scaled to [0, 1] before the softmax, as in the authors' code (counts of hundreds would saturate it). The
  code takes minimum and maximum over the batch; here they are each image's own, so that no image's target depends on
  its neighbours.
* The code's CAM weighs channels by the rows of the last linear layer. Grad-CAM is the paper's; for networks that end
  with pooling and one linear layer it is the same map, and it exists for all others.
* The code leaves out ``tau_map^2``, mixes softmaxes instead of logits and uses ``std^2`` for ``std``; the paper holds.
* Mean and std of z are constants here: a standard deviation has no gradient where all logits are equal.
* The paper uses the last stage; here it is the last in common whose maps have more than one pixel.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikedistill.errors import UserError
from spikedistill.losses import saliency_divergence, soft_targets
from spikedistill.methods.base import Method, Progress, seen_by
from spikedistill.methods.features import MethodTaps, common_points, feature_shapes, same_size
from spikedistill.ranges import check_ranges
from spikedistill.spiking.time import rate


def unit_range(maps: Tensor, least: float) -> Tensor:
    """Scales each map ``[B, H, W]`` to ``[0, 1]``; one whose range is below ``least`` is divided by ``least``."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low).clamp(min=least)


def spike_map(spikes: Tensor, batch: int, timesteps: int) -> Tensor:
    """Spikes ``[T*B, C, H, W]``, or their rates ``[B, C, H, W]``, counted over T and C: ``[B, H, W]``, in [0, 1]."""
    counts = timesteps * rate(spikes.float(), batch).sum(1)
    # The range of a count is 0 or at least 1: a silent map stays zero, and its gradient stays small.
    return unit_range(counts, least=1.0)


def smoothed(logits: Tensor, noise: float) -> Tensor:
    """Logits ``[B, K]`` plus ``noise`` times Gaussian noise of each image's own mean and standard deviation."""
    logits = logits.float()
    std, mean = torch.std_mean(logits.detach(), dim=1, keepdim=True)
    return logits + noise * (mean + std * torch.randn_like(logits))


class ClassMaps:
    """Grad-CAM of a frozen network at some of its activations (Selvaraju et al. 2017).

    In a pass with gradients the graph starts at the first of these activations; parameters stay without.

    Args:
        network: a classifier without trainable parameters.
        points: feature names to paths of activations with maps ``[B, C, H, W]``.
    """

    def __init__(self, network: nn.Module, points: Mapping[str, str]) -> None:
        self._network, self._points = network, dict(points)
        self._values: dict[str, Tensor] = {}
        self._handles = []
        for name, path in points.items():
            tapped = network.get_submodule(path)
            self._handles.append(tapped.register_forward_hook(self._start_graph(name, tapped)))

    def _start_graph(self, name: str, tapped: nn.Module) -> Callable[..., Tensor | None]:
        def record(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            if module is not tapped or not torch.is_grad_enabled():
                return None
            self._values[name] = output if output.requires_grad else output.detach().requires_grad_()
            return self._values[name].clone()  # what follows may change it in place

        return record

    def __call__(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The network's logits ``[B, K]`` and, by feature, each image's map in [0, 1] for its predicted class."""
        with torch.enable_grad():
            logits = self._network(seen_by(self._network, images))
            names, values = list(self._values), list(self._values.values())
            self._values = {}
            gradients = torch.autograd.grad(logits.max(dim=1).values.sum(), values)
        maps = {}
        for name, value, gradient in zip(names, values, gradients, strict=True):
            batch = logits.shape[0]
            value, gradient = rate(value.detach().float(), batch), rate(gradient.float(), batch)
            weights = gradient.mean((2, 3), keepdim=True)
            maps[name] = unit_range(F.relu((weights * value).sum(1)), least=1e-12)
        return logits.detach(), maps

    def close(self) -> None:
        """Removes the hooks."""
        for handle in self._handles:
            handle.remove()

    def __deepcopy__(self, memo: dict[int, Any]) -> ClassMaps:
        return ClassMaps(copy.deepcopy(self._network, memo), self._points)


class SAMDNLD(Method):
    """Where the teacher looks (spike counts towards Grad-CAM), and its soft targets for noise-smoothed logits."""

    summary = "SAMD + NLD: the teacher's class activation maps, and noise-smoothed logits"
    teacher_may_learn = False  # its gradients are taken for the maps

    @dataclass(frozen=True)
    class Settings:
        """Weights, temperatures and features.

        Attributes:
            beta: weight of the maps' term.
            gamma: weight of the logits' term.
            map_temperature: tau of the maps' term.
            temperature: tau of the logits' term.
            noise: weight of the noise in the student's logits.
            stages: names of the stages with maps; empty for the last in common.
        """

        beta: float = 1.0
        gamma: float = 1.0
        map_temperature: float = 2.0
        temperature: float = 2.0
        noise: float = 0.1
        stages: tuple[str, ...] = ()
        __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

        def __post_init__(self) -> None:
            ranges = {"at least 0": ["beta", "gamma", "noise"], "above 0": ["map_temperature", "temperature"]}
            check_ranges(self, ranges)

    def __init__(self, student: nn.Module, teacher: nn.Module | None, settings: Any, example: Tensor) -> None:
        super().__init__(student, teacher, settings, example)
        assert teacher is not None
        ours, theirs = self._points(student, teacher, example)
        self.spikes, self.class_maps = MethodTaps(student, ours, "after"), ClassMaps(teacher, theirs)

    def _points(self, student: nn.Module, teacher: nn.Module, example: Tensor) -> tuple[dict[str, str], dict[str, str]]:
        chosen = self.settings.stages
        common_points(student, teacher, "stage", chosen)  # refuses unknown names
        ours, theirs = common_points(student, teacher, "stage")
        our_shapes = feature_shapes(student, ours, "after", example)
        their_shapes = feature_shapes(teacher, theirs, "after", example)
        spread = [name for name in ours if min(our_shapes[name][2:].numel(), their_shapes[name][2:].numel()) > 1]
        names = list(chosen) or spread[-1:]
        if not names or not set(names) <= set(spread):
            raise UserError(
                "maps are compared over pixels, and those of the chosen stages have only one; "
                f"stages with more: {', '.join(spread) or 'none'}"
            )
        return {name: ours[name] for name in names}, {name: theirs[name] for name in names}

    def forward(self, images: Tensor, labels: Tensor, progress: Progress) -> tuple[Tensor, dict[str, Tensor]]:
        settings = self.settings
        answer, maps = self.class_maps(images)
        logits = self.student(images)
        losses = {
            "task": F.cross_entropy(logits.float(), labels),
            "response": settings.gamma * soft_targets(smoothed(logits, settings.noise), answer, settings.temperature),
        }
        timesteps = getattr(self.student, "timesteps", None) or 1
        for name, spikes in self.spikes.take().items():
            ours, theirs = same_size(spike_map(spikes, labels.shape[0], timesteps)[:, None], maps[name][:, None])
            divergence = saliency_divergence(ours[:, 0], theirs[:, 0], settings.map_temperature)
            losses[f"map/{name}"] = settings.beta * divergence
        return logits, losses

    def close(self) -> None:
        self.spikes.close()
        self.class_maps.close()
