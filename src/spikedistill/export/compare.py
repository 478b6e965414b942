"""Whether a file computes what its network does: spikes in all places, and predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from spikedistill.evaluation.accuracy import inference
from spikedistill.export.interpreter import NirNetwork
from spikedistill.export.record import is_sequence
from spikedistill.models.activation import layers_of
from spikedistill.models.features import taps
from spikedistill.models.network import Network
from spikedistill.models.twin import Twin
from spikedistill.spiking.time import readout

CLOSE = 1e-4

BUDGET = 2**25
"""Spikes that are held at once, of the network and of the file."""


@dataclass(frozen=True)
class Agreement:
    """How well a file and its network agree.

    Attributes:
        images: how many were compared.
        predictions: on how many both predict the same.
        spikes: share of equal spikes (ones and zeros) over all neurons, steps and images, in percent; None where the
            file does not show its spikes.
        layers: that share for each layer.
        logits: largest difference of a logit.
        close: on how many images no logit differs by more than ``CLOSE``. Where rounding puts a potential on the other
            side of a threshold, a spike more or less makes them differ.
    """

    images: int
    predictions: int
    spikes: float | None
    layers: Mapping[str, float]
    logits: float
    close: int

    def __str__(self) -> str:
        spikes = "" if self.spikes is None else f"{_floored(self.spikes)} % of spikes equal, "
        predictions = f"{self.predictions} of {self.images} predictions equal"
        return f"{self.images} images: {spikes}{predictions}, logits within {CLOSE:g} on {self.close}"


@torch.no_grad()
def compare_spikes(network: Network | Twin, other: NirNetwork, images: Tensor) -> Agreement:
    """Runs both on the same images, or the same encoded sequences.

    Args:
        network: the spiking network, on the CPU.
        other: the file, read back.
        images: at least one, or sequences.
    """
    points = {path: path for path in layers_of(network)}
    equal, places = dict.fromkeys(points, 0), dict.fromkeys(points, 0)
    answers, done, rows = Answers(), 0, 1
    count = images.shape[batch_dim(network, images)]
    with inference(network), taps(network, points, "after") as tap:
        while done < count:
            batch = encoded(network, images.narrow(batch_dim(network, images), done, min(rows, count - done)))
            logits, ours = readout(network(batch, per_step=True)), tap.take()
            steps, theirs = other.record(batch)
            for path in points:
                spikes = ours[path].bool()
                equal[path] += int((spikes == theirs[path].flatten(0, 1)).sum())
                places[path] += spikes.numel()
            answers.add(logits, readout(steps))
            done += rows
            rows = max(1, BUDGET * done // sum(places.values()))
    return Agreement(
        images=count,
        predictions=answers.same,
        spikes=100.0 * sum(equal.values()) / sum(places.values()),
        layers={path: 100.0 * equal[path] / places[path] for path in points},
        logits=answers.largest,
        close=answers.close,
    )


class Answers:
    """Counts how two networks' answers agree, batch after batch."""

    def __init__(self) -> None:
        self.same, self.close, self.largest = 0, 0, 0.0

    def add(self, ours: Tensor, theirs: Tensor) -> None:
        """Counts the logits ``[B, K]`` of a batch."""
        apart = (ours - theirs).abs().flatten(1).amax(1)
        self.same += int((ours.argmax(-1) == theirs.argmax(-1)).sum())
        self.close += int((apart <= CLOSE).sum())
        self.largest = max(self.largest, float(apart.max()))


def batch_dim(network: Network | Twin, images: Tensor) -> int:
    """Where the images of a tensor are counted: 0, or 1 in sequences."""
    return int(is_sequence(network, images))


def encoded(network: Network | Twin, images: Tensor) -> Tensor:
    """Images as they are under direct coding, else the sequence that the network makes of them."""
    encoding = network.encoding if isinstance(network, Network) else None
    if encoding is None or is_sequence(network, images):
        return images
    return encoding(images, network.timesteps or 1)


def _floored(percent: float) -> str:
    """Four digits behind the point, never rounded up to 100."""
    return f"{int(percent * 10_000) / 10_000:.4f}".rstrip("0").rstrip(".")
