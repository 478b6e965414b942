"""What a report is made of before it is drawn: blocks of comparable rows with their names and colours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from spikedistill.report import plots
from spikedistill.report.columns import provenance
from spikedistill.report.runs import EVALUATION, METRICS, PLAIN_ANN, PLAIN_SNN, SUMMARY, Run
from spikedistill.report.table import Row, Table, notes, table


@dataclass(frozen=True)
class Block:
    """What belongs on common axes: the rows of one data set and one student, a name and a colour class for each."""

    dataset: str
    model: str
    table: Table
    names: list[str]
    colours: list[str]

    @property
    def title(self) -> str:
        """Student and data set as a heading says them."""
        return f"{self.model} on {self.dataset}"

    @property
    def best(self) -> int:
        """Index of the row to show first: the distilled SNN of highest accuracy, else the last finished row."""
        finished = [
            (not row.group.is_baseline, row.accuracy.mean if not row.group.is_baseline else index, -index)
            for index, row in enumerate(self.table.rows)
            if row.accuracy
        ]
        return -max(finished)[2] if finished else len(self.table.rows) - 1


@dataclass(frozen=True)
class Report:
    """All that a section may draw from."""

    runs: list[Run]
    blocks: list[Block]


@dataclass(frozen=True)
class Part:
    """One section: a sentence or two on how to read it (plain text) and its HTML."""

    intro: str
    body: str


Section = Callable[[Report], Part | None]


def arrange(runs: Sequence[Run]) -> Report:
    """Sorts runs into blocks and gives every method one colour through the whole page."""
    compared = table(runs)
    colours: dict[str, str] = {}
    blocks = []
    for place in dict.fromkeys((row.group.dataset, row.group.model) for row in compared.rows):
        rows = [row for row in compared.rows if (row.group.dataset, row.group.model) == place]
        mine = Table(rows, notes(rows))
        names = [_name(row, rows) for row in rows]
        for row, name in zip(rows, names, strict=True):
            if row.group.method in (PLAIN_ANN, PLAIN_SNN):
                colours[name] = "c0" if row.group.method == PLAIN_SNN else "ca"
        for name in names:
            taken = sum(colour not in ("c0", "ca") for colour in colours.values())
            colours.setdefault(name, f"c{taken % 6 + 1}")
        blocks.append(Block(*place, mine, names, [colours[name] for name in names]))
    return Report(list(runs), blocks)


def _name(row: Row, rows: Sequence[Row]) -> str:
    twins = [other for other in rows if other.group.label == row.group.label]
    return row.group.label if len(twins) == 1 else f"{row.group.label}, T={row.group.timesteps}"


def place(block: Block, report: Report) -> str:
    """The block's heading, left out where the page has only one block and its title says it."""
    return f"<h3>{escape(block.title)}</h3>" if len(report.blocks) > 1 else ""


def charts(block: Block, report: Report, drawn: Sequence[str]) -> str:
    """The block's heading and a grid of SVG charts, or nothing where there are none."""
    return place(block, report) + grid([chart(one) for one in drawn], block) if drawn else ""


def grid(charts: Sequence[str], block: Block) -> str:
    """Figures side by side as the width allows, with what stands behind them."""
    note = f'<p class="note">{escape(provenance(block.table.rows))}</p>'
    return f'<div class="charts{" many" if len(charts) > plots.MAX_OVERLAY else ""}">{"".join(charts)}</div>{note}'


def panels(drawn: dict[int, str], block: Block) -> str:
    """One figure a row; where there are many, the best row's and the baselines' in the open, the others folded.

    Args:
        drawn: index of the row -> its figure.
        block: the rows.
    """
    if len(drawn) <= 4:
        return grid(list(drawn.values()), block)
    ahead = [index for index in drawn if index == block.best or block.table.rows[index].group.is_baseline][:4]
    behind = [figure for index, figure in drawn.items() if index not in ahead]
    folded = f"<details><summary>{len(behind)} more</summary>{grid(behind, block)}</details>"
    return grid([drawn[index] for index in ahead], block) + folded


def alike(block: Block, file: str) -> tuple[list[Run], str]:
    """The block's runs whose ``file`` was measured with the T of training and on as many images as most of them were.

    Returns:
        Those runs, and a line (HTML) that says on how many images, where that is known, and names the others.
    """
    runs = [run for row in block.table.rows for run in row.group.runs if file in run.measured]
    usual = Counter(str(run.measured[file].get("images")) for run in runs).most_common(1)
    same = [
        run
        for run in runs
        if str(run.measured[file].get("images")) == usual[0][0]
        and run.measured[file].get("timesteps") in (None, run.timesteps)
    ]
    told = [f"Measured on {usual[0][0]} test images."] if usual and usual[0][0] != "None" else []
    others = ", ".join(dict.fromkeys(run.name for run in runs if run not in same))
    if others:
        told.append(f"Left out of {file}'s charts, as measured on other images or with another T: {others}.")
    return same, f'<p class="note">{escape(" ".join(told))}</p>' if told else ""


def chart(drawn: str) -> str:
    """An SVG chart as a figure of the page."""
    return f'<figure class="chart">{drawn}</figure>'


def part(intro: str, body: str, report: Report, file: str) -> Part | None:
    """A section drawn from ``file``: where no run has it, a line says so; None where there is nothing to say."""
    if not body and any(file in run.missing for run in report.runs):
        body = f'<p class="note missing">{escape(f"None of these runs has a {file}, which this is drawn from.")}</p>'
    return Part(intro, body) if body else None


def missing(runs: Sequence[Run]) -> list[str]:
    """One line for each file that some runs lack, naming them by recipe and seeds."""
    lines = []
    for file in (SUMMARY, METRICS, EVALUATION):
        lacking: dict[str, list[str]] = {}
        for run in runs:
            if file in run.missing:
                lacking.setdefault(run.name, []).append(str(run.seed))
        if lacking:
            named = "; ".join(f"{name} (seed {' '.join(seeds)})" for name, seeds in lacking.items())
            lines.append(f"{file} is missing, so what is drawn from it is not shown: {named}.")
    return lines
