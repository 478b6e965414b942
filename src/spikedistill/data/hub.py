"""Data sets in the Hugging Face hub's layout, from the hub or from a local folder."""

import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spikedistill.data.catalogue import HUB
from spikedistill.data.confined import check_confined
from spikedistill.data.rows import Stored, stored_image
from spikedistill.errors import UserError, first_line

LABEL_NAMES = ("label", "labels", "fine_label", "coarse_label")
TEST_SPLITS = ("test", "validation", "valid", "val", "dev")


class TableRows:
    """One split of a Hugging Face data set, images left encoded."""

    def __init__(self, split: Any, image: str, label: str, where: str, roots: Sequence[Path]) -> None:
        from datasets import Image

        self._roots = roots

        self._table = split.select_columns([image]).cast_column(image, Image(decode=False))
        self._image = image
        self._where = where
        self._labels = _labels(split, label, where)

    @property
    def labels(self) -> Tensor:
        """``[N]`` int64."""
        return self._labels

    def encoded(self, row: int) -> str | BytesIO:
        """The file's contents, or its path where the table holds only that."""
        return stored_image(self._table[row][self._image], self.where(row), self._roots)

    def where(self, row: int) -> str:
        """Split and row number."""
        return f"row {row} of {self._where}"


def load_hub(name: str) -> Mapping[str, Any]:
    """Loads a data set by its name on the hub, downloading it the first time.

    Raises:
        UserError: no such data set, no network, no permission, or more than one configuration.
    """
    import datasets
    from datasets.exceptions import DatasetsError

    try:
        return _splits(datasets.load_dataset(name))
    # RuntimeError: the data set is a loading script, which datasets no longer runs.
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        near = ", ".join(HUB)
        raise UserError(
            f"data set '{name}' could not be loaded from the Hugging Face hub ({first_line(error)}); check the name "
            f"(known: digits, {near}) and the network, or pass a local copy with data.path="
        ) from error


def load_folder(path: Path) -> Mapping[str, Any]:
    """Loads a local folder in the hub's layout or one written by ``save_to_disk``.

    Raises:
        UserError: nothing in it that can be read.
    """
    import datasets

    check_confined(path)
    check_parquet(path)
    try:
        if (path / "dataset_dict.json").exists():
            return _splits(datasets.load_from_disk(str(path)))
        return _splits(datasets.load_dataset(str(path)))
    # datasets has two dozen formats of its own, whose readers raise whatever they run into.
    except Exception as error:
        raise UserError(
            f"data.path '{path}' holds no data set that can be read ({first_line(error)}); it must be parquet files "
            "in the hub's layout (train-*.parquet, test-*.parquet) or an image folder (train/<class>/, test/<class>/)"
        ) from error


def check_parquet(path: Path) -> None:
    """Refuses parquet files that are cut short or something else, by their names, which datasets does not say.

    And files whose numbers stand for other classes than those of the file before: datasets takes the first one's.
    """
    from pyarrow import ArrowException
    from pyarrow.parquet import read_metadata

    named: dict[str, tuple[Path, list[str]]] = {}
    for file in sorted(path.rglob("*.parquet")):
        try:
            if not file.is_file():
                raise OSError("not a file")
            classes = _encoded_classes(read_metadata(file).metadata or {})
        except (OSError, ArrowException) as error:
            raise UserError(
                f"'{file}' cannot be read as parquet ({first_line(error)}); copy it again, or remove it"
            ) from error
        for column, names in classes.items():
            first, known = named.setdefault(column, (file, names))
            if names != known:
                raise UserError(
                    f"'{file}' numbers the classes of its column '{column}' differently from '{first}'; encode "
                    "both with the same ClassLabel (Dataset.cast_column)"
                )


