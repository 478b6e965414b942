"""Damaged, odd and hostile input: read if it can be, refused in one sentence that names it if not."""

import struct
import zlib
from pathlib import Path

import pytest
import torch
from torch.utils.data import TensorDataset

from spikedistill.data import DataSettings, ImageSet, from_datasets, open_data
from spikedistill.errors import UserError


def opened(path, **settings):
    return open_data(DataSettings(path=str(path), validation=0, **settings), seed=0)


def refused(path, **settings):
    with pytest.raises(UserError) as caught:
        opened(path, **settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


def png_of(width, height):
    """A PNG that says it is this large and holds next to nothing."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 10)) + chunk(b"IEND", b"")


def truncated(file: Path):
    file.write_bytes(file.read_bytes()[:-30])


def nothing(file: Path):
    file.write_bytes(b"")


def bomb(file: Path):
    file.write_bytes(png_of(60_000, 60_000))


def folder(file: Path):
    file.unlink()
    file.mkdir()


def dead_link(file: Path):
    file.unlink()
    file.symlink_to("/nowhere/at/all.png")


def other_kind(file: Path):
    file.write_text("<svg></svg>")


@pytest.mark.parametrize("damage", [truncated, nothing, bomb, folder, dead_link, other_kind])
@pytest.mark.parametrize("size", [None, 6])
def test_a_damaged_image_is_named(image_folder, damage, size):
    file = image_folder / "train" / "cat" / "1.png"
    damage(file)
    assert f"image '{file}' cannot be read as an image" in refused(image_folder, size=size)


@pytest.mark.parametrize("mode", ["I", "I;16B", "CMYK", "RGBX", "1"])
def test_odd_modes_among_colour_are_read(image_folder, mode):
    from PIL import Image

    file = image_folder / "train" / "cat" / "0.tif"
    (image_folder / "train" / "cat" / "0.png").unlink()
    Image.new("RGB", (6, 6)).convert("L" if mode.startswith("I") else mode).convert(mode).save(file)
    data = opened(image_folder)
    assert isinstance(data.train, ImageSet)
    assert data.train.images[0].unique().tolist() == [0]


def test_modes_without_a_meaning_here_are_refused(image_folder):
    from PIL import Image

    file = image_folder / "train" / "cat" / "0.tif"
    (image_folder / "train" / "cat" / "0.png").unlink()
    Image.new("F", (6, 6), 0.5).save(file)
    assert "0.tif' holds real numbers (mode F)" in refused(image_folder)
    Image.new("LAB", (6, 6)).save(file)
    assert "0.tif' is of mode LAB and cannot be converted" in refused(image_folder, channels=1)


@pytest.mark.parametrize("content", [b"", b"no parquet" * 50, None])
def test_a_damaged_parquet_file_is_named(parquet_folder, kinds, table, content):
    root = parquet_folder(kinds, {"train": table(), "test": table(2)})
    file = root / "test-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:200] if content is None else content)
    assert f"'{file}' cannot be read as parquet" in refused(root)


def test_labels_that_are_no_class_numbers_are_refused_before_they_fill_the_memory(parquet_folder, kinds, table):
    import datasets

    features = kinds | {"label": datasets.Value("int64")}
    root = parquet_folder(features, {"train": table() | {"label": [0, 1, 10**12, 1]}, "test": table(2)})
    assert "'table' has 4 training images and labels up to 1000000000000; number its classes from 0" in refused(root)
    dataset = TensorDataset(torch.zeros(3, 1, 4, 4), torch.tensor([0, 1, 10**12]))
    with pytest.raises(UserError, match=r"up to 1000000000000 but none of \[2, 3, 4, 5, 6\]; number the classes"):
        from_datasets(dataset, dataset, validation=0, seed=0)


def test_columns_of_other_kinds_are_listed(parquet_folder, kinds, table):
    import datasets

    good = table()
    root = parquet_folder(
        kinds | {"label": datasets.Value("float32")},
        {part: good | {"label": [0.0, 1.0, 0.5, 1.0]} for part in ("train", "test")},
    )
    assert "no label column of whole numbers" in refused(root)
    assert "label: float32" in refused(root)
