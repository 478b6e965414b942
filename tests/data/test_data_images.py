import pytest
import torch

from spikedistill.data import DataSettings, ImageSet, Loader, StreamSet, open_data
from spikedistill.data.catalogue import HUB
from spikedistill.data.normalise import measured


def opened(path, **settings):
    return open_data(DataSettings(path=str(path), validation=settings.pop("validation", 0), **settings), seed=0)


def test_image_folder_is_read_pixel_by_pixel(image_folder):
    data = opened(image_folder)
    assert data.info.name == "pets"
    assert data.info.classes == ("cat", "dog")
    assert data.info.shape == (3, 6, 6)
    assert isinstance(data.train, ImageSet)
    assert data.train.images[:, :, 2, 2].tolist() == [
        [value, 2 * value % 256, 3 * value % 256] for value in (0, 1, 2, 3, 100, 101, 102, 103)
    ]
    assert data.train.labels.tolist() == [0] * 4 + [1] * 4
    assert len(data.test) == 4


def test_parquet_folder_is_read_pixel_by_pixel(parquet_folder, kinds, table):
    data = opened(parquet_folder(kinds, {"train": table(), "test": table(2, first=9)}))
    assert isinstance(data.train, ImageSet) and isinstance(data.test, ImageSet)
    assert data.train.images[:, 1, 0, 0].tolist() == [0, 2, 4, 6]
    assert data.test.images[:, 2, 0, 0].tolist() == [27, 30]
    assert data.info.classes == ("cat", "dog")


def test_saved_data_set_is_read(tmp_path, kinds, table):
    import datasets

    features = datasets.Features(kinds)
    parts = {part: datasets.Dataset.from_dict(table(), features) for part in ("train", "test")}
    datasets.DatasetDict(**parts).save_to_disk(str(tmp_path / "saved"))
    assert len(opened(tmp_path / "saved").train) == 4


def test_columns_are_found_by_type_and_preferred_name(parquet_folder, picture):
    import datasets

    features = {
        "number": datasets.Value("int64"),
        "coarse_label": datasets.ClassLabel(names=["x"]),
        "img": datasets.Image(),
        "fine_label": datasets.ClassLabel(names=["a", "b"]),
    }
    columns = {
        "number": [7] * 4,
        "coarse_label": [0] * 4,
        "img": [picture(index) for index in range(4)],
        "fine_label": [1, 0, 1, 0],
    }
    data = opened(parquet_folder(features, {"train": columns, "validation": columns}))
    assert isinstance(data.train, ImageSet)
    assert data.train.labels.tolist() == [1, 0, 1, 0]
    assert data.info.classes == ("a", "b")


def test_test_split_without_labels_gives_way_to_validation(parquet_folder, kinds, table):
    blind = table(3) | {"label": [-1, -1, -1]}
    data = opened(parquet_folder(kinds, {"train": table(), "validation": table(2), "test": blind}), channels=1)
    assert len(data.test) == 2


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "RGBA", "CMYK", "LA", "1", "I;16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_becomes_the_channels_asked_for(tmp_path, mode, channels):
    from PIL import Image

    suffix = {"CMYK": "jpg"}.get(mode, "png")
    for part in ("train", "test"):
        for name, colour in (("black", 0), ("white", 255)):
            folder = tmp_path / "set" / part / name
            folder.mkdir(parents=True)
            deep = Image.new("I;16", (5, 4), colour * 257)
            image = deep if mode == "I;16" else Image.new("L", (5, 4), colour).convert(mode)
            image.save(folder / f"1.{suffix}")
    data = opened(tmp_path / "set", channels=channels)
    assert isinstance(data.train, ImageSet)
    assert data.info.shape == (channels, 4, 5)
    assert data.train.images.amax((1, 2, 3)).tolist() == [0, 255]
    assert data.train.images.amin((1, 2, 3)).tolist() == [0, 255]


def test_grey_sets_stay_grey(tmp_path, picture):
    for part in ("train", "test"):
        (tmp_path / "set" / part / "a").mkdir(parents=True)
        picture(50, mode="L").save(tmp_path / "set" / part / "a" / "1.png")
    assert opened(tmp_path / "set").info.shape == (1, 6, 6)


def test_size_scales_the_shorter_side_and_keeps_the_middle(tmp_path):
    from PIL import Image

    # Three upright bands, black, white, black; the middle square is all white.
    image = Image.new("L", (30, 10), 0)
    image.paste(255, (10, 0, 20, 10))
    for part in ("train", "test"):
        (tmp_path / "set" / part / "a").mkdir(parents=True)
        image.save(tmp_path / "set" / part / "a" / "1.png")
    data = opened(tmp_path / "set", size=5)
    assert isinstance(data.train, ImageSet)
    assert data.info.shape == (1, 5, 5)
    assert data.train.images[..., 1:4].min() == 255


