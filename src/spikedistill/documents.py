"""YAML and JSON that anybody may have written: plain values within bounds, or one sentence.

No tag makes an object, and nothing that is short to write is long to read: a document has at most a million characters
(JSON: 256 million, for the matrices in it), 100,000 values with every alias counted as often as it stands there, and
64 levels.
"""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikedistill.errors import UserError, first_line

if TYPE_CHECKING:
    import yaml

CHARACTERS, JSON_CHARACTERS, VALUES, LEVELS = 10**6, 2**28, 10**5, 64
WHOLE = 2**63 - 1
PLAIN = (str, int, float, bool, type(None))


def parse_yaml(text: str, source: str) -> Any:
    """A YAML document as dicts with text for keys, lists, texts, finite numbers, booleans and None.

    Args:
        text: the document.
        source: what to call it, such as ``recipe 'x.yaml'``.

    Raises:
        UserError: not YAML, or not plain, or out of bounds, or a key stands twice in one section.
    """
    import yaml

    if len(text) > CHARACTERS:
        raise UserError(f"{source} has {len(text):,} characters; such a file has at most {CHARACTERS:,}")
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        _keys_once(node, source)
        content = None if node is None else loader.construct_document(node)
    # Some of PyYAML's own constructors fail with these on what they were not made for.
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError) as error:
        raise UserError(f"{source} is not valid YAML: {_where(error)}") from None
    except RecursionError:
        raise UserError(f"{source} is nested too deeply") from None
    _check(content, source)
    return content


def read_yaml(path: Path, source: str) -> Any:
    """``parse_yaml`` of a file.

    Raises:
        UserError: it cannot be read, or see there.
    """
    return parse_yaml(read_text(path, source, CHARACTERS), source)


def read_json(path: Path, source: str) -> Any:
    """A JSON document.

    Raises:
        UserError: the file cannot be read or is not JSON.
    """
    text = read_text(path, source, JSON_CHARACTERS)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source} cannot be read as JSON: {first_line(error)}") from None


def read_text(path: Path, source: str, most: int) -> str:
    """A text file of at most ``most`` bytes.

    Raises:
        UserError: it cannot be read, is too large, is not UTF-8, or is no file: a pipe or a device may have no end.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{source} is not a file")
        if status.st_size > most:
            raise UserError(f"{source} has {status.st_size:,} bytes; such a file has at most {most:,}")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{source} is not a text file in UTF-8") from None
    except OSError as error:
        raise UserError(f"{source} cannot be read: {error.strerror}") from None


def is_path(text: str) -> bool:
    """Whether a file could be called so: one that is too long, or holds what no name may, is none's."""
    try:
        return all(len(part) <= 255 for part in os.fsencode(text).split(b"/")) and len(text) < 4000 and "\0" not in text
    except ValueError:  # half of a character
        return False


def _where(error: Exception) -> str:
    """What a parser found, and in which line."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or not problem:
        return first_line(error)
    return f"{problem} (line {mark.line + 1}, column {mark.column + 1})"


def _keys_once(root: yaml.Node | None, source: str) -> None:
    """YAML wants each key of a mapping once; PyYAML takes the last of two without a word."""
    import yaml

    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            waiting += [value for _, value in node.value]
            lines: dict[str, int] = {}
            for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
                line = key.start_mark.line + 1
                if key.value in lines:
                    where = f"lines {lines[key.value]} and {line}"
                    raise UserError(f"{source} has the key '{key.value[:60]}' twice in one section: {where}")
                lines[key.value] = line


def _check(content: Any, source: str) -> None:
    # By hand and not by recursion: an alias may point to what it stands in.
    left, waiting = VALUES, [(content, 0)]
    while waiting:
        value, level = waiting.pop()
        left -= 1
        if left < 0:
            raise UserError(f"{source} holds more than {VALUES:,} values, aliases counted")
        if level > LEVELS:
            raise UserError(f"{source} is nested more than {LEVELS} levels deep")
        if isinstance(value, dict):
            for key in value:
                if not isinstance(key, str):
                    raise UserError(f"{source} has the key {_shown(key)}, which is no text; put it in quotes")
            waiting += [(item, level + 1) for item in value.values()]
        elif isinstance(value, list):
            waiting += [(item, level + 1) for item in value]
        elif not isinstance(value, PLAIN):
            raise UserError(
                f"{source} holds {_shown(value)}, a {type(value).__name__}; put it in quotes if it is a text"
            )
        elif isinstance(value, int) and abs(value) > WHOLE:
            raise UserError(f"{source} holds a whole number of {value.bit_length()} bits; at most 63 are read")
        elif isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{source} holds {value}, which is no finite number")


def _shown(value: Any) -> str:
    return repr(value)[:60]
