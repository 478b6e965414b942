"""Accuracy under noise: on the pixels, on the spikes inside the network, on the weights.

Each kind is a function and a line in ``NOISES``. Everything random follows from the seed and the kind alone, and a
stronger noise is the weaker one scaled up, so that curves of two networks are drawn under the same noise.

Source: KDSNN table 2 and figure 8 (Gaussian noise on CIFAR-10 at sigma = 0.01, 0.03, 0.05). The poster does not say
whether it trains on noisy images.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spikedistill.data import DataInfo
from spikedistill.data.seeds import generator
from spikedistill.engine.loop import Batches
from spikedistill.errors import UserError, unknown
from spikedistill.evaluation.accuracy import inference
from spikedistill.methods.base import seen_by
from spikedistill.models.activation import Spike, layers_of
from spikedistill.models.fuse import restore

Change = Callable[[Tensor], Tensor]
"""What is done to a batch of normalised images."""
Apply = Callable[[nn.Module, DataInfo, float, torch.Generator], AbstractContextManager[Change]]


@dataclass(frozen=True)
class Noise:
    """A kind of noise.

    Attributes:
        summary: what it does, with the unit of its strength.
        strengths: of a curve, beside 0.
        most: the largest strength that makes sense, None for no limit.
        apply: puts it into a network for a ``with`` block and yields what it does to images.
        on_spikes: whether it needs an SNN.
        on_pixels: whether it needs images.
    """

    summary: str
    strengths: tuple[float, ...]
    most: float | None
    apply: Apply
    on_spikes: bool = False
    on_pixels: bool = False


def _pixels(change: Callable[[Tensor, float, torch.Generator], Tensor]) -> Apply:
    """A noise on images ``[N, C, H, W]`` with pixels in [0, 1], before normalisation; what leaves [0, 1] is clipped."""

    @contextmanager
    def apply(_network: nn.Module, info: DataInfo, strength: float, source: torch.Generator) -> Iterator[Change]:
        def noisy(images: Tensor) -> Tensor:
            mean, std = (torch.tensor(x, device=images.device).view(-1, 1, 1) for x in (info.mean, info.std))
            pixels = (images * std + mean).flatten(0, -4)
            changed = change(pixels, strength, source).clamp(0.0, 1.0)
            return (changed.view_as(images) - mean) / std

        yield noisy

    return apply


def _gaussian(pixels: Tensor, strength: float, source: torch.Generator) -> Tensor:
    return pixels + strength * torch.randn(pixels.shape, generator=source).to(pixels)


def _salt_and_pepper(pixels: Tensor, strength: float, source: torch.Generator) -> Tensor:
    hit, white = (torch.rand(len(pixels), 1, *pixels.shape[2:], generator=source).to(pixels) for _ in range(2))
    return torch.where(hit < strength, (white < 0.5).to(pixels), pixels)


def _blur(pixels: Tensor, strength: float, _source: torch.Generator) -> Tensor:
    if strength == 0:
        return pixels
    reach = max(1, round(3 * strength))
    steps = torch.arange(-reach, reach + 1, device=pixels.device, dtype=pixels.dtype)
    kernel = torch.exp(-0.5 * (steps / strength) ** 2)
    kernel = (kernel / kernel.sum()).expand(pixels.shape[1], 1, 1, -1)
    for turned in (kernel, kernel.transpose(-1, -2)):
        across = turned.shape[-1] > 1
        padded = nn.functional.pad(pixels, (reach, reach, 0, 0) if across else (0, 0, reach, reach), mode="replicate")
        pixels = nn.functional.conv2d(padded, turned, groups=pixels.shape[1])
    return pixels


def _occlusion(pixels: Tensor, strength: float, source: torch.Generator) -> Tensor:
    count, _, height, width = pixels.shape
    where = torch.rand(2, count, 1, generator=source).to(pixels)
    inside = []
    for place, side in zip(where, (height, width), strict=True):
        length = round(strength * side)
        start = (place * (side - length + 1)).floor()
        line = torch.arange(side, device=pixels.device)
        inside.append((line >= start) & (line < start + length))
    return pixels.masked_fill(inside[0][:, None, :, None] & inside[1][:, None, None, :], 0.5)


def _spikes(change: Callable[[Tensor, float, torch.Generator], Tensor]) -> Apply:
    """A noise on the spikes ``[T, ...]`` that leave each layer."""

    @contextmanager
    def apply(network: nn.Module, _info: DataInfo, strength: float, source: torch.Generator) -> Iterator[Change]:
        layers = layers_of(network)

        def noisy(spike: Spike, _inputs: tuple[Tensor, ...], spikes: Tensor) -> Tensor:
            dim = getattr(spike, "dim", 0)
            steps = spikes.unflatten(dim, (spike.clock.timesteps, -1)).movedim(dim, 0)
            return change(steps, strength, source).movedim(0, dim).flatten(dim, dim + 1)

        handles = [layer.register_forward_hook(noisy) for layer in layers.values()]  # type: ignore[arg-type]
        try:
            yield lambda images: images
        finally:
            for handle in handles:
                handle.remove()

    return apply


def _delete(spikes: Tensor, strength: float, source: torch.Generator) -> Tensor:
    return spikes * (torch.rand(spikes.shape, generator=source) >= strength).to(spikes)


def _jitter(spikes: Tensor, strength: float, source: torch.Generator) -> Tensor:
    steps = torch.arange(len(spikes)).view(-1, *[1] * (spikes.dim() - 1))
    moved = (steps + (strength * torch.randn(spikes.shape, generator=source)).round()).clamp(0, len(spikes) - 1)
    return torch.zeros_like(spikes).scatter_reduce(0, moved.long().to(spikes.device), spikes, "amax")


@contextmanager
def _weights(network: nn.Module, _info: DataInfo, strength: float, source: torch.Generator) -> Iterator[Change]:
    # A single weight has no deviation.
    weights = [weight for weight in network.parameters() if weight.dim() > 1 and weight.numel() > 1]
    kept = [(weight, weight.detach().clone()) for weight in weights]
    try:
        with torch.no_grad():
            for weight, clean in kept:
                weight.add_(strength * clean.std() * torch.randn(weight.shape, generator=source).to(weight))
        yield lambda images: images
    finally:
        with torch.no_grad():
            for weight, clean in kept:
                weight.copy_(clean)


NOISES: dict[str, Noise] = {
    "gaussian": Noise(
        "normal noise on every pixel; strength: standard deviation (pixels in [0, 1])",
        (0.01, 0.03, 0.05, 0.1, 0.2, 0.3),
        None,
        _pixels(_gaussian),
        on_pixels=True,
    ),
    "salt-and-pepper": Noise(
        "pixels turned black or white; strength: share of pixels",
        (0.01, 0.02, 0.05, 0.1, 0.2),
        1.0,
        _pixels(_salt_and_pepper),
        on_pixels=True,
    ),
    "blur": Noise(
        "Gaussian blur; strength: standard deviation in pixels", (0.5, 0.75, 1.0, 1.5, 2.0), None, _pixels(_blur)
    ),
    "occlusion": Noise(
        "a grey rectangle at a random place; strength: side as a share of the image's",
        (0.125, 0.25, 0.375, 0.5),
        1.0,
        _pixels(_occlusion),
        on_pixels=True,
    ),
    "spike-deletion": Noise(
        "spikes lost on the way to the next layer; strength: share of spikes",
        (0.05, 0.1, 0.2, 0.3, 0.5),
        1.0,
        _spikes(_delete),
        on_spikes=True,
    ),
    "spike-jitter": Noise(
        "spikes moved by whole timesteps, those that meet become one; strength: standard deviation in timesteps",
        (0.25, 0.5, 0.75, 1.0, 2.0),
        None,
        _spikes(_jitter),
        on_spikes=True,
    ),
    "weights": Noise(
        "normal noise on weights; strength: standard deviation as a share of the layer's own",
        (0.05, 0.1, 0.2, 0.3, 0.5),
        None,
        _weights,
    ),
}


def noises_for(network: nn.Module, info: DataInfo) -> list[str]:
    """The kinds of noise that a network can be tried with: those on spikes are for SNNs, those on pixels for images.

    What an event camera's frames hold are counts: a small share of 255 is more events than there are.
    """
    spiking, images = bool(layers_of(network)), info.timesteps is None
    return [
        kind for kind, noise in NOISES.items() if (spiking or not noise.on_spikes) and (images or not noise.on_pixels)
    ]


def parse_noise(text: str) -> tuple[str, tuple[float, ...]]:
    """``KIND:VALUE`` as kind and strengths; ``KIND`` alone stands for the strengths of its curve.

    Raises:
        UserError: an unknown kind, or a value that is no strength of it.
    """
    kind, colon, value = text.partition(":")
    if kind not in NOISES:
        raise unknown("noise", kind, list(NOISES))
    noise = NOISES[kind]
    if not colon:
        return kind, noise.strengths
    try:
        strength = float(value)
    except ValueError:
        strength = float("nan")
    if not 0.0 <= strength <= (noise.most if noise.most is not None else 1e6):
        limit = f" to {noise.most:g}" if noise.most is not None else ""
        raise UserError(f"noise '{text}': the strength must be a number from 0{limit} ({noise.summary})")
    return kind, (strength,)


def robustness(
    network: nn.Module, batches: Batches, info: DataInfo, kind: str, strengths: Sequence[float], seed: int = 0
) -> dict[float, float]:
    """Accuracy in percent under each strength of one kind of noise, and without it (strength 0).

    Args:
        network: an ANN or SNN; it is left as it is.
        batches: the test images, normalised as ``info`` says.
        info: of the data set.
        kind: one of ``NOISES``.
        strengths: see the kind's summary.
        seed: of the noise.

    Raises:
        UserError: an unknown kind, noise on the spikes of an ANN, or on the pixels of events.
    """
    if kind not in NOISES:
        raise unknown("noise", kind, list(NOISES))
    if kind not in noises_for(network, info):
        reason = "spikes, and this network is an ANN" if NOISES[kind].on_spikes else "pixels, and these data are events"
        raise UserError(f"noise '{kind}' is on {reason}")
    subject = restore(copy.deepcopy(network))
    found = {0.0: _accuracy(subject, batches, lambda images: images)}
    for strength in dict.fromkeys(strengths):
        if strength == 0.0:
            continue
        with NOISES[kind].apply(subject, info, strength, generator(seed, "noise", kind)) as change:
            found[strength] = _accuracy(subject, batches, change)
    return found


def _accuracy(network: nn.Module, batches: Batches, change: Change) -> float:
    right = count = 0
    with inference(network):
        for images, labels in batches.epoch(0):
            right += int((network(seen_by(network, change(images))).argmax(-1) == labels).sum())
            count += len(labels)
    return 100.0 * right / count
