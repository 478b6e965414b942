"""Encoded images to uint8 arrays."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from torch import Tensor

from spikedistill.data.rows import Rows
from spikedistill.errors import UserError, shortened

if TYPE_CHECKING:
    from PIL.Image import Image

GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L")
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What is read, whatever a file is called; Pillow would start other programs for some of the rest (EPS)."""
PIXELS = 2**26
"""Of one image, at most: a file of a few kilobytes can claim any number."""
BROKEN = (OSError, SyntaxError, ValueError, EOFError)
INSPECTED = 64
REFUSED = 20
"""Images that cannot be used, after which no more are looked for."""
PIECE = 64
THREADS = min(8, os.cpu_count() or 1)
Item = TypeVar("Item")


@dataclass(frozen=True)
class Decoder:
    """How the images of a data set become arrays of one shape.

    Attributes:
        shape: ``(C, H, W)`` of every image; C is 1 or 3.
        size: side to crop to, or None.
        resize: what the shorter side is resized to before that, at least ``size``; None is ``size``.
        asked: whether the user chose the channels (then colour may be turned to grey without a word).
    """

    shape: tuple[int, int, int]
    size: int | None
    asked: bool
    resize: int | None = None

    @property
    def threads(self) -> int:
        """How many images are best decoded at once."""
        # Pillow lets go of the interpreter lock only inside its codecs; with tiny images threads just fight over it.
        tiny = self.size is None and self.shape[1] * self.shape[2] <= 64 * 64
        return 1 if tiny else THREADS

    def __call__(self, rows: Rows, row: int) -> Tensor:
        """Decodes one image to ``[C, H, W]`` uint8.

        Raises:
            UserError: an unreadable image, or one of another size or with colours where the others are grey.
        """
        fitted = fit(self.read(rows, row), self.size, self.resize)
        if (fitted.height, fitted.width) != self.shape[1:]:
            raise UserError(
                f"{rows.where(row)} has {fitted.width} x {fitted.height} pixels where the first image has "
                f"{self.shape[2]} x {self.shape[1]}; set data.size to bring them to one size"
            )
        return as_array(fitted)

    def read(self, rows: Rows, row: int) -> "Image":
        """The whole picture, grey or in colour as all of the set are.

        Raises:
            UserError: an unreadable image, or one with colours where the others are grey.
        """
        image = open_image(rows, row)
        grey = self.shape[0] == 1
        if grey and not self.asked and image.mode not in GREY_MODES:
            raise UserError(
                f"{rows.where(row)} is a colour image ({image.mode}) among grey ones; set data.channels to 1 or 3"
            )
        try:
            return convert(image, grey)
        except ValueError as error:
            raise UserError(
                f"{rows.where(row)} is of mode {image.mode} and cannot be converted ({error}); save it as RGB or grey"
            ) from error


