"""Opens a data set as a stream of shards: ``data.streaming``."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikedistill.data.confined import check_confined
from spikedistill.data.decode import choose_decoder
from spikedistill.data.hub import TEST_SPLITS, check_parquet, image_column, image_roots, label_column
from spikedistill.data.shards import EncodedRows, ShardSet
from spikedistill.errors import UserError, first_line

if TYPE_CHECKING:
    from spikedistill.data.settings import DataSettings

INSPECTED = 8
UNUSABLE = ("subset", "test_subset", "simulator")


def open_stream(settings: DataSettings) -> tuple[str, tuple[str, ...], ShardSet, ShardSet]:
    """Opens ``settings.path`` or ``settings.name`` as a stream.

    Returns:
        A name for people, the class names, the training and the test part.

    Raises:
        UserError: what a stream cannot do (subsets, a validation part), or a set without splits, class names or counts.
    """
    _check(settings)
    place = settings.path or settings.name
    splits, counts = _load(place)
    name = Path(place).expanduser().resolve().name if settings.path else settings.name
    if "train" not in splits:
        raise UserError(f"data set '{name}' has no split 'train' (it has: {', '.join(splits)})")
    features = splits["train"].features
    if features is None:
        raise UserError(f"data set '{name}' does not say which columns it has; leave data.streaming out")
    classes = tuple(getattr(features[label_column(features, name)], "names", None) or ())
    if not classes:
        raise UserError(f"data set '{name}' does not name its classes, which a stream needs; leave data.streaming out")
    test = _test_split(splits, name)
    train = _part(splits["train"], counts.get("train"), settings, name, "train", len(classes))
    return name, classes, train, _part(splits[test], counts.get(test), settings, name, test, len(classes), train)


def _test_split(splits: Mapping[str, Any], name: str) -> str:
    """The first test split whose images have labels, by its first rows: ImageNet's ``test`` is published without."""
    for key in TEST_SPLITS:
        if key not in splits or splits[key].features is None:
            continue
        label = label_column(splits[key].features, name)
        rows = _first_rows(splits[key].select_columns([label]), f"'{name}' split '{key}'")
        if any(row[label] != -1 for row in rows):
            return key
    raise UserError(
        f"data set '{name}' has no test split with labels (it has: {', '.join(splits)}; "
        f"accepted: {', '.join(TEST_SPLITS)})"
    )


def _first_rows(rows: Any, where: str) -> list[Any]:
    try:
        return list(islice(rows, INSPECTED))
    except Exception as error:  # see _load
        raise UserError(f"{where} cannot be read ({first_line(error)}); copy it again") from error


def _check(settings: DataSettings) -> None:
    for key in UNUSABLE:
        if getattr(settings, key) is not None:
            raise UserError(f"data.{key} needs a set that can be indexed; leave it or data.streaming out")
    if settings.validation:
        raise UserError("data.validation needs a set that can be indexed; set it to 0, or leave data.streaming out")
    if settings.in_memory:
        raise UserError("data.in_memory and data.streaming exclude each other; leave one of them out")


def _load(place: str) -> tuple[Mapping[str, Any], dict[str, int]]:
    """The splits, and the number of rows of each where it is known."""
    import datasets

    folder = Path(place).expanduser()
    try:
        if folder.is_dir():
            check_confined(folder)
            check_parquet(folder)
            place = str(folder)
        builder = datasets.load_dataset_builder(place)
        splits: Any = builder.as_streaming_dataset()
    except UserError:
        raise
    # datasets has two dozen formats of its own, whose readers raise whatever they run into.
    except Exception as error:
        raise UserError(
            f"data set '{place}' cannot be streamed ({first_line(error)}); check data.name, data.path and the network"
        ) from error
    return splits, _counts(builder)


def _counts(builder: Any) -> dict[str, int]:
    from pyarrow.parquet import read_metadata

    known = {str(key): split.num_examples for key, split in (builder.info.splits or {}).items() if split.num_examples}
    for key, files in (builder.config.data_files or {}).items():
        if all(str(file).endswith(".parquet") and Path(file).is_file() for file in files):
            known[str(key)] = sum(read_metadata(file).num_rows for file in files)
    return known


def _part(
    rows: Any,
    count: int | None,
    settings: DataSettings,
    name: str,
    split: str,
    classes: int,
    like: ShardSet | None = None,
) -> ShardSet:
    from datasets import Image

    if not count:
        raise UserError(f"nobody knows how many rows '{name}' split '{split}' has; leave data.streaming out")
    image, label = image_column(rows.features, name), label_column(rows.features, name)
    rows = rows.select_columns([image, label]).cast_column(image, Image(decode=False))
    where = f"'{name}' split '{split}'"
    roots = image_roots(Path(settings.path).expanduser() if settings.path else None)
    first = EncodedRows(_first_rows(rows, where), image, where, roots)
    decoder = like.decoder if like else choose_decoder(first, settings.channels, settings.size, settings.resize)
    return ShardSet(
        rows,
        image,
        label,
        where,
        count,
        decoder,
        settings.workers,
        settings.buffer,
        tuple(decoder.shape),
        classes,
        roots,
    )
