"""The columns of the comparison, one list for terminal, Markdown and HTML, and the lines that stand below it.

Seeds, device, torch version and commit stand with every figure: as columns in Markdown, in the lines below elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spikedistill.report.quantities import EMPTY, count, percent, points, spread_text
from spikedistill.report.runs import Published
from spikedistill.report.table import Row, joined


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
SIZE = Column("parameters", lambda row: EMPTY if row.parameters is None else count(row.parameters))
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


def filled(rows: Sequence[Row], wanted: list[Column]) -> list[Column]:
    """Those of the columns in which some row has something."""
    return [column for column in wanted if any(column.cell(row) != EMPTY for row in rows)]


def provenance(rows: Sequence[Row]) -> str:
    """What stands behind figures drawn from these rows: n, seeds, device, torch version, commit."""
    finished = [row for row in rows if row.accuracy] or rows
    counts = sorted({row.accuracy.n if row.accuracy else 0 for row in finished})
    seeds = sorted({seed for row in finished for seed in row.group.seeds})
    told = [f"n {counts[0]}" if len(counts) == 1 else f"n {counts[0]} to {counts[-1]}"]
    told.append(f"seeds {' '.join(map(str, seeds)) or EMPTY}")
    told += [f"{column.title} {joined(column.cell(row) for row in finished)}" for column in PROVENANCE[1:]]
    return ", ".join(told)


def remarks(rows: Sequence[Row], notes: Sequence[str]) -> list[str]:
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
