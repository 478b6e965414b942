"""Against Pillow, whose operations the authors' code uses."""

import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from spikedistill.data import DataInfo
from spikedistill.data.augment import warp
from spikedistill.data.autoaugment import COLOUR, GEOMETRY, POLICY, AutoAugment
from spikedistill.data.seeds import generator

SIDE = 32
INFO = DataInfo("cifar", ("a",), (3, SIDE, SIDE), (0.4914, 0.4822, 0.4465), (1.0,) * 3)


def pictures(count=12, channels=3):
    """Smooth pictures of whole numbers, some of them dull, none spanning exactly 0..255."""
    generator_ = torch.Generator().manual_seed(3)
    coarse = torch.rand(count, channels, 5, 5, generator=generator_)
    smooth = torch.nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bilinear")
    contrast = torch.linspace(0.2, 1.0, count)[:, None, None, None]
    return (smooth * contrast * 250).round()


def to_pil(image):
    return Image.fromarray(image.to(torch.uint8).movedim(0, -1).numpy())


def from_pil(image):
    return torch.tensor(list(image.tobytes()), dtype=torch.float32).view(SIDE, SIDE, 3).movedim(-1, 0)


PIL_COLOUR = {
    "autocontrast": lambda image, _: ImageOps.autocontrast(image),
    "equalize": lambda image, _: ImageOps.equalize(image),
    "invert": lambda image, _: ImageOps.invert(image),
    "solarize": lambda image, value: ImageOps.solarize(image, int(value)),
    "posterize": lambda image, value: ImageOps.posterize(image, int(value)),
    "contrast": lambda image, value: ImageEnhance.Contrast(image).enhance(value),
    "colour": lambda image, value: ImageEnhance.Color(image).enhance(value),
    "brightness": lambda image, value: ImageEnhance.Brightness(image).enhance(value),
    "sharpness": lambda image, value: ImageEnhance.Sharpness(image).enhance(value),
}


@pytest.mark.parametrize("level", [0, 3, 5, 9])
@pytest.mark.parametrize("name", COLOUR)
def test_colour_operations_equal_pillows(name, level):
    operation, magnitude = COLOUR[name]
    x = pictures()
    ours = operation(x, torch.full((len(x),), float(magnitude(level))))
    theirs = torch.stack([from_pil(PIL_COLOUR[name](to_pil(image), magnitude(level))) for image in x])
    # Pillow computes in single precision and cuts off: a value may land on the other side of a whole number.
    assert (ours - theirs).abs().max() <= 1
    assert (ours != theirs).float().mean() < 0.01


def pil_affine(image, coefficients):
    return image.transform((SIDE, SIDE), Image.Transform.AFFINE, coefficients)


PIL_GEOMETRY = {
    "shear-x": lambda image, level: pil_affine(image, (1, 0.03 * level, 0, 0, 1, 0)),
    "shear-y": lambda image, level: pil_affine(image, (1, 0, 0, 0.03 * level, 1, 0)),
    "translate-x": lambda image, level: pil_affine(image, (1, 0, level, 0, 1, 0)),
    "translate-y": lambda image, level: pil_affine(image, (1, 0, 0, 0, 1, level)),
    "rotate": lambda image, level: image.rotate(3 * level),
}


@pytest.mark.parametrize("level", [2, -7, 9])
@pytest.mark.parametrize("name", GEOMETRY)
def test_geometric_operations_equal_pillows(name, level):
    x = pictures()
    matrix = torch.tensor(GEOMETRY[name](level, SIDE, SIDE)).expand(len(x), 2, 3)
    ours = warp(x, matrix, "nearest")
    theirs = torch.stack([from_pil(PIL_GEOMETRY[name](to_pil(image), level)) for image in x])
    # Where the position lies half-way between two pixels, either may be the nearest.
    assert (ours != theirs).float().mean() < 0.05


def test_policy_is_the_papers_in_size_and_reach():
    assert len(POLICY) == 25
    steps = [step for sub in POLICY for step in sub]
    assert {name for name, _, _ in steps} <= set(COLOUR) | set(GEOMETRY)
    assert all(0 <= probability <= 1 and 0 <= (level or 0) <= 9 for _, probability, level in steps)
    # Table 7, counted: the operations it leans on most.
    count = [name for name, _, _ in steps].count
    assert (count("equalize"), count("autocontrast"), count("translate-y"), count("rotate")) == (9, 7, 5, 1)


@pytest.mark.parametrize("number", range(25))
def test_each_sub_policy_alone_equals_its_two_operations(number):
    augmentation = AutoAugment(0.0, INFO)
    x = pictures(4)
    always = torch.zeros(4, 2)
    out = augmentation.apply(x / 255, (torch.full((4,), number), always, torch.ones(4, 2, dtype=torch.long))) * 255
    expected = x
    fill = torch.tensor(INFO.mean).mul(255).round()[:, None, None]
    for name, probability, level in POLICY[number]:
        if probability == 0:
            continue
        if name in GEOMETRY:
            matrix = torch.tensor(GEOMETRY[name](-(level or 0), SIDE, SIDE)).expand(4, 2, 3)
            expected = warp(expected - fill, matrix, "nearest") + fill
        else:
            operation, magnitude = COLOUR[name]
            expected = operation(expected, torch.full((4,), float(magnitude(level or 0))))
    assert torch.equal(out.round(), expected)


def test_untouched_images_come_out_unchanged():
    augmentation = AutoAugment(0.0, INFO)
    x = pictures(25) / 255
    draws = (torch.arange(25), torch.ones(25, 2), torch.zeros(25, 2, dtype=torch.long))
    assert torch.equal(augmentation.apply(x, draws), x)


def test_share_of_untouched_images_is_the_policys():
    augmentation = AutoAugment(0.0, INFO)
    chosen, applied, _ = augmentation.draw(20000, generator(0))
    probability = torch.tensor([[step[1] for step in sub] for sub in POLICY])
    untouched = (applied >= probability[chosen]).all(1).float().mean()
    expected = (1 - probability).prod(1).mean()
    assert abs(untouched - expected) < 0.012
    assert chosen.bincount().min() > 700


def test_grey_images_have_no_colour_to_change():
    operation, _ = COLOUR["colour"]
    x = pictures(channels=1)
    assert torch.equal(operation(x, torch.full((12,), 1.9)), x)
