"""AutoAugment's CIFAR-10 policy on whole batches (Cubuk et al. 2019, arXiv:1805.09501, tables 6 and 7).

Each image draws one of 25 sub-policies; its two operations happen one after the other, each with its own probability.
All images of the batch that do the same operation do it together; the five geometric ones share one resampling.

Magnitudes run from level 0 to 10 over the ranges of table 6, as in the authors' code: shear 0.3, translation 10 pixels
of 32, rotation 30 degrees, all three with a random sign; solarize threshold 256 - 25.6 * level; colour, contrast,
brightness and sharpness 0.1 + 0.18 * level. Uncovered pixels take the mean colour, nearest-neighbour resampling, as
there.

Deviations: translation scales with the image (10/32 of the side); posterize keeps 8 - 0.4 * level bits, table 6's 4 to
8, where the authors' code keeps 4 - 0.4 * level; colour operations round as Pillow does, up to one grey level of 255.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from spikedistill.data.augment import Augmentation, Draws, rotation, warp
from spikedistill.data.sets import DataInfo
from spikedistill.errors import UserError

# Table 7: (operation, probability, level) twice; None where an operation has no magnitude.
Step = tuple[str, float, int | None]
POLICY: tuple[tuple[Step, Step], ...] = (
    (("invert", 0.1, None), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate-x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear-y", 0.5, 8), ("translate-y", 0.7, 9)),
    (("autocontrast", 0.5, None), ("equalize", 0.9, None)),
    (("shear-y", 0.2, 7), ("posterize", 0.3, 7)),
    (("colour", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, None), ("equalize", 0.5, None)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("colour", 0.7, 7), ("translate-x", 0.5, 8)),
    (("equalize", 0.3, None), ("autocontrast", 0.4, None)),
    (("translate-y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("colour", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, None)),
    (("equalize", 0.2, None), ("autocontrast", 0.6, None)),
    (("equalize", 0.2, None), ("equalize", 0.6, None)),
    (("colour", 0.9, 9), ("equalize", 0.6, None)),
    (("autocontrast", 0.8, None), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("colour", 0.7, 0)),
    (("solarize", 0.4, 5), ("autocontrast", 0.9, None)),
    (("translate-y", 0.9, 9), ("translate-y", 0.7, 9)),
    (("autocontrast", 0.9, None), ("solarize", 0.8, 3)),
    (("equalize", 0.8, None), ("invert", 0.1, None)),
    (("translate-y", 0.7, 9), ("autocontrast", 0.9, None)),
)


def _grey(x: Tensor) -> Tensor:
    """Luma ``[B, 1, H, W]`` in ITU-R 601-2 integers, as Pillow's conversion to L; the whole sum fits float32."""
    if x.shape[1] == 1:
        return x
    red, green, blue = x.split(1, 1)
    return ((19595 * red + 38470 * green + 7471 * blue + 32768) / 65536).floor()


def _blend(degenerate: Tensor, x: Tensor, factor: Tensor) -> Tensor:
    return (degenerate + factor[:, None, None, None] * (x - degenerate)).floor().clamp(0, 255)


def _autocontrast(x: Tensor, _: Tensor) -> Tensor:
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    stretched = ((x - low) * 255 / (high - low).clamp(min=1)).floor()
    return torch.where(high > low, stretched, x)


def _equalize(x: Tensor, _: Tensor) -> Tensor:
    flat = x.long().flatten(2)
    histogram = torch.zeros(*flat.shape[:2], 256, dtype=torch.long, device=x.device)
    histogram.scatter_add_(2, flat, torch.ones_like(flat))
    # The brightest value's count is left out, so that it maps to 255 (ImageOps.equalize).
    brightest = histogram.gather(2, flat.amax(2, keepdim=True))
    step = (flat.shape[2] - brightest) // 255
    below = histogram.cumsum(2) - histogram
    table = ((step // 2 + below) // step.clamp(min=1)).clamp(max=255)
    return torch.where((step > 0)[..., None], table.gather(2, flat).view(x.shape).to(x.dtype), x)


def _invert(x: Tensor, _: Tensor) -> Tensor:
    return 255 - x


def _solarize(x: Tensor, threshold: Tensor) -> Tensor:
    return torch.where(x < threshold[:, None, None, None], x, 255 - x)


def _posterize(x: Tensor, bits: Tensor) -> Tensor:
    step = torch.exp2(8 - bits)[:, None, None, None]
    return (x / step).floor() * step


def _contrast(x: Tensor, factor: Tensor) -> Tensor:
    return _blend((_grey(x).mean((2, 3), keepdim=True) + 0.5).floor(), x, factor)


def _colour(x: Tensor, factor: Tensor) -> Tensor:
    return _blend(_grey(x), x, factor)


def _brightness(x: Tensor, factor: Tensor) -> Tensor:
    return _blend(torch.zeros_like(x), x, factor)


def _sharpness(x: Tensor, factor: Tensor) -> Tensor:
    # Pillow's SMOOTH: a 3 x 3 mean whose middle counts five times; the outermost pixels stay. The sums are of whole
    # numbers and so do not depend on the order of addition.
    rows = x[:, :, :-2] + x[:, :, 1:-1] + x[:, :, 2:]
    sums = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * x[:, :, 1:-1, 1:-1]
    smooth = x.clone()
    smooth[:, :, 1:-1, 1:-1] = (sums / 13 + 0.5).floor()
    return _blend(smooth, x, factor)


def _enhancement(level: int) -> float:
    return 0.1 + 0.18 * level


def _unused(level: int) -> float:
    return 0.0


# Operation -> (what it does to images of whole numbers 0..255, magnitude of a level).
COLOUR: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[int], float]]] = {
    "autocontrast": (_autocontrast, _unused),
    "equalize": (_equalize, _unused),
    "invert": (_invert, _unused),
    "solarize": (_solarize, lambda level: 256 - int(25.6 * level)),
    "posterize": (_posterize, lambda level: 8 - int(0.4 * level)),
    "contrast": (_contrast, _enhancement),
    "colour": (_colour, _enhancement),
    "brightness": (_brightness, _enhancement),
    "sharpness": (_sharpness, _enhancement),
}

