"""The report: one self-contained HTML page that needs no network, no script and no font but the reader's own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from spikedistill.engine.checkpoint import write_durably
from spikedistill.errors import UserError
from spikedistill.report.contents import Block, Report, arrange, place
from spikedistill.report.quantities import spread_text
from spikedistill.report.runs import Run, read_run
from spikedistill.report.sections import SECTIONS, comparison
from spikedistill.report.table import Row

_LEADS = 3
"""More data sets and students than this are counted in the opening sentence instead of told one by one."""


def write_report(runs: list[Run], out: Path, title: str | None = None) -> Path:
    """Writes the page.

    Args:
        runs: one or many, as ``find_runs`` reads them.
        out: an .html file, or a folder that gets a report.html.
        title: heading of the page; what was compared by default.

    Returns:
        The file written.

    Raises:
        UserError: there are no runs, or no folder for the file.
        WriteFailed: the file cannot be written.
    """
    if not runs:
        raise UserError("no runs to report: give at least one run folder")
    out = Path(out)
    target = out if out.suffix.lower() in (".html", ".htm") else out / "report.html"
    page = render(arrange(runs), title)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise UserError(f"the report cannot be written to {target}: {fault.strerror}") from fault
    write_durably(target, page.encode("utf-8", "replace"))
    return target


def write_run_report(folder: str | Path) -> Path:
    """Writes the page of one run into its own folder.

    Returns:
        ``folder/report.html``.

    Raises:
        UserError: the folder holds no run, or a broken one.
    """
    return write_report([read_run(folder)], Path(folder) / "report.html")


def render(report: Report, title: str | None = None) -> str:
    """The page's HTML."""
    parts = {name: section(report) for name, section in SECTIONS.items()}
    shown = {name: found for name, found in parts.items() if found}
    links = "".join(f'<a href="#{_anchor(name)}">{escape(name)}</a>' for name in shown)
    body = "".join(
        f'<section id="{_anchor(name)}"><header><h2>{escape(name)}</h2><p>{escape(found.intro)}</p></header>'
        f'<div class="body">{found.body}</div></section>'
        for name, found in shown.items()
    )
    room = files("spikedistill.report")
    return Template((room / "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(title or _title(report)),
        style=(room / "page.css").read_text(encoding="utf-8"),
        lead=_lead(report),
        layout="many" if len(report.blocks) > 1 else "one",
        picture=_picture(report),
        links=links,
        sections=body,
        count=f"{len(report.runs)} run{'s' if len(report.runs) != 1 else ''}",
    )


def _anchor(name: str) -> str:
    return re.sub(r"\W+", "-", name.lower()).strip("-")


def _title(report: Report) -> str:
    if len(report.blocks) == 1:
        return report.blocks[0].title
    names = list(dict.fromkeys(block.dataset for block in report.blocks))
    return f"{len(report.runs)} runs on {names[0] if len(names) == 1 else f'{len(names)} data sets'}"


def _picture(report: Report) -> str:
    drawn = [(place(block, report), comparison(block)) for block in report.blocks[:_LEADS]]
    return "".join(f"<div>{heading}{picture}</div>" for heading, picture in drawn if picture)


def _lead(report: Report) -> str:
    """The main result in figures: one sentence a block, or a count where there are many."""
    told = [headline(block) for block in report.blocks[:_LEADS]]
    beyond = len(report.blocks) - _LEADS
    if beyond > 0:
        told.append(f"{beyond} more pair{'s' if beyond > 1 else ''} of data and student below.")
    return "".join(f'<p class="lead">{sentence}</p>' for sentence in told)


def headline(block: Block) -> str:
    """One sentence as HTML: the best student, what the teaching was worth, and how far the teacher is."""
    row, name = block.table.rows[block.best], block.names[block.best]
    where = escape(block.title)
    if row.accuracy is None:
        return f"No run of {where} has come to its end yet."
    figure = f"<b>{escape(spread_text(row.accuracy))}&nbsp;%</b>"
    count = row.group.timesteps
    steps = f" in {count} timestep{'s' if count > 1 else ''}" if count else ""
    if row.group.is_baseline:
        return f"{_capital(f'the {escape(name)}')} {where} reaches {figure}{steps} ({_basis(row)})."
    rivals = len({other.group.method for other in block.table.rows if other.accuracy and not other.group.is_baseline})
    choice = f", the best of {rivals} methods" if rivals > 1 else ""
    verb = "Taught" if row.teacher else "Trained"
    sentence = f"{verb} by {escape(name)}, a spiking {where} reaches {figure}{steps} ({_basis(row)}{choice})"
    worth = [
        _distance(row.gain, "the plain SNN of the same make"),
        _distance(row.to_teacher, "its teacher"),
        _distance(row.to_published, "the published figure"),
    ]
    told = [text for text in worth if text]
    joined = ", ".join(told[:-1]) + (" and " if len(told) > 1 else "") + told[-1] if told else ""
    return f"{sentence}: {joined}." if joined else f"{sentence}. Nothing was run beside it to compare with."


def _basis(row: Row) -> str:
    count = row.accuracy.n if row.accuracy else 0
    return f"mean ± sd of {count} seeds" if count > 1 else "one seed"


def _distance(points: float | None, other: str) -> str:
    if points is None:
        return ""
    if abs(points) < 0.005:
        return f"level with {other}"
    word = "above" if points > 0 else "below"
    unit = "point" if f"{abs(points):.2f}" == "1.00" else "points"
    return f"<b>{abs(points):.2f}&nbsp;{unit} {word}</b> {other}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def summary_sentence(runs: Sequence[Run]) -> str:
    """The page's opening sentence as plain text, for the terminal."""
    import html

    told = " ".join(headline(block) for block in arrange(runs).blocks)
    return html.unescape(re.sub(r"<[^>]+>", "", told)).replace("\xa0", " ")
