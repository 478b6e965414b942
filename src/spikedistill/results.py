"""Committed results: the records of finished runs, and the page that is made from them.

A folder of results holds::

    campaigns/*.yaml          the lists of runs
    runs/<campaign>/<run>/    config.yaml, metrics.csv and summary.json of each finished run
    <campaign>.md             its table, and what could not be run yet with its command
    README.md                 all of them
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from spikedistill.engine.checkpoint import write_durably
from spikedistill.errors import UserError
from spikedistill.report import find_runs, to_markdown
from spikedistill.report.table import EMPTY, percent
from spikedistill.runfolder import read_json, write_json
from spikedistill.runlist import Planned, RunList, plan, read_run_list

CAMPAIGNS, RECORDS, PAGE = "campaigns", "runs", "README.md"
GENERATED = "<!-- made by `spikedistill campaign`; changes by hand are lost -->"


def enlist(file: Path, results: Path) -> None:
    """Puts a campaign's file among the results, whose page names what of it is still to run.

    Raises:
        UserError: the folder's README.md was not made by this command.
    """
    page = results / PAGE
    if page.is_file() and GENERATED not in page.read_text(encoding="utf-8"):
        raise UserError(f"'{page}' was not made by this command and would be lost; choose another --results folder")
    listed = results / CAMPAIGNS / file.name
    if listed.resolve() != file.resolve():
        listed.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, listed)


def record_run(folder: Path, record: Path) -> None:
    """Copies what a reader of a finished run needs: settings, metrics, summary. Paths of this machine stay behind."""
    import yaml

    record.mkdir(parents=True, exist_ok=True)
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    write_durably(record / "config.yaml", yaml.safe_dump(_without_paths(config), sort_keys=False).encode())
    shutil.copyfile(folder / "metrics.csv", record / "metrics.csv")
    write_json(record / "summary.json", read_json(folder / "summary.json"))


def _without_paths(config: dict[str, Any]) -> dict[str, Any]:
    """A run's settings without where things lay; of a teacher's path the run's name stays."""
    data, teacher = dict(config.get("data") or {}), config.get("teacher")
    data["path"] = None
    if teacher and teacher.get("path"):
        teacher = teacher | {"path": Path(teacher["path"]).name}
    return config | {"out": None, "data": data, "teacher": teacher}


def write_page(results: Path) -> None:
    """Makes the page of each campaign and the page of all of them from the records that lie in a folder of results."""
    pages = []
    for file in sorted((results / CAMPAIGNS).glob("*.yaml")):
        runs = read_run_list(file)
        body = _campaign(runs, file, results)
        alone = f"{GENERATED}\n\n# {runs.title or file.stem}\n\n{body}"
        write_durably(results / f"{file.stem}.md", alone.encode())
        pages.append(f"## {runs.title or file.stem}\n\n{body}")
    head = (
        f"{GENERATED}\n\n# Results\n\n"
        "Accuracies are of the last epoch on the whole test set, in percent; no epoch and no setting was chosen on "
        "test images. ± is the sample standard deviation over seeds. The folder `runs` holds each run's settings, "
        "curves and summary; `spikedistill table results/runs/<campaign>` makes these tables again.\n\n"
    )
    write_durably(results / PAGE, (head + "\n".join(pages)).encode())


def _campaign(runs: RunList, file: Path, results: Path) -> str:
    records = results / RECORDS / file.stem
    planned = plan(runs, records, [])
    missing = [run for run in planned if not (records / run.name / "summary.json").is_file()]
    parts = [runs.description.strip()] if runs.description.strip() else []
    if len(missing) < len(planned):
        parts.append(to_markdown(find_runs([records])).strip())
    if missing:
        parts.append(f"Still to run ({len(missing)} of {len(planned)} runs):")
        parts.append(_pending(missing))
    parts.append(f"Made by `spikedistill campaign {results.name}/{CAMPAIGNS}/{file.name} --results {results.name}`.")
    return "\n\n".join(parts) + "\n"


def _pending(missing: Iterable[Planned]) -> str:
    """A row for each entry that has runs missing: its command and what it costs."""
    seeds: dict[str, list[int]] = {}
    first: dict[str, Planned] = {}
    for run in missing:
        seeds.setdefault(run.entry.name, []).append(run.seed)
        first.setdefault(run.entry.name, run)
    lines = [
        "| data | student | method | T | published % | seeds | command | cost of a run |",
        "|---|---|---|---:|---:|---|---|---|",
    ]
    for name, run in first.items():
        recipe = run.recipe
        settings = " ".join(f"{key}={json.dumps(value)}" for key, value in run.entry.set.items())
        cells = (
            recipe.data.name,
            recipe.student.model if recipe.student else EMPTY,
            recipe.method["name"],
            str(recipe.timesteps) if recipe.spiking_student() else EMPTY,
            percent(recipe.published.figure if recipe.published else None),
            " ".join(map(str, seeds[name])),
            f"`spikedistill train {run.entry.recipe}{' ' + settings if settings else ''} seed={seeds[name][0]}`",
            run.entry.estimate or EMPTY,
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
