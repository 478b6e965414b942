"""A study's tables as text: Markdown, for the terminal, and as plain data for the report."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from spikedistill.report.experiment import provenance
from spikedistill.study.base import PUBLISHED, Table, Value

if TYPE_CHECKING:
    from rich.console import Console


def to_markdown(content: dict[str, Any], place: str = "") -> str:
    """An experiment's record as GitHub Markdown, without a heading.

    Args:
        content: what ``experiment.json`` holds.
        place: where its pictures lie, seen from the page, with a slash at the end; nothing for beside it. Of the
            files of a picture the last is shown, the PNG.
    """
    pictures = [
        f"![{picture['caption']}]({place}{picture['files'][-1]})\n\n{picture['caption']}"
        for picture in content["pictures"]
    ]
    parts = [
        f"{content['source']}. {content['about']}".strip(),
        *map(_table, content["tables"]),
        *pictures,
        *content["notes"],
        f"{provenance(content)}. Made by `{content['command']}`.",
    ]
    return "\n\n".join(parts) + "\n"


def _table(table: dict[str, Any]) -> str:
    heads = table["heads"]
    lines = [f"**{table['title']}**", "", "| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in table["rows"]]
    return "\n".join([*lines, *(f"\n{note}." for note in table["notes"])])


def print_table(table: Table, console: Console) -> None:
    """The table for the terminal: a published figure stands below ours, so that many columns fit 80 characters."""
    import rich.box
    import rich.table
    import rich.text

    heads, rows = table.grid()
    below = {index - 1 for index, head in enumerate(heads) if head == PUBLISHED}
    shown = [index for index, head in enumerate(heads) if head != PUBLISHED]
    drawn = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for index in shown:
        lines = textwrap.wrap(heads[index], 12, break_long_words=False)
        head = rich.text.Text("\n".join(lines))
        if index in below:
            head.append("\npublished", "dim")
        drawn.add_column(head, justify="right" if index else "left", no_wrap=bool(index))
    for row in rows:
        cells = [rich.text.Text(row[index]) for index in shown]
        for cell, index in zip(cells, shown, strict=True):
            if index in below:
                cell.append(f"\n{row[index + 1]}", "dim")
        drawn.add_row(*cells)
    console.print(rich.text.Text(table.title, style="bold"), drawn, sep="\n")
    for note in table.notes:
        console.print(rich.text.Text(note, style="dim"))


def to_data(table: Table) -> dict[str, Any]:
    """The table as JSON has it: text as it is shown, and the figures behind it."""
    heads, rows = table.grid()
    figures = [[_figure(cell) for cell in cells] for _, cells in table.rows]
    return {"title": table.title, "heads": heads, "rows": rows, "notes": list(table.notes), "figures": figures}


def _figure(cell: Value | str) -> Any:
    return cell if isinstance(cell, str) else {"values": list(cell.values), "published": cell.published}
