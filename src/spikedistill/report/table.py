"""The comparison table: mean and standard deviation over seeds, beside the plain SNN, the teacher and the paper.

One list of columns serves the terminal, Markdown and HTML. Seeds, device, torch version and commit are columns where
they differ between rows and a line below the table where they do not, so that no figure stands without them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from spikedistill.report.groups import Group, Spread, group_runs, plain_snn_of, spread, training_differences
from spikedistill.report.runs import Published, Run

if TYPE_CHECKING:
    from rich.console import Console

EMPTY = "–"


@dataclass(frozen=True)
class Row:
    """One line of the table. Accuracies in percent, differences in percentage points (ours minus the other)."""

    group: Group
    accuracy: Spread | None
    teacher: float | None
    to_teacher: float | None
    plain: Group | None
    gain: float | None
    published: Published | None
    to_published: float | None
    firing_rate: float | None
    parameters: int | None
    seeds: str
    device: str
    torch: str
    commit: str


@dataclass(frozen=True)
class Table:
    """Rows in order of reading, and remarks that must not be lost: runs that never ended, unlike baselines."""

    rows: list[Row]
    notes: list[str]


def table(runs: Iterable[Run]) -> Table:
    """Compares runs: those that differ only in seed share a row (see ``groups.group_runs``)."""
    groups = group_runs(runs)
    rows = [_row(group, groups) for group in groups]
    return Table(rows, [note for row in rows for note in _notes(row)])


def _row(group: Group, groups: list[Group]) -> Row:
    accuracy = group.accuracy
    teacher = spread(run.teacher_accuracy for run in group.runs if run.finished)
    plain = plain_snn_of(group, groups)
    baseline = plain.accuracy if plain else None
    firing = spread(run.firing_rate for run in group.runs)
    published = next((run.published for run in group.runs if run.published), None)
    return Row(
        group=group,
        accuracy=accuracy,
        teacher=teacher.mean if teacher else None,
        to_teacher=accuracy.mean - teacher.mean if accuracy and teacher else None,
        plain=plain,
        gain=accuracy.mean - baseline.mean if accuracy and baseline else None,
        published=published,
        to_published=accuracy.mean - published.figure if accuracy and published else None,
        firing_rate=firing.mean if firing else None,
        parameters=next((run.parameters for run in group.runs if run.parameters), None),
        seeds=" ".join(map(str, group.seeds)) or EMPTY,
        device=_all(run.device for run in group.runs),
        torch=_all(run.torch for run in group.runs),
        commit=_all(run.commit for run in group.runs),
    )


def _notes(row: Row) -> list[str]:
    group, notes = row.group, []
    stopped = [run for run in group.runs if not run.finished]
    for run in stopped:
        planned = f" of {run.epochs}" if run.epochs else ""
        notes.append(f"{group.label}, seed {run.seed}: stopped after epoch {run.epochs_done}{planned}, not counted")
    twice = sorted({seed for seed in group.seeds if group.seeds.count(seed) > 1})
    if twice:
        notes.append(f"{group.label}: seed {', '.join(map(str, twice))} was run more than once and counts each time")
    if row.plain:
        keys = training_differences(group, row.plain)
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            notes.append(f"{group.label}: its plain SNN was trained with another {', '.join(keys[:3])}{more}")
    if row.published and row.published.timesteps not in (None, group.timesteps):
        notes.append(f"{group.label}: the published figure is for T = {row.published.timesteps}")
    if row.published and row.published.note:
        notes.append(f"{group.label}, published figure: {row.published.note}")
    return notes


def _all(values: Iterable[str]) -> str:
    return " / ".join(dict.fromkeys(values))


def percent(value: float | None) -> str:
    """An accuracy with two decimals, or a dash."""
    return EMPTY if value is None else f"{value:.2f}"


def points(value: float | None) -> str:
    """A signed difference in percentage points, or a dash."""
    return EMPTY if value is None else f"{value:+.2f}".replace("-", "−").replace("−0.00", "±0.00")


def spread_text(value: Spread | None) -> str:
    """``mean ± sd`` in percent; the mean alone for a single run."""
    if value is None:
        return EMPTY
    return f"{value.mean:.2f}" if value.sd is None else f"{value.mean:.2f} ± {value.sd:.2f}"


def _published_text(row: Row) -> str:
    if row.published is None:
        return EMPTY
    return f"{row.published.figure:.2f}" + (f" ({row.published.source})" if row.published.source else "")


@dataclass(frozen=True)
class Column:
    """A column: its heading, its text for a row, whether it holds figures."""

    title: str
    cell: Callable[[Row], str]
    figures: bool = True


PLACE = [
    Column("data", lambda row: row.group.dataset, figures=False),
    Column("student", lambda row: row.group.model, figures=False),
]
RESULTS = [
    Column("method", lambda row: row.group.label, figures=False),
    Column("T", lambda row: EMPTY if row.group.timesteps is None else str(row.group.timesteps)),
    Column("n", lambda row: str(row.accuracy.n if row.accuracy else 0)),
    Column("accuracy %", lambda row: spread_text(row.accuracy)),
    Column("vs plain SNN", lambda row: points(row.gain)),
    Column("teacher %", lambda row: percent(row.teacher)),
    Column("vs teacher", lambda row: points(row.to_teacher)),
    Column("published %", _published_text),
    Column("vs published", lambda row: points(row.to_published)),
    Column("firing rate %", lambda row: percent(None if row.firing_rate is None else 100 * row.firing_rate)),
]
_PROVENANCE = [
    Column("seeds", lambda row: row.seeds, figures=False),
    Column("device", lambda row: row.device, figures=False),
    Column("torch", lambda row: row.torch, figures=False),
    Column("commit", lambda row: row.commit, figures=False),
]


def _columns(rows: list[Row], wanted: list[Column]) -> tuple[list[Column], str]:
    """The columns that say something, with provenance; and the line that holds the provenance all rows share."""
    filled = [column for column in wanted if any(column.cell(row) != EMPTY for row in rows)]
    shared = [column for column in _PROVENANCE if len({column.cell(row) for row in rows}) == 1]
    line = ", ".join(f"{column.title} {column.cell(rows[0])}" for column in shared) if rows else ""
    return filled + [column for column in _PROVENANCE if column not in shared], line


def provenance(rows: list[Row]) -> str:
    """What stands behind figures drawn from these rows: n, seeds, device, torch version, commit."""
    counts = _all(str(row.accuracy.n if row.accuracy else 0) for row in rows)
    parts = [f"{column.title} {_all(column.cell(row) for row in rows)}" for column in _PROVENANCE]
    return ", ".join([f"n {counts}", *parts])


def to_markdown(compared: Table) -> str:
    """The table as GitHub Markdown, with the shared provenance and the notes below it."""
    columns, shared = _columns(compared.rows, PLACE + RESULTS)
    lines = [
        "| " + " | ".join(column.title for column in columns) + " |",
        "|" + "|".join(" ---: " if column.figures else " --- " for column in columns) + "|",
    ]
    for row in compared.rows:
        lines.append("| " + " | ".join(_markdown(column.cell(row)) for column in columns) + " |")
    remarks = [f"All rows: {shared}."] if shared else []
    remarks += [f"{note}." for note in compared.notes]
    return "\n".join([*lines, *(f"\n{_markdown(remark)}" for remark in remarks)]) + "\n"


def _markdown(text: str) -> str:
    for special in "\\|`*_<":
        text = text.replace(special, f"\\{special}")
    return " ".join(text.split())


def print_table(compared: Table, console: Console | None = None) -> None:
    """Prints the table to the terminal."""
    import rich.box
    import rich.console
    import rich.table
    import rich.text

    columns, shared = _columns(compared.rows, PLACE + RESULTS)
    drawn = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    for column in columns:
        drawn.add_column(
            column.title, justify="right" if column.figures else "left", overflow="fold", no_wrap=column.title == "T"
        )
    for row in compared.rows:
        drawn.add_row(*(rich.text.Text(column.cell(row)) for column in columns))
    console = console or rich.console.Console()
    console.print(drawn)
    for remark in ([f"All rows: {shared}"] if shared else []) + compared.notes:
        console.print(rich.text.Text(f"  {remark}", style="dim"))


def to_html(compared: Table, colours: Sequence[str] = (), with_place: bool = True) -> str:
    """The table as HTML that turns into cards on a narrow screen (``page.css``).

    Args:
        colours: for each row the CSS class of the coloured mark before its method; none gives none.
        with_place: whether to give data and student as columns; a page says them in the heading.
    """
    columns, shared = _columns(compared.rows, PLACE + RESULTS if with_place else RESULTS)
    head = "".join(
        f'<th scope="col"{" class=num" if column.figures else ""}>{escape(column.title)}</th>' for column in columns
    )
    marks = [f'<span class="mark {colour}"></span>' for colour in colours] or [""] * len(compared.rows)
    rows = zip(compared.rows, marks, strict=True)
    body = "".join(f"<tr>{_html_cells(row, columns, mark)}</tr>" for row, mark in rows)
    remarks = ([f"All rows: {shared}."] if shared else []) + [f"{note}." for note in compared.notes]
    notes = "".join(f'<p class="note">{escape(remark)}</p>' for remark in remarks)
    return f'<table class="results"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{notes}'


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