class Decodes(Protocol):
    """What makes arrays of one shape of a part's stored rows: of images, or of recordings."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def threads(self) -> int: ...

    def __call__(self, rows: Rows, row: int, /) -> Tensor: ...


@dataclass(frozen=True)
class DecodedItems:
    """A stored part as ``(image, label)`` items, decoded when asked for."""

    rows: Rows
    decoder: Decodes

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.decoder(self.rows, index), int(self.rows.labels[index])


def as_array(image: "Image") -> Tensor:
    """``[C, H, W]`` uint8 of a grey image or one in colour."""
    import numpy as np

    array = np.asarray(image)
    return torch.from_numpy(array[None].copy() if array.ndim == 2 else array.transpose(2, 0, 1).copy())


def choose_decoder(rows: Rows, channels: int | None, size: int | None, resize: int | None = None) -> Decoder:
    """Decides on one shape from the first image, and on colour from up to 64 images spread over the part."""
    opened = _readable(rows, range(0, len(rows.labels), max(1, len(rows.labels) // INSPECTED)))
    first = fit(next(opened), size)
    if channels is None:
        is_grey = all(image.mode in GREY_MODES for image in chain([first], opened))
        return Decoder((1 if is_grey else 3, first.height, first.width), size, False, resize)
    return Decoder((channels, first.height, first.width), size, True, resize)


def _readable(rows: Rows, inspected: Sequence[int]) -> "Iterator[Image]":
    """Those of some images that can be read; which cannot is said by who decodes them all.

    Raises:
        UserError: none of them.
    """
    refusal, found = None, False
    for row in inspected:
        try:
            image = open_image(rows, row)
        except UserError as error:
            refusal = refusal or error
            continue
        found = True
        yield image
    if refusal and not found:
        raise refusal


def decode(rows: Rows, indices: Sequence[int], decoder: Decodes, title: str) -> Tensor:
    """Decodes rows to ``[N, *decoder.shape]`` uint8, large images in threads, with a progress bar on a terminal.

    Raises:
        UserError: names the first images that cannot be read, or are of another shape.
    """
    from concurrent.futures import ThreadPoolExecutor

    images = torch.empty(len(indices), *decoder.shape, dtype=torch.uint8)
    refused: dict[int, UserError] = {}

    def decode_piece(first: int) -> None:
        for position in range(first, min(first + PIECE, len(indices))):
            if len(refused) >= REFUSED:  # these are not single broken files
                return
            try:
                images[position] = decoder(rows, indices[position])
            except UserError as error:
                refused[position] = error

    with ThreadPoolExecutor(decoder.threads) as pool:
        pieces = range(0, len(indices), PIECE)
        for _ in progress(pool.map(decode_piece, pieces), f"decoding {title}", len(pieces)):
            pass
    if refused:
        first, *others = sorted(refused)
        more = shortened([rows.where(indices[position]) for position in others])
        least = "at least " if len(refused) >= REFUSED else ""
        raise UserError(f"{refused[first]}{more and f'; {least}{len(others)} more cannot be used: {more}'}")
    return images


def progress(steps: Iterable[Item], title: str, count: int) -> Iterator[Item]:
    """Goes through ``steps`` with a progress bar on a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(steps, title, count, console=console, transient=True, disable=not console.is_terminal)


def open_image(rows: Rows, row: int) -> "Image":
    """Opens and reads one image, turned upright.

    Raises:
        UserError: the file is missing, cut off, far too large, no image, or one of real numbers.
    """
    import struct

    from PIL import Image, ImageOps
    from PIL.ExifTags import Base

    try:
        stored = rows.encoded(row)
        if isinstance(stored, str) and os.path.exists(stored) and not os.path.isfile(stored):
            raise ValueError("not a file")  # a pipe would be waited for
        with Image.open(stored, formats=FORMATS) as image:
            if image.width * image.height > PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels; at most {PIXELS:,} are read")
            image.load()
            turned = image.getexif().get(Base.Orientation) is not None
            upright = ImageOps.exif_transpose(image) if turned else image
    # Pillow's decoders raise all of these on broken files.
    except (*BROKEN, struct.error, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"{rows.where(row)} cannot be read as an image ({error}); replace or remove it") from error
    if upright.mode == "F":
        raise UserError(
            f"{rows.where(row)} holds real numbers (mode F) and does not say which is white; save it with 8 or 16 bits"
        )
    return upright


def convert(image: "Image", grey: bool) -> "Image":
    """Brings any of Pillow's modes to L or RGB; transparency is dropped."""
    if image.mode.startswith("I;16"):
        # Pillow clips 16-bit grey at 255 where it should be scaled.
        image = image.convert("I")
    if image.mode == "I":
        image = image.point(lambda value: value * (1 / 257)).convert("L")
    mode = "L" if grey else "RGB"
    return image if image.mode == mode else image.convert(mode)


def fit(image: "Image", size: int | None, resize: int | None = None) -> Any:
    """Resizes the shorter side to ``resize`` (bilinear, antialiased) and cuts out the middle square of ``size``."""
    if size is None:
        return image
    resize = resize or size
    if image.size == (resize, resize) == (size, size):
        return image
    from PIL.Image import Resampling

    shorter = min(image.size)
    width, height = (max(resize, round(side * resize / shorter)) for side in image.size)
    image = image.resize((width, height), Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))
