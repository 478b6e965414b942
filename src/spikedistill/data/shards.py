"""Data sets too large to be indexed: read from their beginning, shard by shard (Hugging Face ``IterableDataset``).

Nothing is converted or copied beforehand. An epoch's order is the data set's own shuffle: the shards in a new order,
and of their rows one drawn at random out of a buffer. It follows from the seed, the epoch, and the numbers of training
and of reading processes: unlike the order of a set that can be indexed, it changes with those two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from inspect import signature
from io import BytesIO
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from spikedistill.data.decode import Decodes
from spikedistill.data.rows import stored_image
from spikedistill.data.seeds import generator, seed_of, seeded
from spikedistill.errors import UserError, first_line

CHUNK = 32
"""Rows that a reading process hands over at once."""


@dataclass(frozen=True)
class EncodedRows:
    """A few rows of a stream, encoded as they came."""

    rows: Sequence[dict[str, Any]]
    image: str
    name: str
    roots: Sequence[Path]

    @property
    def labels(self) -> Tensor:
        """As many as there are rows; what they are is not looked at."""
        return torch.zeros(len(self.rows), dtype=torch.int64)

    def encoded(self, row: int) -> str | BytesIO:
        """The image file's contents, or its path."""
        return stored_image(self.rows[row][self.image], self.where(row), self.roots)

    def where(self, row: int) -> str:
        """The data set; rows of a stream have no numbers."""
        path = (self.rows[row][self.image] or {}).get("path")
        return f"a row of {self.name}" + (f" ('{Path(path).name}')" if path else "")


@dataclass(frozen=True)
class ShardSet:
    """A part that can only be read from its beginning.

    Attributes:
        rows: the Hugging Face ``IterableDataset``, images not decoded.
        image: its image column.
        label: its label column.
        name: for messages.
        count: number of rows.
        decoder: from an encoded row to an image.
        workers: reading processes; 0 reads in the training process.
        buffer: rows out of which the next is drawn.
        shape: ``(C, H, W)`` of every image.
        classes: number of classes, every label lies below it.
        roots: where images may lie that a row names instead of holding them.
        random: whether decoding draws random numbers, from the global generators.
    """

    rows: Any
    image: str
    label: str
    name: str
    count: int
    decoder: Decodes
    workers: int
    buffer: int
    shape: tuple[int, ...]
    classes: int
    roots: tuple[Path, ...] = ()
    random: bool = False

    def __len__(self) -> int:
        return self.count


@dataclass(frozen=True)
class Reading:
    """How an epoch is read.

    Attributes:
        seed, epoch: decide on the order.
        shuffle: whether there is one; else the set's own.
        rank, world_size: which of how many training processes this is.
        skip: rows to leave out at the beginning, for an epoch taken up in the middle.
    """

    seed: int
    epoch: int
    shuffle: bool
    rank: int = 0
    world_size: int = 1
    skip: int = 0


def read_shards(
    source: ShardSet, sizes: Sequence[int], reading: Reading, pinned: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Reads batches of the given sizes.

    Training processes get shards of their own where they divide evenly, else every n-th row. One whose rows come to an
    end before the others' starts again from its first: each has as many batches as the others.

    Yields:
        Images ``[B, C, H, W]`` uint8, labels ``[B]`` int64, on the CPU.

    Raises:
        UserError: an image that cannot be read, or a label out of range.
    """
    items = _endless(source, reading)
    for size in sizes:
        images = torch.empty(size, *source.shape, dtype=torch.uint8, pin_memory=pinned)
        labels = torch.empty(size, dtype=torch.int64)
        for place in range(size):
            images[place], labels[place] = next(items)
        yield images, labels


def _endless(source: ShardSet, reading: Reading) -> Iterator[tuple[Tensor, Tensor]]:
    skip = reading.skip
    while True:
        found = False
        for chunk in _chunks(source, reading, skip):
            # An exception in a worker would arrive with its traceback; a refusal travels as data.
            if isinstance(chunk, str):
                raise UserError(chunk)
            found = True
            if isinstance(chunk, int):
                skip -= chunk
                continue
            images, labels = chunk
            first = min(skip, len(labels))
            skip -= first
            yield from zip(images[first:], labels[first:], strict=True)
        if not found:
            raise UserError(
                f"process {reading.rank} of {reading.world_size} finds no rows in {source.name}; use fewer processes"
            )


def _chunks(source: ShardSet, reading: Reading, skip: int) -> Any:
    from datasets.distributed import split_dataset_by_node

    rows = source.rows
    if reading.shuffle:
        rows = rows.shuffle(seed=seed_of(reading.seed, "order") % 2**32, buffer_size=source.buffer, **_one_by_one(rows))
        rows.set_epoch(reading.epoch)
    if reading.world_size > 1:
        rows = split_dataset_by_node(rows, reading.rank, reading.world_size)
    workers = min(source.workers, rows.num_shards)
    return DataLoader(
        # Chunks come in turn from each process, so these many of each lie wholly in what is skipped.
        _Decoding(source, rows, skip // (CHUNK * max(1, workers)), reading),
        batch_size=None,
        num_workers=workers,
        generator=generator(reading.seed, "workers", reading.epoch),
    )


def _one_by_one(rows: Any) -> dict[str, int]:
    # datasets 5 would otherwise fill the buffer from ten shards in threads and wait seconds for them to end.
    option = "max_buffer_input_shards"
    return {option: 1} if option in signature(rows.shuffle).parameters else {}


class _Decoding(IterableDataset[Any]):
    """Decodes a stream's rows; within a worker, those that fall to it. Of skipped chunks it yields only the length."""

    def __init__(self, source: ShardSet, rows: Any, skipped: int, reading: Reading) -> None:
        self._source, self._rows, self._skipped, self._reading = source, rows, skipped, reading

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor] | int | str]:
        rows = iter(self._rows)
        try:
            for number in count():
                chunk = self._read(rows)
                if not chunk:
                    return
                yield len(chunk) if number < self._skipped else self._decoded(chunk, number)
        except UserError as error:
            yield str(error)

    def _read(self, rows: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
        try:
            return list(islice(rows, CHUNK))
        except Exception as error:  # of datasets' readers, which raise whatever they run into
            raise UserError(f"{self._source.name} cannot be read on ({first_line(error)}); copy it again") from error

    def _decoded(self, rows: list[dict[str, Any]], number: int) -> tuple[Tensor, Tensor]:
        source, reading = self._source, self._reading
        encoded = EncodedRows(rows, source.image, source.name, source.roots)
        worker = get_worker_info()
        place = (reading.seed, "item", reading.epoch, reading.rank, worker.id if worker else 0, number)
        with seeded(seed_of(*place)) if source.random else nullcontext():
            images = torch.stack([source.decoder(encoded, row) for row in range(len(rows))])
        return images, torch.tensor([self._label(row[source.label]) for row in rows])

    def _label(self, label: Any) -> int:
        if not isinstance(label, int) or not 0 <= label < self._source.classes:
            raise UserError(
                f"a row of {self._source.name} has label {label}; labels must lie in 0 .. {self._source.classes - 1}"
            )
        return label
