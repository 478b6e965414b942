"""Committed results: the records of finished runs, and the page that is made from them.

A folder of results holds::

    campaigns/*.yaml          the lists of runs
    runs/<campaign>/<run>/    config.yaml, metrics.csv and summary.json of each finished run
    <campaign>.md             its table, and what could not be run yet with its command
    experiments/<name>/       an experiment's experiment.json and pictures, and its runs as above
    <name>.md                 its tables and pictures
    README.md                 all of them
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from spikedistill.documents import CHARACTERS, JSON_CHARACTERS, read_text, read_yaml
from spikedistill.engine.checkpoint import sweep_below, write_durably
from spikedistill.errors import UserError
from spikedistill.report import find_runs, to_markdown
from spikedistill.report.experiment import RECORD as EXPERIMENT
from spikedistill.report.experiment import as_written
from spikedistill.report.quantities import EMPTY, percent
from spikedistill.resuming import is_finished
from spikedistill.runfolder import read_json, write_json
from spikedistill.runlist import Planned, RunList, Setting, folder_name, plan, read_run_list
from spikedistill.study.render import to_markdown as experiment_markdown
from spikedistill.sweep import list_experiments, read_sweep

CAMPAIGNS, EXPERIMENTS, RECORDS, PAGE = "campaigns", "experiments", "runs", "README.md"
GENERATED = "<!-- made by spikedistill from the records beside it; changes by hand are lost -->"


def enlist(file: Path, results: Path) -> None:
    """Puts a campaign's file among the results, whose page names what of it is still to run.

    Raises:
        UserError: a page that would be written was not made by this command, or is that of something else.
    """
    check_pages(results, file.stem)
    if (results / EXPERIMENTS / file.stem).is_dir():
        raise UserError(f"'{results / f'{file.stem}.md'}' is an experiment's page; give the list of runs another name")
    listed = results / CAMPAIGNS / f"{file.stem}.yaml"
    if listed.resolve() != file.resolve():
        if listed.is_file() and read_run_list(listed).title != read_run_list(file).title:
            raise UserError(f"'{listed}' is a list of another title, and would be lost; give one another name")
        listed.parent.mkdir(parents=True, exist_ok=True)
        write_durably(listed, read_text(file, f"list of runs '{file}'", CHARACTERS).encode())


def check_pages(results: Path, name: str) -> None:
    """Refuses a folder in which somebody else's pages would be lost.

    Args:
        results: the folder.
        name: of the campaign or experiment whose page will be written there, beside README.md.

    Raises:
        UserError: one of the two was not made by this package.
    """
    for page in (results / PAGE, results / f"{name}.md"):
        if page.exists() and GENERATED not in read_text(page, f"'{page}'", JSON_CHARACTERS):
            raise UserError(f"'{page}' was not made by this command and would be lost; choose another --results folder")


def check_experiment(results: Path, name: str) -> None:
    """Refuses an experiment that has a campaign's name, and so its page.

    Raises:
        UserError: it has.
    """
    if (results / CAMPAIGNS / f"{name}.yaml").is_file():
        raise UserError(f"'{results / f'{name}.md'}' is a campaign's page; give the experiment another name")


def record_run(folder: Path, record: Path) -> None:
    """Copies what a reader of a finished run needs: settings, metrics, summary. Paths of this machine stay behind."""
    import yaml

    record.mkdir(parents=True, exist_ok=True)
    (record / "summary.json").unlink(missing_ok=True)  # of other settings, whose figure these would pass off as theirs
    config = read_yaml(folder / "config.yaml", f"'{folder / 'config.yaml'}'")
    write_durably(record / "config.yaml", yaml.safe_dump(_without_paths(config), sort_keys=False).encode())
    metrics = read_text(folder / "metrics.csv", f"'{folder / 'metrics.csv'}'", JSON_CHARACTERS)
    write_durably(record / "metrics.csv", metrics.encode())
    # The last one: a record without it counts as a run that is still to be made.
    write_json(record / "summary.json", read_json(folder / "summary.json"))


def record_experiment(folder: Path, results: Path) -> None:
    """Puts a finished experiment, as the command ``experiment`` left it in ``folder``, among the results.

    Raises:
        UserError: runs are missing, a campaign has its name, or the record is not what the command writes.
    """
    content = read_json(folder / EXPERIMENT)
    with as_written(folder / EXPERIMENT):
        name, runs = Path(content["name"]).name, content["runs"]
        missing = runs["planned"] - runs["finished"]
        files = [Path(file).name for picture in content["pictures"] for file in picture["files"]]
    if missing:
        raise UserError(f"{missing} runs of '{name}' are missing; nothing was recorded")
    check_experiment(results, name)
    record = results / EXPERIMENTS / name
    for summary in sorted(folder.glob("*/summary.json")):
        record_run(summary.parent, record / RECORDS / summary.parent.name)
    for file in files:
        write_durably(record / file, (folder / file).read_bytes())
    write_json(record / EXPERIMENT, content)


def _without_paths(config: dict[str, Any]) -> dict[str, Any]:
    """A run's settings without where things lay; of the paths of other runs their names stay."""
    runs = {
        key: config[key] | {"path": Path(config[key]["path"]).name}
        for key in ("teacher", "init")
        if (config.get(key) or {}).get("path")
    }
    return config | {"out": None, "data": {**(config.get("data") or {}), "path": None}, **runs}


