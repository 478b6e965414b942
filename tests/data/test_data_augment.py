import math

import pytest
import torch

from spikedistill.data import AUGMENTATIONS, DataInfo
from spikedistill.data.augment import rotation, warp
from spikedistill.data.augmentations import parse_augmentation
from spikedistill.data.pipeline import Pipeline
from spikedistill.data.seeds import generator

CPU = torch.device("cpu")
PLAIN = DataInfo("plain", ("a", "b"), (3, 12, 10), (0.0,) * 3, (1.0,) * 3)
MANY = 4000


def images(count=MANY, shape=PLAIN.shape):
    # No pixel is zero, so that what is blank is seen.
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(2)) * 0.9 + 0.1


def augment(name, x, seed=0):
    pipeline = Pipeline((name,), DataInfo("plain", ("a",), tuple(x.shape[1:]), (0.0,) * 3, (1.0,) * 3), CPU)
    draws = pipeline.draw(len(x), generator(seed))
    return pipeline(x, draws), draws[0]


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_shape_type_and_range_are_kept(name):
    x = images(200)
    out, _ = augment(name, x)
    assert out.shape == x.shape
    assert out.dtype == torch.float32
    assert out.min() >= -1e-6 and out.max() <= 1 + 1e-6
    assert not torch.equal(out, x)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_same_draws_same_bits_and_input_untouched(name):
    x = images(100)
    before = x.clone()
    first, again, other = augment(name, x)[0], augment(name, x)[0], augment(name, x, seed=1)[0]
    assert torch.equal(x, before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_slice_of_the_draws_augments_that_slice(name):
    x = images(32)
    pipeline = Pipeline((name,), PLAIN, CPU)
    draws = pipeline.draw(32, generator(4))
    whole = pipeline(x, draws)
    part = pipeline(x[8:20], [tuple(tensor[8:20] for tensor in drawn) for drawn in draws])
    assert torch.equal(whole[8:20], part)


# How often an image must come out as it went in: (name, probability).
IDENTITY = [
    ("crop:2", 1 / 25),
    ("shift:1", 1 / 9),
    ("flip", 0.5),
    ("flip:0.2", 0.8),
    ("erase:0.25", 0.75),
    ("erase:1", 0.0),
    ("cutout:3", 0.0),
    ("rotate:0", 1.0),
    ("resizedcrop:0.5", 0.0),
]


@pytest.mark.parametrize(("name", "probability"), IDENTITY)
def test_identity_probability(name, probability):
    x = images()
    out, _ = augment(name, x)
    same = ((out - x).abs() < 1e-5).flatten(1).all(1).float().mean()
    assert abs(same - probability) <= 4 * math.sqrt(probability * (1 - probability) / MANY) + 1e-9


def test_crop_equals_padding_and_cutting_by_hand():
    x = images(60)
    out, (corner,) = augment("crop:3", x)
    assert corner.min() == 0 and corner.max() == 6
    for image, result, (top, left) in zip(x, out, corner.tolist(), strict=True):
        padded = torch.zeros(3, 18, 16)
        padded[:, 3:15, 3:13] = image
        assert torch.equal(result, padded[:, top : top + 12, left : left + 10])


def test_flip_is_the_mirror_image():
    x = images(10)
    assert torch.equal(augment("flip:1", x)[0], x.flip(-1))


@pytest.mark.parametrize("side", [1, 4, 5])
def test_cutout_area_and_place(side):
    x = images(300)
    out, (corner,) = augment(f"cutout:{side}", x)
    for result, (top, left) in zip(out, corner.tolist(), strict=True):
        expected = torch.zeros(12, 10, dtype=torch.bool)
        expected[max(top, 0) : top + side, max(left, 0) : left + side] = True
        assert torch.equal(result[0] == 0, expected)
    areas = (out[:, 0] == 0).sum((1, 2))
    assert areas.max() == side**2


def test_cutout_fills_with_the_mean_colour():
    info = DataInfo("noise", ("a",), (3, 12, 10), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    pipeline = Pipeline(("cutout:4", "flip"), info, CPU)
    x = images(20)
    out = pipeline(x, pipeline.draw(20, generator(0)))
    original = out * torch.tensor(info.std)[:, None, None] + torch.tensor(info.mean)[:, None, None]
    blank = (out == 0).all(1)
    assert blank.any()
    assert torch.allclose(original.movedim(1, -1)[blank], torch.tensor(info.mean))


def test_erased_area_and_ratio_stay_in_the_papers_range():
    x = images(1000, (3, 40, 40))
    out, _ = augment("erase:1", x)
    blank = (out == 0).all(1)
    height, width = blank.any(2).sum(1), blank.any(1).sum(1)
    assert torch.equal(height * width, blank.sum((1, 2)))  # one rectangle
    area = blank.float().mean((1, 2))
    assert area.max() < 0.43 and area.min() > 0.01
    assert abs(area.mean() - 0.21) < 0.02
    assert (height < width).float().mean() == pytest.approx(0.5, abs=0.08)


def test_resized_crop_covers_the_area_asked_for():
    x = images(MANY)
    _, (sides, place) = augment("resizedcrop:0.3", x)
    area = sides.prod(1)
    assert area.min() >= 0.29 and area.max() <= 1.0
    assert place.min() >= 0 and place.max() <= 1


def test_resized_crop_shows_a_part_of_the_image():
    # A ramp along x: the crop of a ramp is a ramp, from the left edge of the crop to its right edge.
    ramp = torch.linspace(0.05, 0.95, 10).expand(50, 3, 12, 10)
    out, (sides, place) = augment("resizedcrop:0.2", ramp)
    left = place[:, 0] * (1 - sides[:, 0])
    middle = left + sides[:, 0] / 2
    assert torch.allclose(out[:, 0, 6, 4:6].mean(1), middle, atol=0.02)


def test_warp_turns_a_square_by_a_quarter_exactly():
    x = images(5, (3, 8, 8))
    assert torch.allclose(warp(x, rotation(torch.full((5,), 90.0)), "bilinear"), x.rot90(1, (2, 3)), atol=1e-5)


def test_rotation_angle_is_uniform_within_the_value():
    _, (degrees,) = augment("rotate:15", images())
    assert degrees.abs().max() <= 15 and degrees.abs().max() > 14.9
    assert abs(degrees.mean()) < 0.6
    assert degrees.std() == pytest.approx(15 / math.sqrt(3), rel=0.05)


def test_augmentations_happen_in_the_order_given():
    x = images(64)
    first = Pipeline(("crop:3", "rotate:90"), PLAIN, CPU)
    draws = first.draw(64, generator(0))
    second = Pipeline(("rotate:90", "crop:3"), PLAIN, CPU)
    assert not torch.equal(first(x, draws), second(x, draws[::-1]))


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_augmentation_stands_without_a_value(name):
    kind, value = parse_augmentation(name)
    assert value == (kind.default or 0.0)