def test_photographs_are_turned_upright(tmp_path):
    from PIL import Image

    image = Image.new("L", (8, 8), 0)
    image.paste(255, (0, 0, 8, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side: the stored top is the right edge
    for part in ("train", "test"):
        (tmp_path / "set" / part / "a").mkdir(parents=True)
        image.save(tmp_path / "set" / part / "a" / "1.png", exif=exif)
    data = opened(tmp_path / "set")
    assert isinstance(data.train, ImageSet)
    assert data.train.images[0, 0].float().mean(0).tolist() == [0.0] * 4 + [255.0] * 4


def test_second_opening_reads_the_cache_and_a_changed_file_does_not(image_folder, picture, monkeypatch):
    first = opened(image_folder)

    def forbidden(*_):
        raise AssertionError("decoded again")

    with monkeypatch.context() as patched:
        patched.setattr("spikedistill.data.images.open_folder", forbidden)
        again = opened(image_folder)
    assert isinstance(first.train, ImageSet) and isinstance(again.train, ImageSet)
    assert torch.equal(first.train.images, again.train.images)
    picture(77, size=(6, 6)).save(image_folder / "train" / "cat" / "0.png")
    changed = opened(image_folder)
    assert isinstance(changed.train, ImageSet)
    assert changed.train.images[0, 0, 0, 0] == 77


def test_a_link_that_leads_elsewhere_is_read_anew(image_folder, picture, tmp_path):
    other = tmp_path / "others"
    for file in sorted(image_folder.rglob("*.png")):
        target = other / file.relative_to(image_folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        picture(50).save(target)
    linked = tmp_path / "linked"
    linked.mkdir()

    def pixel(source):
        for part in ("train", "val"):
            (linked / part).unlink(missing_ok=True)
            (linked / part).symlink_to(source / part)
        data = opened(linked)
        assert isinstance(data.train, ImageSet)
        return int(data.train.images[0, 0, 0, 0])

    assert (pixel(image_folder), pixel(other)) == (0, 50)
    picture(60).save(other / "train" / "cat" / "0.png")
    assert pixel(other) == 60, "a file behind the link has changed"
    (other / "train" / "cat" / "round").symlink_to(other)
    assert pixel(other) == 60, "a link into itself has an end"


def test_hidden_files_are_no_images(image_folder, picture):
    picture(9).save(image_folder / "train" / "cat" / "._0.png")
    (image_folder / "train" / "cat" / ".ipynb_checkpoints").mkdir()
    picture(9).save(image_folder / "train" / "cat" / ".ipynb_checkpoints" / "0.png")
    assert len(opened(image_folder).train) == 8


def test_broken_cache_is_decoded_anew(image_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEDISTILL_CACHE", str(tmp_path / "own"))
    opened(image_folder)
    (file,) = (tmp_path / "own").iterdir()
    file.write_bytes(file.read_bytes()[:50])
    assert len(opened(image_folder).train) == 8


def test_small_selection_of_a_set_is_decoded_alone(image_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEDISTILL_CACHE", str(tmp_path / "own"))
    data = opened(image_folder, subset=2, test_subset=1)
    assert isinstance(data.train, ImageSet)
    assert sorted(data.train.labels.tolist()) == [0, 1]
    assert not (tmp_path / "own").exists()


def test_streamed_and_in_memory_batches_are_equal(image_folder):
    settings = {"mean": (0.5,), "std": (0.25,), "validation": 0.25}
    memory, streamed = opened(image_folder, **settings), opened(image_folder, in_memory=False, **settings)
    assert isinstance(streamed.train, StreamSet) and memory.info == streamed.info
    for part in ("train", "validation", "test"):
        batches = [
            list(
                Loader(
                    getattr(data, part), data.info, batch_size=4, device=torch.device("cpu"), shuffle=True, seed=0
                ).epoch(0)
            )
            for data in (memory, streamed)
        ]
        for (x, labels), (y, others) in zip(*batches, strict=True):
            assert torch.equal(x, y) and torch.equal(labels, others)


def test_large_colour_sets_take_imagenets_constants(image_folder):
    assert opened(image_folder, in_memory=False).info.mean == HUB["ILSVRC/imagenet-1k"].mean


def test_unknown_sets_take_their_own_constants_and_known_names_theirs(image_folder):
    own = opened(image_folder)
    assert isinstance(own.train, ImageSet)
    assert (own.info.mean, own.info.std) == measured(own.train.images)
    assert opened(image_folder, name="uoft-cs/cifar10").info.mean == HUB["uoft-cs/cifar10"].mean
    given = opened(image_folder, name="uoft-cs/cifar10", mean=(0.1, 0.2, 0.3))
    assert (given.info.mean, given.info.std) == ((0.1, 0.2, 0.3), HUB["uoft-cs/cifar10"].std)


@pytest.mark.parametrize(("name", "folder"), [("ylecun/mnist", "mnist"), ("uoft-cs/cifar10", "cifar10")])
def test_real_data_has_the_constants_of_its_name(shared_data, name, folder):
    data = opened(shared_data(folder), name=name, subset=5000, test_subset=100)
    assert isinstance(data.train, ImageSet)
    assert len(data.train) == 5000 and data.train.labels.bincount().min() > 400
    mean, std = measured(data.train.images)
    for ours, known in zip(mean + std, data.info.mean + data.info.std, strict=True):
        assert abs(ours - known) < 0.006
