"""Encoded images as they lie on disk, whoever wrote them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from spikedistill.errors import UserError


class Rows(Protocol):
    """One part of a stored data set, nothing decoded yet."""

    @property
    def labels(self) -> Tensor:
        """``[N]`` int64."""
        ...

    def encoded(self, row: int) -> str | BytesIO:
        """The image file's path or contents."""
        ...

    def where(self, row: int) -> str:
        """What to call the row in a message."""
        ...


def stored_image(value: dict[str, Any] | None, where: str, roots: Sequence[Path]) -> str | BytesIO:
    """What a table's image cell holds: the image file's contents, or its path where there is only that.

    Args:
        value: the cell, ``{"bytes": ..., "path": ...}``.
        where: what to call the row in a message.
        roots: folders in which such files may lie; a table from a stranger names others' files otherwise.

    Raises:
        UserError: an empty cell, or a file outside.
    """
    if value is None or (value.get("bytes") is None and value.get("path") is None):
        raise UserError(f"{where} has no image; remove the row")
    if value.get("bytes") is not None:
        return BytesIO(value["bytes"])
    path = str(value["path"])
    if not any(_inside(path, root) for root in roots):
        raise UserError(f"{where} names the file '{path}', which lies outside '{roots[0]}'; copy the images there")
    return path


def _inside(path: str, root: Path) -> bool:
    named = os.path.abspath(path), os.path.abspath(root)
    meant = os.path.realpath(path), os.path.realpath(root)
    return any(os.path.commonpath(pair) == pair[1] for pair in (named, meant))


@dataclass(frozen=True)
class Stored:
    """A data set on disk.

    Attributes:
        name: for people.
        classes: class names in label order.
        train: training part.
        test: test part.
    """

    name: str
    classes: tuple[str, ...]
    train: Rows
    test: Rows
