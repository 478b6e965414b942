"""From raw images to a network's input: scale, augment, normalise."""

import torch
from torch import Generator, Tensor

from spikedistill.data.augment import Draws
from spikedistill.data.augmentations import parse_augmentation
from spikedistill.data.sets import DataInfo


class Pipeline:
    """Scales to [0, 1], augments in the order of the names, normalises; on the device of the batch.

    Augmentations that blank parts of the image happen after normalisation, in the order of the names among
    themselves, so that what they blank is the mean colour. All steps of a sequence are augmented alike.

    Args:
        names: augmentations, ``name`` or ``name:value``.
        info: shape and normalisation of the data set.
        device: where the batches are.
    """

    def __init__(self, names: tuple[str, ...], info: DataInfo, device: torch.device) -> None:
        parsed = [parse_augmentation(text) for text in names]
        self._augmentations = [kind(value, info) for kind, value in parsed]
        self._mean = torch.tensor(info.mean, device=device)[:, None, None]
        self._std = torch.tensor(info.std, device=device)[:, None, None]

    def draw(self, count: int, generator: Generator) -> list[Draws]:
        """Draws the random numbers of a batch of ``count`` images."""
        return [augmentation.draw(count, generator) for augmentation in self._augmentations]

    def __call__(self, images: Tensor, draws: list[Draws]) -> Tensor:
        """Prepares a batch.

        Args:
            images: ``[B, C, H, W]`` or sequences ``[B, T, C, H, W]``; uint8 is divided by 255, floats are taken as
                they are.
            draws: what ``draw`` returned, sliced to these B images.

        Returns:
            ``[B, C, H, W]`` or ``[T, B, C, H, W]`` float32.
        """
        x = images.to(torch.float32)
        if images.dtype == torch.uint8:
            x = x / 255
        # Augmentations take any number of channels, so T goes with C: one draw for all steps.
        x = self._augment(x.flatten(1, -3), draws, after_normalise=False).view(x.shape)
        x = (x - self._mean) / self._std
        x = self._augment(x.flatten(1, -3), draws, after_normalise=True).view(x.shape)
        if x.dim() == 5:
            return x.transpose(0, 1)
        # As the convolutions of a GPU read them; each network would lay them out for itself.
        return x if x.device.type == "cpu" else x.contiguous(memory_format=torch.channels_last)

    def _augment(self, x: Tensor, draws: list[Draws], after_normalise: bool) -> Tensor:
        for augmentation, drawn in zip(self._augmentations, draws, strict=True):
            if augmentation.after_normalise is after_normalise:
                x = augmentation.apply(x, drawn)
        return x
