"""The command ``experiment``: one of the papers' experiments, from its runs to a table and a picture."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from spikedistill.engine.checkpoint import write_durably
from spikedistill.errors import Stopped, TrainingFailed, UserError, unknown
from spikedistill.parallel import check_budget, check_places, train_all
from spikedistill.report import find_runs, write_report
from spikedistill.report.experiment import RECORD
from spikedistill.results import check_experiment, check_pages, record_experiment, write_page
from spikedistill.resuming import MAY_CHANGE, is_finished
from spikedistill.run import SUMMARY
from spikedistill.runfolder import read_summary, write_json
from spikedistill.spiking import compiling
from spikedistill.study import CHECKS, STUDIES, Done, Finding
from spikedistill.study.draw import save
from spikedistill.study.render import print_table, to_data, to_markdown
from spikedistill.sweep import PAPER, SMALL, Planned, Sweep, plan, read_sweep

PAGE, TABLES = "report.html", "tables.md"


def run_experiment(
    name: str,
    *,
    scale: str = SMALL,
    smoke: bool = False,
    out: Path | None = None,
    results: Path | None = None,
    minutes: float | None = None,
    workers: int = 1,
    overrides: list[str] | None = None,
    say: Callable[[str], None] = print,
) -> list[str]:
    """Makes the runs of an experiment that are not finished yet, and its tables, pictures and page from those that are.

    Args:
        name: a shipped experiment or a YAML file.
        scale: ``small`` (fits two processors) or ``paper``.
        smoke: only a few runs, each shrunk to seconds; its figures mean nothing.
        out: folder for the run folders and the results; None for ``runs/experiments/<name>``.
        results: where the finished experiment's record and page are written; None for nowhere.
        minutes: stop, with a checkpoint, after so long.
        workers: runs made side by side, each in a process of its own.
        overrides: dotted overrides ``key=value`` for all runs; ``seed=0,1,2`` takes the place of the scale's seeds.
        say: takes a line of progress.

    Returns:
        Why runs were left out or failed, a line each; empty if everything is done.

    Raises:
        UserError: an unknown experiment, scale or key, or options that do not go together.
    """
    sweep = read_sweep(name)
    if sweep.study not in STUDIES:
        raise unknown(f"study in experiment '{name}'", sweep.study, list(STUDIES))
    if smoke and results is not None:
        raise UserError("--smoke shrinks runs to seconds, which are no results; leave --results out")
    label = Path(name).stem
    if results is not None:
        check_pages(results, label)
        check_experiment(results, label)
    check_budget(workers, minutes)
    if sweep.study in CHECKS:
        CHECKS[sweep.study]()
    out = out or Path("runs") / "experiments" / (label + ("-smoke" if smoke else "-paper" if scale == PAPER else ""))
    planned = plan(sweep, scale, out, overrides or [], smoke)
    check_places([one.recipe for one in planned])
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    told = {"name": label, "scale": "smoke" if smoke else scale, "command": _command(name, scale, smoke, overrides)}
    # What a smoke run computes is too little for kernels to be worth compiling.
    with compiling.choose("plain") if smoke else nullcontext():
        troubles = _made(sweep, planned, out, told, _changed(overrides or []), deadline, workers, say)
    if results is not None and not troubles:
        record_experiment(out, results)
        write_page(results)
    return troubles


def _made(
    sweep: Sweep,
    planned: list[Planned],
    out: Path,
    told: dict[str, str],
    changed: Sequence[str],
    deadline: float | None,
    workers: int,
    say: Callable[[str], None],
) -> list[str]:
    troubles = _train(planned, deadline, workers, say, verbose=told["scale"] != "smoke")
    done = [
        Done(one, read_summary(one.recipe.folder() / SUMMARY), one.recipe.folder())
        for one in planned
        if is_finished(one.recipe.folder(), one.recipe)
    ]
    if not done:
        raise TrainingFailed(f"experiment '{told['name']}' has no finished run yet; {troubles[-1]}")
    finding = _found(sweep, done, planned, told["name"])
    _write(sweep, finding, done, len(planned), out, told, changed)
    _show(sweep, finding, out, told, say)
    return troubles


def _found(sweep: Sweep, done: list[Done], planned: list[Planned], name: str) -> Finding:
    """What the study finds.

    Raises:
        UserError: the options in the experiment's file are not the study's.
    """
    try:
        return STUDIES[sweep.study](done, planned, sweep.options)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"the options of experiment '{name}' do not suit its study '{sweep.study}' ({error!r}); its runs are kept"
        ) from error


def _train(
    planned: list[Planned], deadline: float | None, workers: int, say: Callable[[str], None], *, verbose: bool
) -> list[str]:
    troubles = []
    for ended in train_all([one.recipe for one in planned], workers=workers, deadline=deadline, verbose=verbose):
        head = f"{ended.number + 1}/{len(planned)} {planned[ended.number].recipe.folder().name}"
        if ended.summary is not None:
            say(f"{head}: {ended.summary['student_accuracy']:.2f} %")
            continue
        late = isinstance(ended.trouble, Stopped)
        troubles.append(f"{head}: {'time is up; the same command goes on from here' if late else ended.trouble}")
        say(troubles[-1])
    return troubles


def _command(name: str, scale: str, smoke: bool, overrides: Iterable[str] | None) -> str:
    # Where data lie is the reader's own; everything else makes these figures again.
    kept = [shlex.quote(text) for text in overrides or () if not text.startswith("data.path=")]
    flags = [*(["--scale", scale] if scale != SMALL else []), *(["--smoke"] if smoke else [])]
    return " ".join(["spikedistill", "experiment", shlex.quote(name), *kept, *flags])


def _write(
    sweep: Sweep,
    finding: Finding,
    done: list[Done],
    planned: int,
    out: Path,
    told: dict[str, str],
    changed: Sequence[str],
) -> None:
    pictures = [
        {"files": save(picture, out), "caption": picture.caption, "name": picture.name} for picture in finding.pictures
    ]
    content: dict[str, Any] = {
        **told,
        "title": sweep.title,
        "source": sweep.source,
        "about": _about(sweep, told["scale"], changed),
        "runs": {"finished": len(done), "planned": planned},
        "seeds": sorted({one.planned.seed for one in done}),
        **{key: sorted({str(one.summary[key]) for one in done}) for key in ("device", "torch", "commit")},
        "test_images": sorted({int(one.summary["test_images"]) for one in done}),
        "tables": [to_data(table) for table in finding.tables],
        "pictures": pictures,
        "notes": list(finding.notes),
        "data": finding.data,
    }
    write_json(out / RECORD, content)
    write_durably(out / TABLES, f"# {sweep.title}\n\n{to_markdown(content)}".encode())
    write_report(find_runs([out]), out / PAGE, title=sweep.title)


def _about(sweep: Sweep, scale: str, changed: Sequence[str]) -> str:
    small = f"At a size for two processors: {sweep.small.about}. Published figures are of the paper's size and data."
    size = {SMALL: small if sweep.small.about else "", PAPER: ""}
    smoke = "A smoke run: whether everything works, not what the figures are."
    told = f"Changed by the command: {', '.join(changed)}; the published figures are not of that." if changed else ""
    return " ".join(filter(None, (sweep.about, size.get(scale, smoke), told))).strip()


def _changed(overrides: Iterable[str]) -> list[str]:
    """The overrides that make other runs of these, in which a published figure says nothing about ours."""
    return [text for text in overrides if text.partition("=")[0] not in (*MAY_CHANGE, "seed")]


def _show(sweep: Sweep, finding: Finding, out: Path, told: dict[str, str], say: Callable[[str], None]) -> None:
    from rich.console import Console

    console = Console()
    say(f"{sweep.title} ({sweep.source})")
    if told["scale"] == "smoke":
        say("a smoke run: whether everything works, not what the figures are")
    for table in finding.tables:
        print_table(table, console)
    say(f"report: {out / PAGE}")
