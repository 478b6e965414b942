from itertools import pairwise

import pytest
import torch

from spikedistill.data import DataSettings, Loader, open_data
from spikedistill.data.shards import ShardSet
from spikedistill.errors import UserError

CPU = torch.device("cpu")
SHARDS, ROWS = 4, 25


@pytest.fixture
def sharded(tmp_path, kinds):
    """A folder of four training files and a test file; the red of an image is its number, its class that number's."""
    import datasets
    from PIL import Image

    root = tmp_path / "sharded"
    root.mkdir()

    def write(name, numbers):
        images = [Image.new("RGB", (6, 6), (number, 0, 0)) for number in numbers]
        table = datasets.Dataset.from_dict(
            {"image": images, "label": [number % 2 for number in numbers], "other": ["x"] * len(images)},
            features=datasets.Features(kinds | {"other": datasets.Value("string")}),
        )
        table.to_parquet(str(root / f"{name}.parquet"))

    for shard in range(SHARDS):
        write(f"train-{shard:05}-of-00004", range(shard * ROWS, (shard + 1) * ROWS))
    write("test-00000-of-00001", range(200, 230))
    return root


def opened(path, **settings):
    options = {"path": str(path), "validation": 0, "streaming": True, "mean": (0.0,), "std": (1.0,)} | settings
    return open_data(DataSettings(**options), seed=0)


def loader(data, part="train", **options):
    settings = {"batch_size": 8, "device": CPU, "shuffle": True, "seed": 0} | options
    return Loader(getattr(data, part), data.info, **settings)


def numbers(batches):
    """The images' numbers, batch by batch; their labels must be theirs."""
    seen = []
    for images, labels in batches:
        found = (images[:, 0, 0, 0] * 255).round().long()
        assert torch.equal(found % 2, labels)
        seen.append(found.tolist())
    return seen


def flat(batches):
    return [number for batch in numbers(batches) for number in batch]


def test_a_stream_has_the_shape_the_classes_and_the_counts(sharded):
    data = opened(sharded)
    assert isinstance(data.train, ShardSet) and isinstance(data.test, ShardSet)
    assert (len(data.train), len(data.test), data.validation) == (100, 30, None)
    assert (data.info.shape, data.info.classes, data.info.name) == ((3, 6, 6), ("cat", "dog"), "sharded")
    assert len(loader(data)) == 13 and len(loader(data, drop_last=True)) == 12
    assert opened(sharded, size=4, channels=1).info.shape == (1, 4, 4)


def test_without_shuffling_the_order_is_the_files(sharded):
    assert flat(loader(opened(sharded), "test", shuffle=False).epoch(0)) == list(range(200, 230))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_sees_every_image_once_in_an_order_that_follows_from_seed_and_epoch(sharded, workers):
    data = opened(sharded, workers=workers, buffer=10)
    first = flat(loader(data).epoch(0))
    assert sorted(first) == list(range(100)) and first != list(range(100))
    assert flat(loader(opened(sharded, workers=workers, buffer=10)).epoch(0)) == first
    assert flat(loader(data).epoch(1)) != first
    assert flat(loader(data, seed=1).epoch(0)) != first


