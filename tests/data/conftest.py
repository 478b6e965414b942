import os
from pathlib import Path

import pytest
import torch

from spikedistill.data import DataInfo, ImageSet


@pytest.fixture(autouse=True)
def _own_caches(tmp_path_factory, monkeypatch):
    """Tests neither read nor fill the caches of whoever runs them."""
    monkeypatch.setenv("SPIKEDISTILL_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("hub"))


@pytest.fixture
def shared_data():
    """Finds a folder of real data sets by name, or skips."""

    def find(name: str) -> str:
        default = Path(__file__).parents[2] / ".." / "shared" / "data"
        folder = Path(os.environ.get("SPIKEDISTILL_DATA", default)) / name
        if not folder.is_dir():
            pytest.skip(f"no data set '{name}' in $SPIKEDISTILL_DATA or ../shared/data")
        return str(folder)

    return find


@pytest.fixture
def info():
    return DataInfo("noise", ("a", "b", "c"), (3, 12, 10), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))


@pytest.fixture
def noise(info):
    """50 images of noise; the label of image i is i modulo 3, its first pixel is i."""
    generator = torch.Generator().manual_seed(5)
    images = torch.randint(0, 256, (50, *info.shape), generator=generator, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(50, dtype=torch.uint8)
    return ImageSet(images, torch.arange(50) % 3)


@pytest.fixture
def picture():
    """Makes a small picture; ``value`` tells one from another."""
    from PIL import Image

    def make(value: int, size=(6, 6), mode="RGB"):
        image = Image.new("RGB", size, (value, 2 * value % 256, 3 * value % 256))
        return image.convert(mode)

    return make


@pytest.fixture
def image_folder(tmp_path, picture):
    """An image folder with 2 classes, 4 training and 2 test images each."""
    root = tmp_path / "pets"
    for part, count in (("train", 4), ("val", 2)):
        for number, name in enumerate(("cat", "dog")):
            folder = root / part / name
            folder.mkdir(parents=True)
            for index in range(count):
                picture(100 * number + index).save(folder / f"{index}.png")
    return root


@pytest.fixture
def parquet_folder(tmp_path, picture):
    """Writes a folder in the hub's layout: column -> feature, and per split column -> values."""

    def write(features, splits):
        import datasets

        root = tmp_path / "table"
        root.mkdir()
        for split, columns in splits.items():
            table = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
            table.to_parquet(str(root / f"{split}-00000-of-00001.parquet"))
        return root

    return write


@pytest.fixture
def kinds():
    import datasets

    return {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}


@pytest.fixture
def table(picture):
    """Makes the columns of one split: pictures of rising value, classes in turn."""

    def make(count=4, first=0):
        return {"image": [picture(first + index) for index in range(count)], "label": [i % 2 for i in range(count)]}

    return make