def write_page(results: Path) -> None:
    """Makes the page of each campaign and experiment, and the page of all, from the records in a folder of results."""
    sweep_below(results)
    bodies: dict[str, tuple[str, str]] = {}
    for file in sorted((results / CAMPAIGNS).glob("*.yaml")):
        runs = read_run_list(file)
        bodies[file.stem] = runs.title or file.stem, _campaign(runs, file, results)
    for file in sorted((results / EXPERIMENTS).glob(f"*/{EXPERIMENT}")):
        content, name = read_json(file), file.parent.name
        with as_written(file):
            bodies[name] = content["title"], experiment_markdown(content, f"{EXPERIMENTS}/{name}/")
    for name, (title, body) in bodies.items():
        write_durably(results / f"{name}.md", f"{GENERATED}\n\n# {title}\n\n{body}".encode())
    if (results / EXPERIMENTS).is_dir() and (pending := _experiments_left(set(bodies))):
        bodies[EXPERIMENTS] = "Experiments still to run", pending
    head = (
        f"{GENERATED}\n\n# Results\n\n"
        "Accuracies are of the last epoch on the whole test set, unless a section says on how much of it, in percent; "
        "no epoch and no setting was chosen on test images. ± is the sample standard deviation over seeds. Firing "
        "rates are spikes per neuron and timestep, in a campaign's tables the mean over layers. The folders `runs` and "
        "`experiments` hold each run's settings, curves and summary; "
        "`spikedistill table results/runs/<campaign>` makes these tables again.\n\n"
    )
    parts = (f"## {title}\n\n{body}" for title, body in bodies.values())
    write_durably(results / PAGE, (head + "\n".join(parts)).encode())


def is_made(run: Planned, records: Path) -> bool:
    """Whether a run is among the records with the settings, and the teacher, that its list has now."""
    record, teacher = records / run.name, run.recipe.teacher
    if not is_finished(record, run.recipe):
        return False
    if run.entry.teacher is None:
        return True
    assert teacher is not None and teacher.path is not None
    taught_by = read_yaml(record / "config.yaml", f"'{record / 'config.yaml'}'").get("teacher") or {}
    return taught_by.get("path") == Path(teacher.path).name


def unmade(planned: Sequence[Planned], records: Path) -> list[Planned]:
    """The runs that are not among the records, or whose teacher is not."""
    missing: dict[Path, Planned] = {}
    for run in planned:  # teachers come before those that they teach
        teacher = run.recipe.teacher
        taught_anew = teacher is not None and teacher.path is not None and Path(teacher.path) in missing
        if taught_anew or not is_made(run, records):
            missing[run.recipe.folder()] = run
    return list(missing.values())


def _campaign(runs: RunList, file: Path, results: Path) -> str:
    records = results / RECORDS / file.stem
    planned = plan(runs, records, [])
    missing = unmade(planned, records)
    parts = [runs.description.strip()] if runs.description.strip() else []
    there = {file.parent for file in records.glob("*/summary.json")}
    made = {records / run.name for run in planned if is_made(run, records)}
    if there & made:
        parts.append(to_markdown(find_runs(sorted(there & made))).strip())
    if others := sorted(there - made):
        parts.append("Of other settings than this list's, which their `config.yaml` tells:")
        parts.append(to_markdown(find_runs(others)).strip())
    if missing:
        parts.append(f"Still to run ({len(missing)} of {len(planned)} runs):")
        parts.append(_pending(runs, missing, Path("runs") / file.stem))
    listed, place = (shlex.quote(text) for text in (f"{results.name}/{CAMPAIGNS}/{file.name}", results.name))
    parts.append(f"Made by `spikedistill campaign {listed} --results {place}`.")
    return "\n\n".join(parts) + "\n"


def _experiments_left(recorded: set[str]) -> str:
    """A row for each shipped experiment without a record: what it shows, its runs and its command."""
    lines = ["| experiment | published in | runs | size | command |", "|---|---|---:|---|---|"]
    for name in list_experiments():
        if name in recorded:
            continue
        sweep = read_sweep(name)
        runs = (len(sweep.runs) - len(sweep.small.without)) * len(sweep.small.seeds or sweep.seeds)
        command = f"`spikedistill experiment {name} --results results`"
        lines.append(f"| {sweep.title} | {sweep.source} | {runs} | {sweep.small.about} | {command} |")
    return "\n".join(lines) + "\n" if len(lines) > 2 else ""


def _setting(key: str, value: Setting) -> str:
    """As one writes it in a shell."""
    return shlex.quote(f"{key}={value if isinstance(value, str) else json.dumps(value)}")


def _pending(runs: RunList, missing: Iterable[Planned], place: Path) -> str:
    """A row for each entry that has runs missing: its command, in the folder that the campaign uses, and its cost."""
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
        settings = [
            _setting(key, value) for key, value in (runs.set | run.entry.set).items() if "published." not in key
        ]
        settings += [f"seed={run.seed}", _setting("out", str(place / run.name))]
        if run.entry.teacher is not None:
            settings.append(_setting("teacher.path", str(place / folder_name(run.entry.teacher, run.seed))))
        command = " ".join(["spikedistill train", shlex.quote(run.entry.recipe), *settings])
        cells = (
            recipe.data.name,
            recipe.student.model if recipe.student else EMPTY,
            recipe.method["name"],
            str(recipe.timesteps) if recipe.spiking_student() else EMPTY,
            percent(recipe.published.figure if recipe.published else None),
            " ".join(map(str, seeds[name])),
            f"`{command}`",
            run.entry.estimate or EMPTY,
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