# Operation -> affine matrix [2, 3] for ``warp`` from signed level and image size.
# As in Pillow, shearing leaves the first row or column of pixel edges where it is, rotation the middle.
GEOMETRY: dict[str, Callable[[float, int, int], list[list[float]]]] = {
    "shear-x": lambda level, h, w: [[1, 0.03 * level, 0.03 * level * h / 2], [0, 1, 0]],
    "shear-y": lambda level, h, w: [[1, 0, 0], [0.03 * level, 1, 0.03 * level * w / 2]],
    "translate-x": lambda level, h, w: [[1, 0, int(level * w / 32)], [0, 1, 0]],
    "translate-y": lambda level, h, w: [[1, 0, 0], [0, 1, int(level * h / 32)]],
    "rotate": lambda level, h, w: rotation(torch.tensor([int(3 * level)], dtype=torch.float64))[0].tolist(),
}


class AutoAugment(Augmentation):
    """The 25 sub-policies found on CIFAR-10, drawn uniformly per image; takes images in [0, 1]."""

    def __init__(self, value: float, info: DataInfo) -> None:
        super().__init__(value, info)
        if info.timesteps is not None:
            raise UserError(
                f"augmentation 'autoaugment' works on pictures and '{info.name}' holds sequences; leave it out"
            )
        if info.shape[0] not in (1, 3):
            raise UserError(f"augmentation 'autoaugment' needs 1 or 3 channels; these images have {info.shape[0]}")
        self._fill = torch.tensor(info.mean).mul(255).round()[:, None, None]
        self._slots = [_Slot([sub[slot] for sub in POLICY], self.height, self.width) for slot in (0, 1)]

    def draw(self, count: int, generator: Generator) -> Draws:
        chosen = torch.randint(0, len(POLICY), (count,), generator=generator)
        applied = torch.rand(count, 2, generator=generator)
        negative = torch.randint(0, 2, (count, 2), generator=generator)
        return (chosen, applied, negative)

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        x = (images * 255).round().clamp(0, 255)
        # Nothing here waits for the device: a batch has forty such small copies.
        there: dict[str, Any] = {"device": x.device, "non_blocking": True}
        fill = self._fill.to(**there)
        chosen, applied, negative = draws
        for number, slot in enumerate(self._slots):
            happens = applied[:, number] < slot.probability[chosen]
            turned = (happens & slot.geometric[chosen]).nonzero().flatten()
            if len(turned):
                matrices = slot.matrices[chosen[turned], negative[turned, number]]
                here = turned.to(**there)
                x[here] = warp(x[here] - fill, matrices, "nearest") + fill
            for name, (operation, _) in COLOUR.items():
                rows = (happens & slot.does[name][chosen]).nonzero().flatten()
                if len(rows):
                    here = rows.to(**there)
                    x[here] = operation(x[here], slot.magnitude[chosen[rows]].to(**there))
        return x / 255


class _Slot:
    """The first or the second operations of all sub-policies as tables over the sub-policies, on the CPU."""

    def __init__(self, steps: list[Step], height: int, width: int) -> None:
        self.probability = torch.tensor([probability for _, probability, _ in steps])
        self.geometric = torch.tensor([name in GEOMETRY for name, _, _ in steps])
        self.does = {known: torch.tensor([name == known for name, _, _ in steps]) for known in COLOUR}
        self.magnitude = torch.tensor(
            [float(COLOUR[name][1](level or 0)) if name in COLOUR else 0.0 for name, _, level in steps]
        )
        still = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
        self.matrices = torch.tensor(
            [
                [GEOMETRY[name](sign * (level or 0), height, width) if name in GEOMETRY else still for sign in (1, -1)]
                for name, _, level in steps
            ]
        )