def _encoded_classes(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """The class names that datasets has written into a parquet file, by column."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {name: list(one["names"]) for name, one in features.items() if one.get("_type") == "ClassLabel"}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):  # none, or something else
        return {}


def image_roots(folder: Path | None) -> tuple[Path, ...]:
    """Where images may lie that a table names instead of holding them: in its own folder, or in the hub's caches."""
    if folder is not None:
        return (folder,)
    from datasets import config  # pyright: ignore[reportAttributeAccessIssue]
    from huggingface_hub import constants

    places = (config.HF_CACHE_HOME, config.HF_DATASETS_CACHE, constants.HF_HUB_CACHE)
    return tuple(Path(place) for place in places)


def open_splits(splits: Mapping[str, Any], name: str, folder: Path | None = None) -> Stored:
    """Finds the training and test split, the image and the label column.

    Args:
        splits: of the loaded data set.
        name: for messages.
        folder: where it lies; None for the hub.

    The test part is the first of ``test, validation, valid, val, dev`` whose images have labels.

    Raises:
        UserError: a split or column is missing, or labels are out of range.
    """
    if "train" not in splits:
        raise UserError(f"data set '{name}' has no split 'train' (it has: {', '.join(splits)})")
    features = splits["train"].features
    image, label = image_column(features, name), label_column(features, name)
    roots = image_roots(folder)
    train = TableRows(splits["train"], image, label, f"'{name}' split 'train'", roots)
    classes = _classes(features[label], train.labels, name)
    check_labels(train.labels, len(classes), f"'{name}' split 'train'")
    for key in TEST_SPLITS:
        if key in splits and image in splits[key].features and label in splits[key].features:
            test = TableRows(splits[key], image, label, f"'{name}' split '{key}'", roots)
            # ImageNet's test split is published without labels, as -1.
            if bool((test.labels == -1).all()):
                continue
            _check_names(features[label], splits[key].features[label], name, key)
            check_labels(test.labels, len(classes), f"'{name}' split '{key}'")
            return Stored(name, classes, train, test)
    raise UserError(
        f"data set '{name}' has no test split with labels (it has: {', '.join(splits)}; accepted: "
        f"{', '.join(TEST_SPLITS)}); a folder of pictures is laid out as train/CLASS/... and test/CLASS/..."
    )


def _check_names(train: Any, test: Any, name: str, split: str) -> None:
    """Refuses splits whose numbers stand for other classes, as they do where each split was encoded by itself."""
    ours, theirs = getattr(train, "names", None), getattr(test, "names", None)
    if ours and theirs and list(ours) != list(theirs):
        number = next(i for i, pair in enumerate(zip_longest(ours, theirs)) if pair[0] != pair[1])
        said = [f"'{names[number]}'" if number < len(names) else "none" for names in (ours, theirs)]
        raise UserError(
            f"data set '{name}' numbers its classes differently: {number} is {said[0]} in split 'train', {said[1]} in "
            f"'{split}'; encode both with the same ClassLabel (Dataset.cast_column)"
        )


def check_labels(labels: Tensor, classes: int, where: str) -> None:
    """Refuses labels outside ``0 .. classes - 1``."""
    wrong = ((labels < 0) | (labels >= classes)).nonzero().flatten()
    if len(wrong):
        row = int(wrong[0])
        raise UserError(
            f"row {row} of {where} has label {int(labels[row])}; labels must lie in 0 .. {classes - 1} "
            f"({len(wrong)} rows do not)"
        )


def fingerprint(splits: Mapping[str, Any]) -> list[str]:
    """What tells one version of a loaded data set from another: its files on disk and their sizes."""
    files = (Path(entry["filename"]) for split in splits.values() for entry in split.cache_files)
    return sorted(f"{file}:{file.stat().st_size}" for file in files)


def _splits(loaded: Any) -> Mapping[str, Any]:
    if not isinstance(loaded, Mapping):
        raise ValueError("a single table without splits")
    return loaded


def image_column(features: Mapping[str, Any], name: str) -> str:
    """The first column of images; a UserError where there is none."""
    from datasets import Image

    found = [column for column, feature in features.items() if isinstance(feature, Image)]
    if not found:
        raise UserError(f"data set '{name}' has no image column (its columns: {_listed(features)})")
    return found[0]


def label_column(features: Mapping[str, Any], name: str) -> str:
    """The column of class numbers, by its name or its type; a UserError where there is none, or more than one."""
    from datasets import ClassLabel, Value

    named = [column for column, feature in features.items() if isinstance(feature, ClassLabel)]
    whole = [
        column
        for column, feature in features.items()
        if isinstance(feature, Value) and feature.dtype.startswith(("int", "uint"))
    ]
    for column in LABEL_NAMES:
        if column in named or column in whole:
            return column
    if named:
        return named[0]
    if len(whole) == 1:
        return whole[0]
    raise UserError(
        f"data set '{name}' has no label column of whole numbers named {', '.join(LABEL_NAMES)} "
        f"(its columns: {_listed(features)})"
    )


def _listed(features: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{column}: {getattr(feature, 'dtype', type(feature).__name__)}" for column, feature in features.items()
    )


def _labels(split: Any, label: str, where: str) -> Tensor:
    import numpy as np

    values = np.asarray(split.select_columns([label]).with_format("numpy")[:][label])
    if values.dtype.kind not in "iu":
        raise UserError(f"column '{label}' of {where} has rows without a label; remove them")
    return torch.from_numpy(values.astype(np.int64))


def _classes(feature: Any, labels: Tensor, name: str) -> tuple[str, ...]:
    """Class names; plain whole numbers are their own names."""
    if getattr(feature, "names", None):
        return tuple(feature.names)
    if len(labels) == 0:
        raise UserError(f"data set '{name}' has no training images")
    # More classes than images: numbers such as identities, and a name for each would fill the memory.
    if int(labels.max()) >= len(labels):
        raise UserError(
            f"data set '{name}' has {len(labels)} training images and labels up to {int(labels.max())}; number its "
            "classes from 0"
        )
    return tuple(str(number) for number in range(int(labels.max()) + 1))
