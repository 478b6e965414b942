"""A study's tables as text: Markdown, for the terminal, and as plain data for the report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spikedistill.study.base import Table, Value

if TYPE_CHECKING:
    from rich.console import Console


def to_markdown(table: Table) -> str:
    """The table as GitHub Markdown, its notes below."""
    heads, rows = table.grid()
    lines = [f"**{table.title}**", "", "| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([*lines, *(f"\n{note}." for note in table.notes)]) + "\n"


def print_table(table: Table, console: Console) -> None:
    """The table for the terminal."""
    import rich.box
    import rich.table
    import rich.text

    heads, rows = table.grid()
    drawn = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for index, head in enumerate(heads):
        drawn.add_column(rich.text.Text(head), justify="right" if index else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*map(rich.text.Text, row))
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
