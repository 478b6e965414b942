"""Encoded images as they lie on disk, whoever wrote them."""

from dataclasses import dataclass
from io import BytesIO
from typing import Protocol

from torch import Tensor


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
