"""The section that says what was run: for every run its command, recipe, seed, versions, commit and time."""

from __future__ import annotations

import shlex
from html import escape
from pathlib import Path

from spikedistill.report.contents import Part, Report
from spikedistill.report.quantities import EMPTY, percent
from spikedistill.report.runs import CONFIG, Run

FROM_PYTHON = ("network", "teacher", "images")


def recipes(report: Report) -> Part:
    """Every run, folded: the facts of the run, the command that repeats it and its resolved recipe."""
    intro = "Every run with its resolved recipe and the command that repeats it."
    body = ""
    for block in report.blocks:
        for row, name in zip(block.table.rows, block.names, strict=True):
            body += "".join(_run(run, f"{block.title}, {name}") for run in row.group.runs)
    return Part(intro, f'<div class="runs">{body}</div>')


def command(run: Run) -> str:
    """What makes the run again; what a record of it does not say, where data and other runs lie, is to be filled in.

    What a program handed over, no command has.
    """
    if run.by_program:
        return f"sd.distill(...) with the settings below: the {' or the '.join(FROM_PYTHON)} came from a program"
    words = ["spikedistill train", shlex.quote(str(run.path / CONFIG)), "out=NEW_FOLDER"]
    if run.recorded and not run.dataset.startswith("digits"):
        words.append("data.path=WHERE_THE_DATA_LIE")
    for key in ("teacher", "init") if run.recorded else ():
        section = run.config.get(key)
        if isinstance(section, dict) and section.get("path"):
            words.append(f"{key}.path=RUN_OF/{shlex.quote(Path(str(section['path'])).name)}")
    return " ".join(words)


def duration(seconds: float | None) -> str:
    """Seconds as a person says them: 42 s, 3 min 12 s, 2 h 05 min."""
    if seconds is None:
        return EMPTY
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _run(run: Run, place: str) -> str:
    import yaml

    state = f"{percent(run.accuracy)} %" if run.finished else f"stopped after epoch {run.epochs_done}"
    head = f"<b>{escape(place)}</b>, seed {escape(str(run.seed))}<span>{escape(state)}</span>"
    planned = str(run.epochs) if run.epochs else EMPTY
    facts = {
        "recipe": run.name,
        "folder": str(run.path),
        "method": run.method,
        "epochs": planned if run.finished else f"{run.epochs_done} of {planned}",
        "timesteps": EMPTY if run.timesteps is None else str(run.timesteps),
        "seed": str(run.seed),
        "parameters": EMPTY if run.parameters is None else f"{run.parameters:,}",
        "wall time": duration(run.wall_seconds),
        "device": run.device,
        "torch": run.torch,
        "commit": run.commit,
        "missing files": ", ".join(run.missing),
    }
    pairs = "".join(f"<div><dt>{key}</dt><dd>{escape(value)}</dd></div>" for key, value in facts.items() if value)
    recipe = yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True)
    return (
        f"<details><summary>{head}</summary><dl>{pairs}</dl>"
        f"<pre><code>{escape(command(run))}</code></pre><pre><code>{escape(recipe)}</code></pre></details>"
    )
