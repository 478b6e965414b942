"""A user's own torch data sets."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from numbers import Integral
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from spikedistill.data.augmentations import check_augmentations
from spikedistill.data.hub import check_labels
from spikedistill.data.opening import held_out
from spikedistill.data.reading import checked_item, read_batches
from spikedistill.data.seeds import seeded
from spikedistill.data.sets import Data, DataInfo, ImageSet, Indexed, StreamSet, select
from spikedistill.data.settings import check_share
from spikedistill.errors import UserError, printable

READING_BATCH = 256


def from_datasets(
    train: Dataset[Any],
    test: Dataset[Any],
    *,
    validation: float,
    seed: int,
    classes: int | Sequence[str] | None = None,
    workers: int = 0,
    augment: tuple[str, ...] = (),
) -> Data:
    """Takes a user's own map-style data sets of (image, label).

    Images are float ``[C, H, W]`` tensors (or sequences ``[T, C, H, W]``), normalised as the user likes, or uint8,
    which become [0, 1]; labels are whole numbers from 0. Items are read anew every epoch, so that random transforms go
    on happening; what they draw from the global generators of torch, numpy and random follows from the seed, the epoch
    and the item alone. A ``TensorDataset`` (or a ``Subset`` of one) is held in memory and indexed instead.

    The validation part is taken from ``train`` and so sees the same transforms as training.

    Args:
        train: training images.
        test: test images.
        validation: share of the training images held out, per class; 0 holds out none.
        seed: decides which.
        classes: number of classes or their names. None takes ``train.classes`` where there is one, else what the
            labels say.
        workers: reading processes.
        augment: augmentations on top of the user's own transforms.

    Raises:
        UserError: not map-style, empty, items that are not (image tensor, label), different shapes, labels out of
            range.
    """
    check_share(validation)
    check_augmentations(augment)
    shape = _first_shape(train, "train", augment)
    if _first_shape(test, "test", ()) != shape:
        raise UserError(f"test images have shape {_first_shape(test, 'test', ())} where training images have {shape}")
    names = _names(classes if classes is not None else getattr(train, "classes", None))
    if names is None and classes is not None:
        raise UserError(f"classes must be the number of classes or their names, not {printable(repr(classes))[:60]}")
    labels = _labels(train, workers) if names is None or validation > 0 else _cheap_labels(train)
    if names is None and labels is not None:
        names = _names_from_labels(labels)
    assert names is not None
    if labels is not None:
        check_labels(labels, len(names), "the training data set")
    test_labels = _cheap_labels(test)
    if test_labels is not None:
        check_labels(test_labels, len(names), "the test data set")
    source = _source(train, workers, shape, len(names))
    kept, held = (source, None) if labels is None else held_out(source, labels, validation, seed)
    return Data(as_they_come(names, shape), kept, held, _source(test, workers, shape, len(names)), augment)


def from_dataset(
    dataset: Dataset[Any], classes: Callable[[tuple[int, ...]], int], workers: int = 0
) -> tuple[DataInfo, Indexed]:
    """Takes one map-style data set, as ``from_datasets`` takes its two, to be measured on.

    Args:
        dataset: the images.
        classes: how many there are, given the shape of an item.
        workers: reading processes.

    Raises:
        UserError: as there.
    """
    shape = _first_shape(dataset, "test", ())
    count, labels = classes(shape), _cheap_labels(dataset)
    if labels is not None:
        check_labels(labels, count, "the test data set")
    return as_they_come(count, shape), _source(dataset, workers, shape, count)


def as_they_come(classes: int | Sequence[str], shape: tuple[int, ...]) -> DataInfo:
    """What is known of items that are left as they come: how many or which classes, and the shape of an item."""
    names = tuple(map(str, range(classes) if isinstance(classes, int) else classes))
    *steps, channels, height, width = shape
    constants = (0.0,) * channels, (1.0,) * channels
    return DataInfo("own", names, (channels, height, width), *constants, steps[0] if steps else None)


def _first_shape(dataset: Any, which: str, augment: tuple[str, ...]) -> tuple[int, ...]:
    """Checks the data set by its first item and returns its shape."""
    if isinstance(dataset, IterableDataset) or not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        raise UserError(
            f"the {which} data set is a {type(dataset).__name__}; it must be a map-style torch Dataset with len() and "
            "[index]"
        )
    if len(dataset) == 0:
        raise UserError(f"the {which} data set is empty")
    with seeded(0):
        image, _ = checked_item(dataset[0], f"item 0 of the {which} data set")
    low, high = float(image.min()), float(image.max())
    if image.dtype != torch.uint8 and (low < 0 or high > 1) and "autoaugment" in augment:
        raise UserError(
            f"augmentation 'autoaugment' needs images in [0, 1] and item 0 of the {which} data set lies in "
            f"[{low:.3g}, {high:.3g}]; leave out your own normalisation, or the augmentation"
        )
    return tuple(image.shape)


def _names(classes: Any) -> tuple[str, ...] | None:
    if isinstance(classes, Integral) and not isinstance(classes, bool):
        return tuple(str(number) for number in range(int(classes))) or None
    if isinstance(classes, Iterable) and not isinstance(classes, str | bytes | Mapping | set | frozenset):
        return tuple(str(name) for name in classes) or None
    return None


def _names_from_labels(labels: Tensor) -> tuple[str, ...]:
    last = int(labels.max())
    check_labels(labels, max(last + 1, 1), "the training data set")
    present = set(labels.unique().tolist())
    # Labels may be numbers such as identities, so many that a count of each would fill the memory.
    empty = list(islice((number for number in range(last + 1) if number not in present), 5))
    if empty:
        raise UserError(
            f"the training data set has labels up to {last} but none of {empty}; number the classes from 0, or pass "
            "classes="
        )
    return tuple(str(number) for number in range(last + 1))


def _source(dataset: Any, workers: int, shape: tuple[int, ...], classes: int) -> Indexed:
    if _is_tensors(dataset):
        images, labels = dataset.tensors
        return ImageSet(images if images.dtype == torch.uint8 else images.float(), labels.to(torch.int64).flatten())
    # Subclasses may read differently, so only these very classes are looked into.
    if type(dataset) is Subset:
        return select(_source(dataset.dataset, workers, shape, classes), torch.as_tensor(list(dataset.indices)))
    return StreamSet(dataset, torch.arange(len(dataset)), workers, True, shape, classes)


def _is_tensors(dataset: Any) -> bool:
    if type(dataset) is not TensorDataset or len(dataset.tensors) != 2:
        return False
    labels = dataset.tensors[1]
    return not labels.is_floating_point() and labels.numel() == len(dataset)  # [N], or [N, 1]


def _cheap_labels(dataset: Any) -> Tensor | None:
    """Returns all labels ``[N]`` where that takes no reading of images, else None."""
    if _is_tensors(dataset):
        return dataset.tensors[1].to(torch.int64).flatten().cpu()
    if type(dataset) is Subset:
        inner = _cheap_labels(dataset.dataset)
        return None if inner is None else inner[torch.as_tensor(list(dataset.indices))]
    return _targets(dataset)


def _targets(dataset: Any) -> Tensor | None:
    """Returns ``dataset.targets`` (torchvision's habit) where it agrees with the items themselves."""
    try:
        labels = torch.as_tensor(dataset.targets).to(torch.int64)
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return None
    if labels.shape != (len(dataset),):
        return None
    for index in {0, len(dataset) // 2, len(dataset) - 1}:
        with seeded(0):
            _, label = checked_item(dataset[index], f"item {index} of the data set")
        # A target_transform may have renumbered them.
        if label != int(labels[index]):
            return None
    return labels


def _labels(dataset: Any, workers: int) -> Tensor:
    """Returns all labels ``[N]``; where they are not at hand, every item is read once."""
    labels = _cheap_labels(dataset)
    if labels is not None:
        return labels
    with seeded(0):
        image, _ = checked_item(dataset[0], "item 0 of the training data set")
    everything = StreamSet(dataset, torch.arange(len(dataset)), workers, True, tuple(image.shape), 2**31)
    parts = torch.arange(len(dataset)).split(READING_BATCH)
    return torch.cat([labels for _, labels in read_batches(everything, parts, seed=0, epoch=0)])
