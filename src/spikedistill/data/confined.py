"""Folders of data sets whose own files say where the rest lies: only in the folder itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spikedistill.documents import CHARACTERS, parse_yaml, read_json, read_text
from spikedistill.errors import UserError

CARDS = ("README.md", ".huggingface.yaml")
"""Whose ``configs`` datasets follows anywhere: to other folders and over the network."""


def check_confined(folder: Path) -> None:
    """Refuses a folder whose card, or whose saved table, names files that lie elsewhere.

    Raises:
        UserError: names the file and what it names.
    """
    for name in CARDS:
        if (folder / name).is_file():
            _check(_card(folder / name), folder / name)
    table = folder / "dataset_dict.json"
    if not table.is_file():
        return
    content = read_json(table, f"'{table}'")
    splits = content.get("splits") if isinstance(content, dict) else None
    if not isinstance(splits, list) or not all(isinstance(split, str) for split in splits):
        raise UserError(f"'{table}' does not list its splits; save the table again")
    _check(splits, table)
    for split in splits:
        state = folder / split / "state.json"
        if state.is_file():
            _check(read_json(state, f"'{state}'"), state)


def _card(file: Path) -> Any:
    """What a card says about where data lie; None where it says nothing."""
    text = read_text(file, f"'{file}'", CHARACTERS)
    if file.suffix == ".md":
        start, _, rest = text.partition("---")
        text = rest.partition("\n---")[0] if not start.strip() else ""
    if "data_files" not in text and "data_dir" not in text:
        return None
    content = parse_yaml(text, f"'{file}'")
    return content.get("configs") if isinstance(content, dict) else None


def _check(content: Any, file: Path) -> None:
    for text in _texts(content):
        if "://" in text or os.path.isabs(text) or text.startswith("~") or ".." in Path(text).parts:
            raise UserError(f"'{file}' names '{text[:200]}', which lies outside its folder; copy the data there")


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict | list):
        for item in content.values() if isinstance(content, dict) else content:
            yield from _texts(item)
