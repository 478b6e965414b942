"""The section of an experiment: its tables beside the published ones, and its pictures.

An experiment's folder holds its runs and an ``experiment.json``; a page about any of these runs shows it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

from spikedistill.documents import read_json
from spikedistill.errors import UserError
from spikedistill.report.contents import Part, Report
from spikedistill.report.runs import Run

RECORD = "experiment.json"
_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}
_MARKS = {".svg": b"<svg", ".png": b"\x89PNG"}
"""What stands at the beginning of such a file."""
_PUBLISHED = "published"


def experiments(report: Report) -> Part | None:
    """Every experiment that the runs belong to."""
    found = [_drawn(folder) for folder in _folders(report.runs)]
    intro = (
        "The paper's experiment: figures of these runs beside the published ones, which are of the paper's size and "
        "data. Accuracies are of the last epoch on the test images unless a table says otherwise."
    )
    return Part(intro, "".join(found)) if found else None


def _folders(runs: Iterable[Run]) -> list[Path]:
    parents = [run.path.resolve().parent for run in runs]
    # Among committed results the runs lie a folder deeper.
    places = dict.fromkeys(place for parent in parents for place in (parent, parent.parent) if _holds(place, parent))
    return list(places)


def _holds(place: Path, parent: Path) -> bool:
    return (place == parent or parent.name == "runs") and (place / RECORD).is_file()


def _drawn(folder: Path) -> str:
    file = folder / RECORD
    content = read_json(file, f"'{file}'")
    with as_written(file):
        about = " ".join(filter(None, (f"{content['source']}.", content["about"])))
        body = f"<h3>{escape(content['title'])}</h3><p>{escape(about)}</p>"
        body += "".join(_table(table) for table in content["tables"])
        body += "".join(_picture(folder, picture) for picture in content["pictures"])
        body += "".join(f'<p class="note missing">{escape(note)}</p>' for note in content["notes"])
        body += f"<pre><code>{escape(content['command'])}</code></pre>"
        return f'<div class="experiment">{body}<p class="note">{escape(provenance(content))}</p></div>'


@contextmanager
def as_written(file: Path) -> Iterator[None]:
    """Refuses a record that is not what the command ``experiment`` writes, found out while it is used.

    Raises:
        UserError: names the file and the fault.
    """
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as fault:
        raise UserError(f"'{file}' is not what the command experiment writes ({fault!r})"[:500]) from fault


def provenance(content: dict[str, Any]) -> str:
    """How many runs, which seeds, where and with which versions, of an experiment's record."""
    runs = content["runs"]
    commits = " / ".join(commit[:10] for commit in content["commit"])
    images = " / ".join(f"{count:,}" for count in content.get("test_images", []))
    return (
        f"{runs['finished']} of {runs['planned']} runs, seeds {' '.join(map(str, content['seeds']))}, "
        f"{f'{images} test images, ' if images else ''}device "
        f"{' / '.join(content['device'])}, torch {' / '.join(content['torch'])}, commit {commits}"
    )


def _table(table: dict[str, Any]) -> str:
    heads = [str(head) for head in table["heads"]]
    kinds = [("theirs " if head == _PUBLISHED else "") + "num" for head in heads]
    head = f'<th scope="col">{escape(heads[0])}</th>'
    head += "".join(
        f'<th scope="col" class="{kind}">{escape(text)}</th>' for text, kind in zip(heads[1:], kinds[1:], strict=True)
    )
    rows = ""
    for row in table["rows"]:
        cells = "".join(
            f'<td class="{kind}">{escape(str(cell))}</td>' for cell, kind in zip(row[1:], kinds[1:], strict=True)
        )
        rows += f'<tr><th scope="row">{escape(str(row[0]))}</th>{cells}</tr>'
    notes = "".join(f'<p class="note">{escape(str(note))}</p>' for note in table["notes"])
    drawn = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<h4>{escape(table["title"])}</h4><div class="scroll">{drawn}</div>{notes}'


def _picture(folder: Path, picture: dict[str, Any]) -> str:
    """The picture inside the page; the first of its files that is there, by name alone."""
    for name in picture["files"]:
        file = folder / Path(name).name
        kind = _TYPES.get(file.suffix)
        if kind and file.is_file():
            content = file.read_bytes()
            if _MARKS[file.suffix] not in content[:1000]:  # a link under a picture's name may lead anywhere
                raise ValueError(f"{file.name} is no picture")
            data = base64.b64encode(content).decode()
            caption = escape(picture["caption"])
            image = f'<img src="data:{kind};base64,{data}" alt="{caption}">'
            return f'<figure class="drawing">{image}<figcaption>{caption}</figcaption></figure>'
    return ""
