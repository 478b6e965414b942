import pytest

from spikedistill.data import DataSettings, open_data
from spikedistill.errors import UserError


def opened(path, **settings):
    return open_data(DataSettings(path=str(path), validation=settings.pop("validation", 0), **settings), seed=0)


# What is refused: settings, and what the sentence must say.
SETTINGS = [
    ({"validation": 1.0}, "data.validation is 1.0"),
    ({"subset": 0}, "data.subset is 0"),
    ({"size": -1}, "data.size is -1"),
    ({"channels": 2}, "data.channels is 2"),
    ({"workers": -1}, "data.workers is -1"),
    ({"std": (0.0,)}, "data.std"),
    ({"mean": (float("nan"),)}, "data.mean"),
    ({"mean": (0.1, 0.2)}, "data.mean has 2 values where the images have 1 channels"),
    ({"validation": 1e-9}, "leaves no image"),
    ({"augment": ("crp:4",)}, "unknown augmentation 'crp'; did you mean 'crop'"),
    ({"augment": ("crop:x",)}, "augmentation 'crop:x': the value must be a whole number"),
    ({"augment": ("crop:2.5",)}, "augmentation 'crop:2.5': the value must be a whole number"),
    ({"augment": ("crop:inf",)}, "augmentation 'crop:inf'"),
    ({"augment": ("flip:2",)}, "0 to 1"),
    ({"augment": ("autoaugment:1",)}, "takes no value"),
    ({"name": "cifar10"}, "unknown data set 'cifar10'; did you mean 'uoft-cs/cifar10'"),
    ({"name": "digit"}, "did you mean 'digits'"),
    ({"path": "/no/such/folder"}, "'/no/such/folder' is not a folder"),
]


@pytest.mark.parametrize(("settings", "message"), SETTINGS)
def test_settings_refused(settings, message):
    with pytest.raises(UserError) as caught:
        open_data(DataSettings(**settings), seed=0)
    assert message in str(caught.value)


@pytest.mark.parametrize("error", [ConnectionError("no route"), ValueError("Config name is missing.\nPick one")])
def test_hub_out_of_reach_says_to_pass_a_path(monkeypatch, error):
    import datasets

    def unreachable(name):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(UserError, match=r"'ylecun/mnist' could not be loaded .*data\.path=") as caught:
        open_data(DataSettings(name="ylecun/mnist"), seed=0)
    assert "\n" not in str(caught.value)


def refused(path, **settings):
    with pytest.raises(UserError) as caught:
        opened(path, **settings)
    return str(caught.value)


def test_folders_refused(image_folder, tmp_path, picture):
    (tmp_path / "empty").mkdir()
    assert "holds no data set that can be read" in refused(tmp_path / "empty")
    (image_folder / "train" / "cow").mkdir()
    assert "train/cow' holds no image" in refused(image_folder)
    (image_folder / "train" / "cow").rmdir()
    (image_folder / "val" / "cow").mkdir()
    assert "val/cow' is a class that" in refused(image_folder)
    (image_folder / "val" / "cow").rmdir()
    (image_folder / "val").rename(image_folder / "other")
    assert "has no test part" in refused(image_folder)


def test_images_refused(image_folder, picture):
    file = image_folder / "train" / "dog" / "2.png"
    picture(1, size=(6, 7)).save(file)
    message = refused(image_folder)
    assert "dog/2.png' has 6 x 7 pixels where the first image has 6 x 6; set data.size" in message
    assert opened(image_folder, size=6).info.shape == (3, 6, 6)
    file.write_bytes((image_folder / "train" / "dog" / "1.png").read_bytes()[:45])
    assert "dog/2.png' cannot be read as an image" in refused(image_folder)
    file.write_text("no image")
    assert "dog/2.png' cannot be read as an image" in refused(image_folder)


def test_all_images_that_cannot_be_used_are_named_at_once(image_folder, picture):
    pictures = sorted((image_folder / "train").rglob("*.png"))
    for file in pictures[:1] + pictures[2:4]:
        file.write_text("no image")
    picture(1, size=(6, 7)).save(pictures[4])
    message = refused(image_folder)
    assert message.startswith(f"image '{pictures[0]}' cannot be read as an image")
    others = [f"image '{file}'" for file in pictures[2:5]]
    assert message.endswith(f"; 3 more cannot be used: {', '.join(others)}")
    for file in pictures:
        file.write_text("no image")
    assert f"image '{pictures[0]}' cannot be read" in refused(image_folder), "nor is there a shape to be had"


def test_late_colour_among_grey_images_is_refused(tmp_path, picture):
    for part in ("train", "test"):
        folder = tmp_path / "set" / part / "a"
        folder.mkdir(parents=True)
        for index in range(200):
            picture(9, mode="L").save(folder / f"{index:03}.png")
    picture(9).save(tmp_path / "set" / "train" / "a" / "050.png")
    assert "050.png' is a colour image (RGB) among grey ones" in refused(tmp_path / "set")
    assert opened(tmp_path / "set", channels=1).info.shape == (1, 6, 6)


