"""Input codings beside direct coding, as small callables that a network may carry."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spikedistill.spiking.time import poisson_encode


class PoissonEncoding:
    """Poisson coding of normalised images (IDSNN algorithm 1).

    Args:
        mean, std: the normalisation that was applied per channel; intensities in [0, 1] are recovered with it.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean, self.std = tuple(mean), tuple(std)

    def __call__(self, images: Tensor, timesteps: int) -> Tensor:
        """Normalised images ``[B, C, H, W]`` to spikes ``[T, B, C, H, W]``."""
        shape = (1, -1, 1, 1)
        mean = torch.tensor(self.mean, device=images.device, dtype=images.dtype).view(shape)
        std = torch.tensor(self.std, device=images.device, dtype=images.dtype).view(shape)
        return poisson_encode(images * std + mean, timesteps)
