"""``resizedcrop`` on pictures as they lie on disk, and ``data.resize``."""

import math
from itertools import pairwise

import pytest
import torch

from spikedistill.data import DataSettings, Loader, open_data
from spikedistill.data.cropping import rectangle
from spikedistill.errors import UserError

CPU = torch.device("cpu")
WIDTH, HEIGHT, COUNT = 48, 16, 12
RED, GREEN, BLUE = range(3)


def flag():
    """Red, green and blue side by side: the middle square, and some pixels beside it, are green alone."""
    from PIL import Image

    image = Image.new("RGB", (WIDTH, HEIGHT), (0, 255, 0))
    image.paste((255, 0, 0), (0, 0, 12, HEIGHT))
    image.paste((0, 0, 255), (36, 0, WIDTH, HEIGHT))
    return image


@pytest.fixture
def folder(tmp_path):
    """An image folder of two classes, all pictures the same flag."""
    for part in ("train", "test"):
        for kind in ("a", "b"):
            place = tmp_path / "flags" / part / kind
            place.mkdir(parents=True)
            for number in range(COUNT):
                flag().save(place / f"{number}.png")
    return tmp_path / "flags"


@pytest.fixture
def sharded(tmp_path, kinds):
    """The same as two parquet files of training images and one of test images."""
    import datasets

    root = tmp_path / "sharded"
    root.mkdir()
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        table = {"image": [flag()] * 40, "label": [number % 2 for number in range(40)]}
        datasets.Dataset.from_dict(table, features=datasets.Features(kinds)).to_parquet(str(root / f"{name}.parquet"))
    return root


def opened(path, **settings):
    options = {
        "path": str(path),
        "size": 8,
        "validation": 0,
        "in_memory": False,
        "augment": ("resizedcrop", "flip"),
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
    }
    return open_data(DataSettings(**(options | settings)), seed=0)


def epoch(data, number=0, start=0, part="train", seed=0):
    augment = data.augment if part == "train" else ()
    source = getattr(data, part)
    loader = Loader(source, data.info, batch_size=6, device=CPU, augment=augment, shuffle=part == "train", seed=seed)
    return torch.cat([images for images, _ in loader.epoch(number, start)])


@pytest.mark.parametrize(("width", "height"), [(500, 375), (32, 32), (60, 100)])
def test_a_rectangle_lies_inside_and_has_the_area_and_ratio_asked_for(width, height):
    torch.manual_seed(0)
    areas = []
    for _ in range(400):
        left, top, right, bottom = rectangle(width, height, 0.25)
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        across, down = right - left, bottom - top
        # Whole pixels: half a pixel off on either side.
        assert (across - 0.5) / (down + 0.5) <= 4 / 3 and (across + 0.5) / (down - 0.5) >= 3 / 4
        areas.append(across * down / (width * height))
    assert min(areas) > 0.25 - 1 / min(width, height)
    # Large areas of a picture longer than 4:3 do not fit and are drawn again, which pulls the mean below 0.625.
    assert 0.4 < sum(areas) / len(areas) < 0.64


def test_a_picture_too_long_for_any_rectangle_gives_its_middle():
    torch.manual_seed(0)
    assert rectangle(900, 30, 1.0) == (430, 0, 470, 30)
    assert rectangle(30, 900, 1.0) == (0, 430, 30, 470)
    assert rectangle(1, 1, 0.08) == (0, 0, 1, 1)


@pytest.mark.parametrize("workers", [0, 2])
def test_training_sees_the_sides_of_a_picture_and_evaluation_its_middle(folder, workers):
    data = opened(folder, workers=workers)
    assert data.augment == ("flip",)
    images = epoch(data)
    assert images.shape == (2 * COUNT, 3, 8, 8)
    shown = (images.amax((2, 3)) > 0.9).float().mean(0)
    assert shown[RED] > 0.2 and shown[BLUE] > 0.2, "crops are cut from the whole picture"
    test = epoch(data, part="test")
    assert torch.equal(test[:, GREEN], torch.ones(2 * COUNT, 8, 8)) and not test[:, [RED, BLUE]].any()


