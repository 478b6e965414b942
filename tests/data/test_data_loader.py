import random

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from spikedistill.data import ImageSet, Loader, StreamSet, from_datasets
from spikedistill.errors import UserError

CPU = torch.device("cpu")
AUGMENT = ("crop:2", "flip", "cutout:3")


class Noisy(Dataset):
    """A user's data set whose items draw from all three global generators."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        noise = torch.rand(()) + float(np.random.rand()) + random.random()
        return self.images[index].float() / 255 + noise, index % 3


def loader(source, info, **options):
    settings = {"batch_size": 8, "device": CPU, "shuffle": True, "seed": 0} | options
    return Loader(source, info, **settings)


def stream(noise, info, workers=0):
    return StreamSet(Noisy(noise.images), torch.arange(50), workers, True, info.shape, 3)


def equal(first, second):
    first, second = list(first), list(second)
    return len(first) == len(second) and all(
        torch.equal(a, b) and torch.equal(x, y) for (a, x), (b, y) in zip(first, second, strict=True)
    )


@pytest.fixture(params=["memory", "stream"])
def source(request, noise, info):
    return noise if request.param == "memory" else stream(noise, info)


def test_batches_are_normalised_float_and_int64(noise, info):
    (x, y), *_ = loader(noise, info, shuffle=False).epoch(0)
    mean, std = (torch.tensor(value)[:, None, None] for value in (info.mean, info.std))
    assert torch.allclose(x, (noise.images[:8] / 255 - mean) / std)
    assert x.dtype == torch.float32
    assert y.dtype == torch.int64 and y.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]


def test_an_epoch_sees_every_image_once_with_its_label(noise, info):
    seen = [(x[:, 0, 0, 0], y) for x, y in loader(noise, info).epoch(0)]
    number = (torch.cat([x for x, _ in seen]) * info.std[0] + info.mean[0]).mul(255).round().long()
    assert number.sort().values.tolist() == list(range(50))
    assert torch.equal(torch.cat([y for _, y in seen]), number % 3)


def test_order_and_augmentation_follow_seed_and_epoch(source, info):
    first = loader(source, info, augment=AUGMENT)
    assert equal(first.epoch(3), loader(source, info, augment=AUGMENT).epoch(3))
    assert not equal(first.epoch(3), first.epoch(4))
    assert not equal(first.epoch(3), loader(source, info, augment=AUGMENT, seed=1).epoch(3))


def test_augmentation_changes_each_epoch_even_in_fixed_order(noise, info):
    fixed = loader(noise, info, augment=AUGMENT, shuffle=False)
    assert not equal(fixed.epoch(0), fixed.epoch(1))


def test_augmentation_differs_between_the_batches_of_an_epoch(noise, info):
    same = ImageSet(noise.images[:1].expand(16, -1, -1, -1), noise.labels[:16])
    (first, _), (second, _) = loader(same, info, augment=AUGMENT).epoch(0)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("start", [0, 1, 4, 6, 7])
def test_resumed_epoch_is_the_tail_of_the_whole_one(source, info, start):
    batches = loader(source, info, augment=AUGMENT)
    assert equal(list(batches.epoch(2))[start:], batches.epoch(2, start))


def test_number_of_workers_changes_no_bit(noise, info):
    alone = loader(stream(noise, info), info, augment=AUGMENT)
    together = loader(stream(noise, info, workers=2), info, augment=AUGMENT)
    assert equal(alone.epoch(1), together.epoch(1))
    assert equal(alone.epoch(1, 3), together.epoch(1, 3))


@pytest.mark.parametrize("world_size", [2, 3])
def test_slices_of_all_processes_make_the_global_batch(source, info, world_size):
    whole = list(loader(source, info, augment=AUGMENT).epoch(5))
    slices = [
        list(loader(source, info, augment=AUGMENT, rank=rank, world_size=world_size).epoch(5))
        for rank in range(world_size)
    ]
    for batch, parts in zip(whole, zip(*slices, strict=True), strict=True):
        assert torch.equal(batch[0], torch.cat([x for x, _ in parts]))
        assert torch.equal(batch[1], torch.cat([y for _, y in parts]))


def test_stream_of_the_same_images_gives_the_same_batches(noise, info):
    items = list(zip(noise.images, noise.labels.tolist(), strict=True))
    streamed = StreamSet(items, torch.arange(50), 0, False, info.shape, 3)
    assert equal(loader(noise, info, augment=AUGMENT).epoch(0), loader(streamed, info, augment=AUGMENT).epoch(0))


def test_reading_leaves_the_global_generators_alone(noise, info):
    def state():
        return torch.rand(2).tolist(), np.random.rand(), random.random()

    results = []
    for read in (False, True):
        torch.manual_seed(1)
        np.random.seed(1)
        random.seed(1)
        if read:
            list(loader(stream(noise, info), info, augment=AUGMENT).epoch(0))
            list(loader(noise, info, augment=AUGMENT).epoch(0))
        results.append(state())
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("batch_size", "drop_last", "sizes"),
    [(8, False, [8] * 6 + [2]), (8, True, [8] * 6), (64, True, [50]), (25, False, [25, 25])],
)
def test_last_batch(noise, info, batch_size, drop_last, sizes):
    batches = loader(noise, info, batch_size=batch_size, drop_last=drop_last)
    assert [len(y) for _, y in batches.epoch(0)] == sizes
    assert len(batches) == len(sizes)


def test_float_images_are_taken_as_they_are(noise, info):
    floats = ImageSet(noise.images.float() * 3, noise.labels)
    (x, _), *_ = loader(floats, info, shuffle=False).epoch(0)
    mean, std = (torch.tensor(value)[:, None, None] for value in (info.mean, info.std))
    assert torch.allclose(x, (floats.images[:8] - mean) / std)


def test_refusals(noise, info):
    with pytest.raises(UserError, match="4 images cannot be shared by 5 processes"):
        loader(noise, info, batch_size=4, world_size=5)
    with pytest.raises(UserError, match="without images"):
        loader(ImageSet(noise.images[:0], noise.labels[:0]), info)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_item_is_named_by_its_index_without_a_traceback(noise, info, workers):
    items = [(image, int(label)) for image, label in zip(noise.images, noise.labels, strict=True)]
    items[13] = (items[13][0][:, :5], 0)
    source = StreamSet(items, torch.arange(50), workers, False, info.shape, 3)
    with pytest.raises(UserError, match=r"^item 13 of the data set has shape \(3, 5, 10\) where the first") as caught:
        list(loader(source, info).epoch(0))
    assert "\n" not in str(caught.value)


def test_own_data_set_through_a_loader_keeps_its_random_transforms(noise, info):
    data = from_datasets(Noisy(noise.images), Noisy(noise.images), validation=0.2, seed=0)
    batches = loader(data.train, data.info, shuffle=False)
    assert not equal(batches.epoch(0), batches.epoch(1))
    assert equal(batches.epoch(0), batches.epoch(0))
