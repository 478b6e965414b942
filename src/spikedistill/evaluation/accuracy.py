"""Accuracy per timestep, confusion matrix, firing rate per layer and a spike raster, in one pass over the data."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from spikedistill.engine.loop import Batches
from spikedistill.methods.base import seen_by
from spikedistill.models.activation import layers_of
from spikedistill.models.features import taps
from spikedistill.models.modes import in_eval_mode


@dataclass
class Evaluation:
    """What one pass over a data set shows. Accuracies in percent, rates in spikes per neuron and step.

    Attributes:
        timesteps: T; None for an ANN.
        accuracy: of the answer after the last step.
        accuracy_per_timestep: of the answers after 1, 2, ... T steps.
        firing_rate: by layer.
        confusion: images by true class (row) and answered class (column).
        count: how many images.
        noise: kind to strength to accuracy, where it was asked for; strength 0 is without noise.
    """

    timesteps: int | None
    accuracy: float
    accuracy_per_timestep: dict[int, float]
    firing_rate: dict[str, float] = field(default_factory=dict)
    confusion: list[list[int]] = field(default_factory=list, repr=False)
    count: int = 0
    noise: dict[str, dict[float, float]] = field(default_factory=dict)

    @property
    def mean_firing_rate(self) -> float | None:
        """Spikes per neuron and step over all layers, weighted by layer only; None for an ANN."""
        return sum(self.firing_rate.values()) / len(self.firing_rate) if self.firing_rate else None


def device_of(network: nn.Module) -> torch.device:
    """Where a network lies: the place of its first parameter or buffer, the CPU if it has none."""
    return next(itertools.chain(network.parameters(), network.buffers()), torch.zeros(())).device


@contextmanager
def inference(network: nn.Module) -> Iterator[None]:
    """Eval mode without gradients inside, each module's own mode again afterwards.

    Not torch's inference mode: every kernel that training has compiled would be compiled once more for its tensors.
    """
    with in_eval_mode(network), torch.no_grad():
        yield


def per_step_logits(network: nn.Module, images: Tensor) -> Tensor:
    """Logits ``[T, B, K]`` of a network that offers ``per_step``, ``[1, B, K]`` of any other."""
    if hasattr(network, "timesteps"):
        return network(images, per_step=True)
    return network(seen_by(network, images)).unsqueeze(0)


def evaluate(network: nn.Module, batches: Batches, num_classes: int) -> Evaluation:
    """Evaluates a network on every batch.

    The answer after ``t`` steps is the mean of the first ``t`` logits, so one pass gives the accuracy of 1 to T steps.
    """
    points = {path: path for path in layers_of(network)}
    correct: Tensor | None = None
    confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    rates: dict[str, Tensor] = {}
    count = 0
    with inference(network), taps(network, points, "after") as tap:
        for images, labels in batches.epoch(0):
            steps = per_step_logits(network, images).float()
            shares = steps.cumsum(0) / torch.arange(1, len(steps) + 1, device=steps.device).view(-1, 1, 1)
            answers = shares.argmax(-1)
            hits = (answers == labels).sum(1)
            correct = hits if correct is None else correct + hits
            confusion += torch.bincount(labels.cpu() * num_classes + answers[-1].cpu(), minlength=num_classes**2).view(
                num_classes, num_classes
            )
            for name, spikes in tap.take().items():
                rates[name] = rates.get(name, torch.zeros((), device=spikes.device)) + spikes.float().mean() * len(
                    labels
                )
            count += len(labels)
    assert correct is not None
    percent = (100.0 * correct.double() / count).tolist()
    return Evaluation(
        timesteps=getattr(network, "timesteps", None),
        accuracy=percent[-1],
        accuracy_per_timestep={t: value for t, value in enumerate(percent, 1)},
        firing_rate={name: float(value) / count for name, value in rates.items()},
        confusion=confusion.tolist(),
        count=count,
    )


def raster(network: nn.Module, image: Tensor, neurons: int = 32) -> Mapping[str, list[list[int]]]:
    """Spikes of one image ``[C, H, W]`` or sequence ``[T, C, H, W]``.

    Returns:
        Per layer, ``neurons`` evenly chosen neurons by T steps of 0 or 1.
    """
    layers = layers_of(network)
    with inference(network), taps(network, {path: path for path in layers}, "after") as tap:
        network(image.unsqueeze(-4))
        recorded = tap.take()
    shown = {}
    for name, spikes in recorded.items():
        # A spikified network may have its tokens before its images, or several rows for an image.
        dim, timesteps = getattr(layers[name], "dim", 0), layers[name].clock.timesteps
        flat = spikes.movedim(dim, 0).unflatten(0, (timesteps, -1)).flatten(1).t()
        chosen = torch.linspace(0, flat.shape[0] - 1, min(neurons, flat.shape[0])).round().long()
        shown[name] = flat[chosen.to(flat.device)].int().tolist()
    return shown