def test_crops_follow_from_seed_and_epoch_and_nothing_else(folder):
    data, again = opened(folder), opened(folder, workers=2)
    first = epoch(data)
    torch.manual_seed(77)
    assert torch.equal(epoch(again), first), "neither from the global seed nor from the number of workers"
    assert torch.equal(epoch(again, start=2), first[12:]), "an epoch taken up in the middle goes on alike"
    assert not torch.equal(epoch(data, number=1), first)
    assert not torch.equal(epoch(data, seed=1), first)


def test_held_out_images_are_not_cropped(folder):
    data = opened(folder, validation=0.25)
    held = epoch(data, part="validation")
    assert len(held) == 6 and torch.equal(held[:, GREEN], torch.ones(6, 8, 8))


def test_a_set_in_memory_crops_the_image_it_holds(folder):
    data = opened(folder, in_memory=None)
    assert data.augment == ("resizedcrop", "flip")
    assert not epoch(data)[:, [RED, BLUE]].any()


def test_images_of_one_size_are_cropped_on_the_device(folder):
    data = opened(folder, size=None)
    assert data.augment == ("resizedcrop", "flip")
    assert epoch(data).shape[2:] == (HEIGHT, WIDTH)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_crops_the_picture_too(sharded, workers):
    data = opened(sharded, in_memory=None, streaming=True, workers=workers)
    assert data.augment == ("flip",)
    first = epoch(data)
    shown = (first.amax((2, 3)) > 0.9).float().mean(0)
    assert shown[RED] > 0.2 and shown[BLUE] > 0.2
    assert not all(torch.equal(a, b) for a, b in pairwise(first)), "each picture has a rectangle of its own"
    assert torch.equal(epoch(data), first)
    assert torch.equal(epoch(data, start=3), first[18:])
    assert not torch.equal(epoch(data, number=1), first)
    assert not epoch(data, part="test")[:, [RED, BLUE]].any()


def test_resize_says_how_much_of_the_picture_the_middle_is(folder):
    import numpy as np
    from PIL import Image

    grey = Image.fromarray(np.arange(HEIGHT * WIDTH, dtype=np.uint32).reshape(HEIGHT, WIDTH) % 251 * 1.0).convert("L")
    for file in folder.glob("*/*/*.png"):
        grey.save(file)
    expected = grey.resize((36, 12), Image.Resampling.BILINEAR).crop((14, 2, 22, 10))
    small = opened(folder, resize=12, mean=(0.0,), std=(1.0,), in_memory=None)
    whole = opened(folder, mean=(0.0,), std=(1.0,), in_memory=None)
    images = epoch(small, part="test")
    assert torch.equal(images[0, 0] * 255, torch.from_numpy(np.asarray(expected).copy()).float())
    assert not torch.equal(epoch(whole, part="test"), images), "each is decoded, and cached, on its own"
    assert torch.equal(epoch(opened(folder, resize=12, mean=(0.0,), std=(1.0,)), part="test"), images)


REFUSED = [
    ({"size": None, "resize": 256}, "data.resize is 256; it must be beside a data.size"),
    ({"size": 224, "resize": 200}, "data.resize is 200; it must be at least data.size (224)"),
    ({"path": None, "name": "digits", "size": 8, "resize": 9}, "data.resize is for images on disk or on the hub"),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_resize_is_refused_where_it_means_nothing(settings, message):
    with pytest.raises(UserError) as caught:
        open_data(DataSettings(**settings), seed=0)
    assert message in str(caught.value)


def test_the_largest_rectangle_keeps_the_ratio():
    torch.manual_seed(0)
    left, _, right, _ = rectangle(1000, 100, 1.0)
    assert math.isclose((right - left) / 100, 4 / 3, abs_tol=0.01)
