"""Image folders: ``train/<class>/<image>`` beside ``test/``, ``validation/``, ``val/`` or ``valid/``."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor

from spikedistill.data.rows import Stored
from spikedistill.errors import UserError

TEST_NAMES = ("test", "validation", "val", "valid")
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class FileRows:
    """Files with their labels; ``noun`` says what they are."""

    files: Sequence[str]
    labels: Tensor
    noun: str = "image"

    def encoded(self, row: int) -> str | BytesIO:
        """The file's path."""
        return self.files[row]

    def where(self, row: int) -> str:
        """The file's path."""
        return f"{self.noun} '{self.files[row]}'"


def is_image_folder(path: Path) -> bool:
    """Whether the folder has a ``train`` folder with class folders in it."""
    return bool(_class_folders(path / "train"))


def open_folder(path: Path) -> Stored:
    """Lists an image folder; classes are the folders in ``train``, in alphabetical order.

    Raises:
        UserError: no test part, a class without images, or a class that only the test part has.
    """
    train = _class_folders(path / "train")
    test_path = next((path / name for name in TEST_NAMES if _class_folders(path / name)), None)
    if test_path is None:
        raise UserError(f"image folder '{path}' has no test part; add {', '.join(TEST_NAMES)} with class folders in it")
    classes = tuple(folder.name for folder in train)
    test = _class_folders(test_path)
    for folder in test:
        if folder.name not in classes:
            raise UserError(f"'{folder}' is a class that '{path / 'train'}' does not have; remove it or add the class")
    return Stored(path.name, classes, _list(train, classes), _list(test, classes))


def _is_image(file: Path) -> bool:
    """Whether it is called like one, and not hidden: ``._cat.jpg``, ``.ipynb_checkpoints/cat.jpg``."""
    return file.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in file.parts)


def _class_folders(part: Path) -> list[Path]:
    if not part.is_dir():
        return []
    return sorted(entry for entry in part.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _list(folders: list[Path], classes: tuple[str, ...]) -> FileRows:
    files: list[str] = []
    numbers: list[int] = []
    for folder in folders:
        found = sorted(str(file) for file in folder.rglob("*") if _is_image(file.relative_to(folder)))
        if not found:
            raise UserError(f"class folder '{folder}' holds no image ({' '.join(SUFFIXES)}); fill or remove it")
        files += found
        numbers += [classes.index(folder.name)] * len(found)
    return FileRows(files, torch.tensor(numbers, dtype=torch.int64))
