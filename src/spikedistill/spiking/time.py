"""Time: how images become sequences, how T is folded into the batch, and the one mean over T.

At the edges of a network time is the first dimension, ``[T, B, ...]``; inside, row ``t * B + b`` of ``[T*B, ...]`` is
image ``b`` at step ``t``, so that convolutions, BatchNorm (statistics over T and B together) and pooling are plain
torch layers.
"""

import torch
from torch import Tensor


def fold(x: Tensor) -> Tensor:
    """``[T, B, ...] -> [T*B, ...]``."""
    return x.flatten(0, 1)


def unfold(x: Tensor, timesteps: int) -> Tensor:
    """``[T*B, ...] -> [T, B, ...]``."""
    return x.unflatten(0, (timesteps, -1))


def readout(steps: Tensor) -> Tensor:
    """The mean over T of ``[T, B, ...]`` (Joint A-SNN equation 3): outputs are integrated and never fired."""
    return steps.mean(0)


def rate(folded: Tensor, batch: int) -> Tensor:
    """The mean over T of a folded feature of ``batch`` images: ``[T*B, ...] -> [B, ...]``.

    A feature that has only ``batch`` rows is constant in time and is its own mean.
    """
    return folded if folded.shape[0] == batch else readout(folded.unflatten(0, (-1, batch)))


def direct_encode(images: Tensor, timesteps: int) -> Tensor:
    """Direct coding: the image is the input current of every step, ``[B, ...] -> [T, B, ...]`` (a view, no copy)."""
    return images.expand(timesteps, *images.shape)


def poisson_encode(images: Tensor, timesteps: int, generator: torch.Generator | None = None) -> Tensor:
    """Poisson coding (IDSNN algorithm 1): at each step a pixel spikes with the probability of its intensity.

    Args:
        images: intensities in [0, 1], ``[B, ...]``; values outside are clamped.
        timesteps: T.
        generator: source of randomness, on the images' device.

    Returns:
        Spikes 0 or 1, ``[T, B, ...]``.
    """
    draws = torch.rand((timesteps, *images.shape), generator=generator, device=images.device, dtype=torch.float32)
    return (draws < images).to(images.dtype)
