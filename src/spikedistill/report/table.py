"""The comparison table: mean and standard deviation over seeds, beside the plain SNN, the teacher and the paper.

One list of columns serves the terminal, Markdown and HTML. Seeds, device, torch version and commit stand with every
figure: as columns in Markdown, in the lines below the table elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from spikedistill.report.groups import Group, Spread, group_runs, plain_snn_of, spread, training_differences
from spikedistill.report.runs import PLAIN_ANN, Published, Run

if TYPE_CHECKING:
    from rich.console import Console

EMPTY = "–"
SIZES = ("data.subset", "data.test_subset", "student.width")
"""Settings without which accuracies of one data set and student say nothing about methods."""


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
    return Table(rows, [note for mine in _places(rows).values() for note in notes(mine)])


def notes(rows: Sequence[Row]) -> list[str]:
    """What must not be lost about the rows of one data set and student."""
    return [note for row in rows for note in _of_row(row)] + _unlike(rows)


def _unlike(rows: Sequence[Row]) -> list[str]:
    """A line where rows of one data set and student differ in how much they had or were; else nothing."""
    # The ANN may be larger: it is what taught, and no rival.
    finished = [row.group for row in rows if row.accuracy and row.group.method != PLAIN_ANN]
    differing = [key for key in SIZES if len({str(group.settings.get(key)) for group in finished}) > 1]
    if not differing:
        return []
    place = f"{finished[0].model} on {finished[0].dataset}"
    return [f"{place}: the rows differ in {', '.join(differing)}; only those that are alike in that compare"]


def _row(group: Group, groups: list[Group]) -> Row:
    accuracy = group.accuracy
    teacher = spread(run.teacher_accuracy for run in group.runs if run.finished)
    plain = plain_snn_of(group, groups)
    baseline = plain.accuracy if plain else None
    firing = spread(run.firing_rate for run in group.runs if group.timesteps)
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


def _of_row(row: Row) -> list[str]:
    """What must not be lost about a row: runs that never ended, seeds that count twice, unlike baselines."""
    group, notes = row.group, []
    stopped = [run for run in group.runs if not run.finished]
    for run in stopped:
        planned = f" of {run.epochs}" if run.epochs else ""
        notes.append(f"{group.label}, seed {run.seed}: stopped after epoch {run.epochs_done}{planned}, not counted")
    twice = sorted({seed for seed in group.seeds if group.seeds.count(seed) > 1})
    if twice:
        notes.append(f"{group.label}: seed {', '.join(map(str, twice))} was run more than once and counts each time")
    keys = training_differences(group, row.plain) if row.plain and row.accuracy else []
    if keys:
        more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
        notes.append(f"{group.label}: the plain SNN it is measured against differs in {', '.join(keys[:3])}{more}")
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


def _count(number: int | None) -> str:
    """A count to three digits: 49.7k, 7.39M."""
    if number is None:
        return EMPTY
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)


def spread_text(value: Spread | None) -> str:
    """``mean ± sd`` in percent; the mean alone for a single run."""
    if value is None:
        return EMPTY
    return f"{value.mean:.2f}" if value.sd is None else f"{value.mean:.2f} ± {value.sd:.2f}"


@dataclass(frozen=True)
class Column:
    """A column: its heading, its text for a row, whether it holds figures; ``key`` is its heading in the terminal."""

    title: str
    cell: Callable[[Row], str]
    figures: bool = True
    key: str = ""


PLACE = [
    Column("data", lambda row: row.group.dataset, figures=False),
    Column("student", lambda row: row.group.model, figures=False),
]
RESULTS = [
    Column("method", lambda row: row.group.label, figures=False),
    Column("T", lambda row: EMPTY if row.group.timesteps is None else str(row.group.timesteps)),
    Column("n", lambda row: str(row.accuracy.n if row.accuracy else 0)),
    Column("accuracy %", lambda row: spread_text(row.accuracy)),
    Column("vs plain SNN", lambda row: points(row.gain), key="vs plain\nSNN"),
    Column("teacher %", lambda row: percent(row.teacher), key="teacher\n%"),
    Column("vs teacher", lambda row: points(row.to_teacher), key="vs\nteacher"),
    Column("published %", lambda row: percent(row.published.figure if row.published else None), key="publ.\n%"),
    Column("vs published", lambda row: points(row.to_published), key="vs\npubl."),
    Column(
        "firing %", lambda row: percent(None if row.firing_rate is None else 100 * row.firing_rate), key="firing\n%"
    ),
]
EARLIER = Column("stopped after 1, 2, ... steps %", lambda row: _earlier(row))
"""Left out in the terminal, which has no room for it, and in pages, which draw it."""
SIZE = Column("parameters", lambda row: _count(row.parameters))
"""Left out in the terminal as well."""
PROVENANCE = [
    Column("seeds", lambda row: row.seeds, figures=False),
    Column("device", lambda row: row.device, figures=False),
    Column("torch", lambda row: row.torch, figures=False),
    Column("commit", lambda row: row.commit, figures=False),
]


def _earlier(row: Row) -> str:
    """The means of the accuracies after all but the last step: 70.33 / 73.22 / 73.64."""
    steps = row.group.accuracy_per_timestep
    return " / ".join(percent(value.mean) for step, value in steps.items() if step < max(steps)) or EMPTY


def _filled(rows: Sequence[Row], wanted: list[Column]) -> list[Column]:
    return [column for column in wanted if any(column.cell(row) != EMPTY for row in rows)]


def provenance(rows: Sequence[Row]) -> str:
    """What stands behind figures drawn from these rows: n, seeds, device, torch version, commit."""
    finished = [row for row in rows if row.accuracy] or rows
    counts = sorted({row.accuracy.n if row.accuracy else 0 for row in finished})
    seeds = sorted({seed for row in finished for seed in row.group.seeds})
    told = [f"n {counts[0]}" if len(counts) == 1 else f"n {counts[0]} to {counts[-1]}"]
    told.append(f"seeds {' '.join(map(str, seeds)) or EMPTY}")
    told += [f"{column.title} {_all(column.cell(row) for row in finished)}" for column in PROVENANCE[1:]]
    return ", ".join(told)


def _remarks(rows: Sequence[Row], notes: Sequence[str]) -> list[str]:
    """The lines below a table: provenance once for all rows that share it, sources of published figures, notes."""
    shared: dict[str, list[str]] = {}
    for row in rows:
        if row.accuracy:
            shared.setdefault(provenance([row]), []).append(row.group.label)
    lines = [f"{'All rows' if len(shared) == 1 else ', '.join(labels)}: {told}" for told, labels in shared.items()]
    sources = _sources(rows)
    return lines + ([f"Published: {'; '.join(sources)}"] if sources else []) + list(notes)


def _sources(rows: Sequence[Row]) -> list[str]:
    """Where the published figures stand, and what stands beside them there: of what, where that is not the same."""
    places: dict[str, dict[str, list[str]]] = {}
    kinds = (lambda group: group.dataset, lambda group: group.model, lambda group: group.label)
    tells_apart = next((kind for kind in kinds if len({kind(row.group) for row in rows}) > 1), kinds[-1])
    for row in rows:
        if row.published and row.published.source:
            beside = places.setdefault(row.published.source, {})
            if told := _beside(row.published):
                beside.setdefault(told, []).append(tells_apart(row.group))
    return [f"{source} ({_there(beside)})" if beside else source for source, beside in places.items()]


def _there(beside: dict[str, list[str]]) -> str:
    if len(beside) == 1:
        return f"there: {next(iter(beside))}"
    return "there " + "; ".join(f"{', '.join(dict.fromkeys(where))}: {told}" for told, where in beside.items())


def _beside(published: Published) -> str:
    values = {"plain SNN": published.baseline, "teacher": published.teacher}
    return ", ".join(f"{name} {value:.2f}" for name, value in values.items() if value is not None)


def to_markdown(compared: Table | Iterable[Run]) -> str:
    """A table, or the table of some runs, as GitHub Markdown: provenance in columns, notes below."""
    compared = compared if isinstance(compared, Table) else table(compared)
    columns = _filled(compared.rows, [*PLACE, *RESULTS, EARLIER, SIZE, *PROVENANCE])
    lines = [
        "| " + " | ".join(column.title for column in columns) + " |",
        "| " + " | ".join("---:" if column.figures else "---" for column in columns) + " |",
    ]
    for row in compared.rows:
        lines.append("| " + " | ".join(_markdown(column.cell(row)) for column in columns) + " |")
    published = [line for line in _remarks(compared.rows, []) if line.startswith("Published")]
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
    for place, rows in _places(compared.rows).items():
        heading = rich.text.Text(" on ".join(reversed(place)), style="bold")
        drawn = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
        for column in _filled(rows, RESULTS):
            align = "right" if column.figures else "left"
            drawn.add_column(column.key or column.title, justify=align, no_wrap=column.figures, overflow="fold")
        for row in rows:
            drawn.add_row(*(rich.text.Text(column.cell(row)) for column in _filled(rows, RESULTS)))
        if rich.measure.Measurement.get(console, console.options.update(width=500), drawn).maximum > console.width:
            drawn.padding = (0, 0, 0, 0)
        console.print(heading, drawn, sep="\n")
        for remark in _remarks(rows, notes(rows)):
            console.print(rich.text.Text(remark, style="dim"))
        console.print()


def _places(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    places: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        places.setdefault((row.group.dataset, row.group.model), []).append(row)
    return places


def to_html(compared: Table, colours: Sequence[str] = (), with_place: bool = True) -> str:
    """The table as HTML that turns into cards on a narrow screen (``page.css``).

    Args:
        colours: for each row the CSS class of the coloured mark before its method; none gives none.
        with_place: whether to give data and student as columns; a page says them in the heading.
    """
    columns = _filled(compared.rows, [*(PLACE if with_place else []), *RESULTS, SIZE])
    head = "".join(
        f'<th scope="col"{" class=num" if column.figures else ""}>{escape(column.title)}</th>' for column in columns
    )
    marks = [f'<span class="mark {colour}"></span>' for colour in colours] or [""] * len(compared.rows)
    rows = zip(compared.rows, marks, strict=True)
    body = "".join(f"<tr>{_html_cells(row, columns, mark)}</tr>" for row, mark in rows)
    notes = "".join(f'<p class="note">{escape(line)}.</p>' for line in _remarks(compared.rows, compared.notes))
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
