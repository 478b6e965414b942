"""How soon an answer is there: accuracy against T for one trained network, and early exit by confidence."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spikedistill.engine.loop import Batches
from spikedistill.errors import UserError
from spikedistill.evaluation.accuracy import inference, per_step_logits
from spikedistill.models.network import Network

CONFIDENCES = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1.0)


@dataclass(frozen=True)
class Exit:
    """Stopping as soon as the answer is confident.

    Attributes:
        confidence: probability of the likeliest class (softmax of the mean of the logits so far; of the spikes counted
            so far where output neurons fire, as rates between 0 and 1 are never sure) at which a network stops; 0 stops
            after the first step, 1 never before the last.
        timesteps: used, on average over images.
        accuracy: in percent.
        shares: of the images that stopped after 1, 2, ... T steps.
    """

    confidence: float
    timesteps: float
    accuracy: float
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Latency:
    """What was found. Accuracies in percent.

    Attributes:
        timesteps: T that the network was built for.
        accuracy: by the number of timesteps, from 1 to twice T.
        exits: by confidence, with at most T steps.
        images: how many.
    """

    timesteps: int
    accuracy: dict[int, float]
    exits: tuple[Exit, ...]
    images: int


def latency(network: nn.Module, batches: Batches, *, reach: int = 2) -> Latency:
    """Runs a spiking network for ``reach * T`` steps and reads it out after every one.

    The answer after t steps is the mean of the first t logits, as if the network had been run for t steps alone.
    A sequence has its own length and is not prolonged.

    Args:
        network: an SNN; its timesteps are the same again afterwards.
        batches: test images.
        reach: how far beyond T to go, as a multiple.

    Raises:
        UserError: an ANN.
    """
    trained = getattr(network, "timesteps", None)
    if trained is None:
        raise UserError("latency is a matter of timesteps; this network is an ANN")
    counted = isinstance(network, Network) and network.output is not None  # anybody's may call a layer so
    certain, right = [], []
    try:
        network.timesteps = reach * trained  # type: ignore[assignment]
        with inference(network):
            for images, labels in batches.epoch(0):
                steps = per_step_logits(network, images).float()
                counts = torch.arange(1, len(steps) + 1, device=steps.device).view(-1, 1, 1)
                summed = steps.cumsum(0)
                answers = summed / counts
                certain.append((summed if counted else answers).softmax(-1).amax(-1).cpu())
                right.append((answers.argmax(-1) == labels).cpu())
    finally:
        network.timesteps = trained  # type: ignore[assignment]
    confidence, hits = torch.cat(certain, 1), torch.cat(right, 1)
    by_steps = (100.0 * hits.double().mean(1)).tolist()
    return Latency(
        timesteps=trained,
        accuracy=dict(enumerate(by_steps, 1)),
        exits=tuple(_exit(level, confidence[:trained], hits[:trained]) for level in CONFIDENCES),
        images=hits.shape[1],
    )


def _exit(level: float, confidence: Tensor, hits: Tensor) -> Exit:
    """Leaves at the first step whose confidence ``[T, N]`` reaches the level, at the last step otherwise."""
    last = len(confidence) - 1
    sure = (confidence >= level) & (level < 1.0)
    sure[last] = True
    step = sure.int().argmax(0)
    return Exit(
        confidence=level,
        timesteps=float((step + 1).double().mean()),
        accuracy=float(100.0 * hits.gather(0, step.unsqueeze(0)).double().mean()),
        shares=tuple((torch.bincount(step, minlength=last + 1) / step.numel()).tolist()),
    )
