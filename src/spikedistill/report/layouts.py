"""The comparison as Markdown, on the terminal and as HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from spikedistill.report.columns import EARLIER, PLACE, PROVENANCE, RESULTS, SIZE, Column, filled, remarks
from spikedistill.report.quantities import EMPTY
from spikedistill.report.runs import Run
from spikedistill.report.table import Row, Table, notes, places, table

if TYPE_CHECKING:
    from rich.console import Console


def to_markdown(compared: Table | Iterable[Run]) -> str:
    """A table, or the table of some runs, as GitHub Markdown: provenance in columns, notes below."""
    compared = compared if isinstance(compared, Table) else table(compared)
    columns = filled(compared.rows, [*PLACE, *RESULTS, EARLIER, SIZE, *PROVENANCE])
    lines = [
        "| " + " | ".join(column.title for column in columns) + " |",
        "| " + " | ".join("---:" if column.figures else "---" for column in columns) + " |",
    ]
    for row in compared.rows:
        lines.append("| " + " | ".join(_markdown(column.cell(row)) for column in columns) + " |")
    published = [line for line in remarks(compared.rows, []) if line.startswith("Published")]
    return "\n".join([*lines, *(f"\n{_markdown(remark)}." for remark in published + compared.notes)]) + "\n"


def _markdown(text: str) -> str:
    for special in "\\|`*_<":
        text = text.replace(special, f"\\{special}")
    return " ".join(text.split())


def print_table(compared: Table | Iterable[Run], console: Console | None = None) -> None:
    """Prints a table, or the table of some runs: one part for each data set and student; it fits 80 columns."""
    import rich.box
    import rich.console
    import rich.measure
    import rich.table
    import rich.text

    compared = compared if isinstance(compared, Table) else table(compared)
    console = console or rich.console.Console()
    for place, rows in places(compared.rows).items():
        heading = rich.text.Text(" on ".join(reversed(place)), style="bold")
        drawn = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
        for column in filled(rows, RESULTS):
            align = "right" if column.figures else "left"
            drawn.add_column(column.key or column.title, justify=align, no_wrap=column.figures, overflow="fold")
        for row in rows:
            drawn.add_row(*(rich.text.Text(column.cell(row)) for column in filled(rows, RESULTS)))
        if rich.measure.Measurement.get(console, console.options.update(width=500), drawn).maximum > console.width:
            drawn.padding = (0, 0, 0, 0)
        console.print(heading, drawn, sep="\n")
        for remark in remarks(rows, notes(rows)):
            console.print(rich.text.Text(remark, style="dim"))
        console.print()


def to_html(compared: Table, colours: Sequence[str] = (), with_place: bool = True) -> str:
    """The table as HTML that turns into cards on a narrow screen (``page.css``).

    Args:
        colours: for each row the CSS class of the coloured mark before its method; none gives none.
        with_place: whether to give data and student as columns; a page says them in the heading.
    """
    columns = filled(compared.rows, [*(PLACE if with_place else []), *RESULTS, SIZE])
    head = "".join(
        f'<th scope="col"{" class=num" if column.figures else ""}>{escape(column.title)}</th>' for column in columns
    )
    marks = [f'<span class="mark {colour}"></span>' for colour in colours] or [""] * len(compared.rows)
    rows = zip(compared.rows, marks, strict=True)
    body = "".join(f"<tr>{_html_cells(row, columns, mark)}</tr>" for row, mark in rows)
    notes = "".join(f'<p class="note">{escape(line)}.</p>' for line in remarks(compared.rows, compared.notes))
    drawn = f'<table class="results"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="wide">{drawn}</div>{notes}'


def _html_cells(row: Row, columns: list[Column], mark: str) -> str:
    cells = []
    for column in columns:
        text, title = escape(column.cell(row)), escape(column.title)
        if column.title == "method":
            cells.append(f'<th scope="row">{mark}{text}</th>')
            continue
        kind = ("num" if column.figures else "") + (" main" if column.title.startswith("accuracy") else "")
        empty = " empty" if text == EMPTY else ""
        cells.append(f'<td class="{(kind + empty).strip()}" data-label="{title}">{text}</td>')
    return "".join(cells)