def test_tables_refused(parquet_folder, picture, kinds, tmp_path, table):
    import shutil

    import datasets

    good = table()
    number = {"image": datasets.Image(), "label": datasets.Value("int64")}
    cases = [
        (kinds, {"train": good}, "has no test split with labels (it has: train"),
        (kinds, {"validation": good, "test": good}, "has no split 'train'"),
        (number, {"train": good, "test": good | {"label": [0, 1, 2, 0]}}, "row 2 of 'table' split 'test' has label 2"),
        (number, {"train": good | {"label": [0, -5, 1, 0]}, "test": good}, "has label -5"),
        (number, {"train": good | {"label": [0, 2, 0, 2]}, "test": good}, "no training image of class '1'"),
        (number, {"train": good | {"label": [0, None, 0, 2]}, "test": good}, "rows without a label"),
        (number | {"label": datasets.Value("string")}, {"train": good, "test": good}, "no label column"),
        ({"image": datasets.Value("string"), "label": datasets.Value("int64")}, None, "no image column"),
        (kinds, {"train": good | {"image": [picture(1), None] * 2}, "test": good}, "row 1 of 'table' split 'train'"),
    ]
    for features, splits, message in cases:
        if splits is None:
            splits = {part: good | {"image": ["a"] * 4} for part in ("train", "test")}
        if features["label"].dtype == "string":
            splits = {part: columns | {"label": list("abab")} for part, columns in splits.items()}
        root = parquet_folder(features, splits)
        assert message in refused(root)
        shutil.rmtree(root)


def test_truncated_row_is_named(parquet_folder, picture, kinds, table):
    from io import BytesIO

    buffer = BytesIO()
    picture(3).save(buffer, "PNG")
    columns = table()
    columns["image"][2] = {"bytes": buffer.getvalue()[:50], "path": None}
    message = refused(parquet_folder(kinds, {"train": columns, "test": table()}))
    assert "row 2 of 'table' split 'train' cannot be read as an image" in message


def test_folder_with_more_classes_than_its_name_is_refused(parquet_folder, picture, kinds):
    kinds["label"] = kinds["label"].__class__(names=[str(number) for number in range(11)])
    columns = {"image": [picture(index) for index in range(11)], "label": list(range(11))}
    message = refused(parquet_folder(kinds, {"train": columns, "test": columns}), name="uoft-cs/cifar10")
    assert "has 11 classes where data.name 'uoft-cs/cifar10' has 10" in message


def test_splits_that_number_their_classes_differently_are_refused(parquet_folder, kinds, tmp_path, table):
    """As ``class_encode_column`` leaves them where it is called on each split and one of them lacks a class."""
    import datasets

    parts = {}
    for split, names in (("train", ["ant", "bee", "cat"]), ("test", ["bee", "cat"])):
        columns = table() | {"label": [number % len(names) for number in range(4)]}
        features = kinds | {"label": datasets.ClassLabel(names=names)}
        parts[split] = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    datasets.DatasetDict(**parts).save_to_disk(str(tmp_path / "saved"))
    message = refused(tmp_path / "saved")
    assert "numbers its classes differently: 0 is 'ant' in split 'train', 'bee' in 'test'" in message


def test_photographs_smaller_than_a_patch_are_refused():
    with pytest.raises(UserError, match="500x500 pixels do not fit into photographs of 427x640"):
        open_data(DataSettings(name="digits-background-image", size=500), seed=0)
    one = DataSettings(name="digits-background-image", size=224, subset=2, validation=0.0)
    assert open_data(one, seed=0).info.shape[-1] == 224


def test_parquet_files_that_number_their_classes_differently_are_refused(parquet_folder, kinds, table):
    """datasets gives both the first one's names, and so each picture a wrong one."""
    import datasets

    root = parquet_folder(kinds, {"train": table(), "test": table()})
    turned = kinds | {"label": datasets.ClassLabel(names=["dog", "cat"])}
    other = datasets.Dataset.from_dict(table(), features=datasets.Features(turned))
    other.to_parquet(str(root / "test-00000-of-00001.parquet"))
    for settings in ({}, {"streaming": True}):
        assert "numbers the classes of its column 'label' differently from" in refused(root, **settings)


@pytest.mark.parametrize("told", ["[" * 100_000, "{", '{"info": []}', '{"info": {"features": {"label": 3}}}', "\udc80"])
def test_what_a_parquet_file_tells_of_itself_is_nobodys_word(told, parquet_folder, kinds, table):
    import pyarrow.parquet

    root = parquet_folder(kinds, {"train": table(), "test": table()})
    file = root / "test-00000-of-00001.parquet"
    content = pyarrow.parquet.read_table(file)
    pyarrow.parquet.write_table(
        content.replace_schema_metadata({b"huggingface": told.encode("utf-8", "surrogateescape")}), file
    )
    try:
        assert len(opened(root).test) == 4
    except UserError as error:
        assert "\n" not in str(error)
