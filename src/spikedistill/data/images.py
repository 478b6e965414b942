"""Image data sets on disk or on the hub, opened in memory or as a stream."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from spikedistill.data.cache import Decoded, cache_file, folder_stamp, read_cache, write_cache
from spikedistill.data.decode import DecodedItems, Decodes, choose_decoder, decode
from spikedistill.data.folders import is_image_folder, open_folder
from spikedistill.data.hub import fingerprint, load_folder, load_hub, open_splits
from spikedistill.data.rows import Rows, Stored
from spikedistill.data.sets import ImageSet, Source, StreamSet, select
from spikedistill.data.settings import DataSettings
from spikedistill.data.split import stratified_subset
from spikedistill.errors import UserError

IN_MEMORY_BYTES = 2 * 2**30
# A selection this small is decoded alone: a smoke run must not wait for a whole data set.
SMALL_SHARE = 0.25
# The test subset is the same for every run, or runs with different seeds would not compare.
TEST_SUBSET_SEED = 0


@dataclass(frozen=True)
class Opened:
    """The images a run uses, before the validation part is taken off.

    Attributes:
        name: for people.
        classes: class names in label order.
        train: training images.
        labels: their labels, ``[N]`` int64.
        test: test images.
    """

    name: str
    classes: tuple[str, ...]
    train: Source
    labels: Tensor
    test: Source


def open_images(settings: DataSettings, seed: int) -> Opened:
    """Opens ``settings.path``, or ``settings.name`` from the hub.

    Raises:
        UserError: whatever cannot be found or read.
    """
    name, stamp, load = _place(settings)

    def decoder(rows: Rows) -> Decodes:
        return choose_decoder(rows, settings.channels, settings.size, settings.resize)

    return open_stored(name, stamp, load, decoder, settings, seed)


def open_stored(
    name: str,
    stamp: list[str],
    load: Callable[[], Stored],
    decoder_for: Callable[[Rows], Decodes],
    settings: DataSettings,
    seed: int,
) -> Opened:
    """Opens what lies on disk: from the cache, decoded into memory, or to be decoded item by item.

    Args:
        name: for people.
        stamp: what tells this version, and how it is decoded, from others.
        load: lists what there is, nothing decoded.
        decoder_for: chooses how the items of a part are decoded, given the training part.
        settings: the recipe's ``data:`` section.
        seed: of the run.

    Raises:
        UserError: whatever cannot be found or read.
    """
    file = None
    if settings.in_memory is not False:
        resized = [f"resize:{settings.resize}"] if settings.resize else []
        file = cache_file(name, stamp + resized, settings.size, settings.channels)
        decoded = read_cache(file)
        if decoded is not None:
            return choose(name, decoded, settings, seed)
    stored = load()
    _check_classes(stored)
    decoder = decoder_for(stored.train)
    train, test = selected(stored.train.labels, stored.test.labels, settings, seed)
    if _streams(settings, decoder, len(train) + len(test)):
        return Opened(
            name,
            stored.classes,
            _stream(stored.train, train, decoder, stored, settings),
            stored.train.labels[train],
            _stream(stored.test, test, decoder, stored, settings),
        )
    total = len(stored.train.labels) + len(stored.test.labels)
    if file and len(train) + len(test) > SMALL_SHARE * total and _bytes(decoder, total) <= IN_MEMORY_BYTES:
        every = (torch.arange(len(stored.train.labels)), torch.arange(len(stored.test.labels)))
        whole = Decoded(stored.classes, *_decode(stored, *every, decoder))
        write_cache(file, whole)
        return choose(name, whole, settings, seed)
    train_images, test_images = _decode(stored, train, test, decoder)
    return Opened(name, stored.classes, train_images, train_images.labels, test_images)


def choose(name: str, decoded: Decoded, settings: DataSettings, seed: int) -> Opened:
    """Takes the subsets a run asks for out of a whole data set."""
    train, test = selected(decoded.train.labels, decoded.test.labels, settings, seed)
    return Opened(
        name,
        decoded.classes,
        select(decoded.train, train),
        decoded.train.labels[train],
        select(decoded.test, test),
    )


def selected(train: Tensor, test: Tensor, settings: DataSettings, seed: int) -> tuple[Tensor, Tensor]:
    """Returns the positions a run uses, given the labels ``[N]`` of both parts."""
    train_count = len(train) if settings.subset is None else settings.subset
    test_count = len(test) if settings.test_subset is None else settings.test_subset
    return (
        stratified_subset(train, train_count, seed),
        stratified_subset(test, test_count, TEST_SUBSET_SEED, purpose="test"),
    )


def _place(settings: DataSettings) -> tuple[str, list[str], Callable[[], Stored]]:
    """Returns a name for people, what tells this version from others, and how to open it."""
    if settings.path is None:
        splits = load_hub(settings.name)
        return settings.name, fingerprint(splits), lambda: open_splits(splits, settings.name)
    path = Path(settings.path).expanduser()
    if not path.is_dir():
        raise UserError(f"data.path '{settings.path}' is not a folder; pass the folder of a local data set")
    stamp = [] if settings.in_memory is False else folder_stamp(path)
    name = path.resolve().name
    if is_image_folder(path):
        return name, stamp, lambda: open_folder(path)
    return name, stamp, lambda: open_splits(load_folder(path), name, path)


def _check_classes(stored: Stored) -> None:
    counts = torch.bincount(stored.train.labels, minlength=len(stored.classes))
    empty = [stored.classes[number] for number in (counts == 0).nonzero().flatten().tolist()]
    if empty:
        raise UserError(f"data set '{stored.name}' has no training image of class {', '.join(map(repr, empty[:5]))}")
    if len(stored.test.labels) == 0:
        raise UserError(f"data set '{stored.name}' has no test images")


def _bytes(decoder: Decodes, images: int) -> int:
    return images * math.prod(decoder.shape)


def _streams(settings: DataSettings, decoder: Decodes, images: int) -> bool:
    if settings.in_memory is None:
        return _bytes(decoder, images) > IN_MEMORY_BYTES
    return not settings.in_memory


def _stream(rows: Rows, indices: Tensor, decoder: Decodes, stored: Stored, settings: DataSettings) -> StreamSet:
    items = DecodedItems(rows, decoder)
    return StreamSet(items, indices, settings.workers, False, decoder.shape, len(stored.classes))


def _decode(stored: Stored, train: Tensor, test: Tensor, decoder: Decodes) -> tuple[ImageSet, ImageSet]:
    return (
        ImageSet(decode(stored.train, train.tolist(), decoder, "training images"), stored.train.labels[train]),
        ImageSet(decode(stored.test, test.tolist(), decoder, "test images"), stored.test.labels[test]),
    )