def test_the_buffer_mixes_rows_and_the_shards_come_in_new_orders(sharded):
    order = flat(loader(opened(sharded, buffer=1)).epoch(0))
    firsts = {
        tuple(dict.fromkeys(n // ROWS for n in flat(loader(opened(sharded, buffer=1)).epoch(e)))) for e in range(4)
    }
    assert len(firsts) > 1
    mixed = flat(loader(opened(sharded, buffer=60)).epoch(0))
    steps = [sum(abs(b - a) for a, b in pairwise(run)) for run in (order, mixed)]
    assert steps[1] > 2 * steps[0]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("start", [1, 6, 12])
def test_a_resumed_epoch_is_the_tail_of_the_whole_one(sharded, workers, start):
    batches = loader(opened(sharded, workers=workers, buffer=16), augment=("crop:1", "flip"))
    whole, tail = list(batches.epoch(3)), list(batches.epoch(3, start))
    assert len(tail) == len(whole) - start
    for (x, labels), (y, others) in zip(whole[start:], tail, strict=True):
        assert torch.equal(x, y) and torch.equal(labels, others)


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_the_images_and_have_equally_many_batches(sharded, world_size):
    data = opened(sharded, buffer=16)
    parts = [
        numbers(loader(data, rank=rank, world_size=world_size, batch_size=12, drop_last=True).epoch(0))
        for rank in range(world_size)
    ]
    assert {len(part) for part in parts} == {8}
    assert all(len(batch) == 12 // world_size for part in parts for batch in part)
    seen = [number for part in parts for batch in part for number in batch]
    # 96 of 100 images, four left out at the end of the epoch, none twice.
    assert len(set(seen)) == len(seen) == 96


def test_a_process_with_fewer_rows_than_the_others_starts_again(sharded):
    # Two shards of unequal length, one for each process: 75 rows and 25.
    for shard in (1, 2):
        (sharded / f"train-{shard:05}-of-00004.parquet").unlink()
    data = opened(sharded)
    parts = [flat(loader(data, rank=rank, world_size=2, batch_size=50, drop_last=True).epoch(0)) for rank in range(2)]
    assert [len(part) for part in parts] == [25, 25]


def test_an_image_that_cannot_be_read_is_refused_without_a_traceback(sharded, kinds):
    import datasets

    rows = {"image": [{"bytes": b"no image", "path": "cat.png"}] * 3, "label": [0, 1, 0]}
    table = datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))
    table.to_parquet(str(sharded / "train-00001-of-00004.parquet"))
    for workers in (0, 2):
        with pytest.raises(
            UserError, match=r"a row of 'sharded' split 'train' \('cat\.png'\) cannot be read"
        ) as refused:
            flat(loader(opened(sharded, workers=workers)).epoch(0))
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"validation": 0.1}, "data.validation needs a set that can be indexed; set it to 0"),
        ({"subset": 10}, "data.subset needs a set that can be indexed"),
        ({"test_subset": 10}, "data.test_subset needs a set that can be indexed"),
        ({"in_memory": True}, "data.in_memory and data.streaming exclude each other"),
        ({"buffer": 0}, "data.buffer is 0"),
        ({"path": None}, "data.streaming is for images on disk or on the hub, not for 'digits'"),
        ({"name": "cifar10-dvs"}, "data.streaming is for images on disk or on the hub, not for 'cifar10-dvs'"),
    ],
)
def test_what_a_stream_cannot_do_is_refused(sharded, settings, said):
    with pytest.raises(UserError) as refused:
        opened(sharded, **settings) if "path" not in settings else open_data(DataSettings(streaming=True), seed=0)
    assert said in str(refused.value)


def test_a_stream_without_class_names_is_refused(sharded, kinds, picture):
    import datasets

    for file in sharded.iterdir():
        file.unlink()
    features = datasets.Features(kinds | {"label": datasets.Value("int64")})
    for part in ("train", "test"):
        table = datasets.Dataset.from_dict({"image": [picture(1)], "label": [0]}, features=features)
        table.to_parquet(str(sharded / f"{part}-00000-of-00001.parquet"))
    with pytest.raises(UserError, match="does not name its classes"):
        opened(sharded)


def test_a_run_trains_on_a_stream(sharded, tmp_path):
    import spikedistill as sd
    from spikedistill.recipe import parse
    from spikedistill.run import train

    data = {"path": str(sharded), "streaming": True, "validation": 0.0, "augment": ["flip"]}
    recipe = {"data": data, "student": {"model": "2conv", "width": 4}, "method": {"name": "snn"}, "epochs": 1}
    run = train(parse(recipe | {"batch_size": 20, "timesteps": 2, "out": str(tmp_path / "run")}), verbose=False)
    assert run.summary["train_images"] == 100 and run.summary["test_images"] == 30
    assert sd.load(tmp_path / "run").timesteps == 2


def test_a_test_split_without_labels_is_passed_over_as_in_an_indexed_set(sharded, kinds):
    import datasets
    from PIL import Image

    (sharded / "test-00000-of-00001.parquet").rename(sharded / "validation-00000-of-00001.parquet")
    images = [Image.new("RGB", (6, 6), (250, 0, 0))] * 12
    table = datasets.Dataset.from_dict({"image": images, "label": [-1] * 12}, features=datasets.Features(kinds))
    table.to_parquet(str(sharded / "test-00000-of-00001.parquet"))
    data = opened(sharded)
    assert len(data.test) == 30 == len(opened(sharded, streaming=False).test)
    assert sorted(flat(loader(data, "test", shuffle=False).epoch(0))) == list(range(200, 230))
    (sharded / "validation-00000-of-00001.parquet").unlink()
    with pytest.raises(UserError, match="no test split with labels"):
        opened(sharded)
