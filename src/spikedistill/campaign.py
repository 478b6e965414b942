"""The command ``campaign``: a list of runs that is picked up where it stopped, its results written as they come."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from spikedistill.errors import Stopped, UserError
from spikedistill.parallel import check_budget, check_places, train_all
from spikedistill.results import RECORDS, enlist, record_run, unmade, write_page
from spikedistill.runlist import Planned, choose_entries, plan, read_run_list


def run_campaign(
    file: Path,
    *,
    out: Path | None = None,
    results: Path | None = None,
    minutes: float | None = None,
    workers: int = 1,
    overrides: list[str] | None = None,
    only: list[str] | None = None,
    smoke: bool = False,
    say: Callable[[str], None] = print,
) -> list[str]:
    """Makes the runs of a campaign that are not finished yet.

    A run whose record is among the results, with the settings that the list asks for, is finished wherever it was made,
    but is made again where a run that is not needs it as its teacher: records have no weights.

    Args:
        file: the campaign.
        out: where run folders go; None for ``runs/<file's name>``, ``-smoke`` behind it for those of a smoke run.
        results: where records and pages are written; None for nowhere.
        minutes: stop, with a checkpoint, after so long.
        workers: runs made side by side, each in a process of its own.
        overrides: dotted overrides ``key=value`` for all runs; ``seed=0,2`` makes only the runs of these seeds.
        only: labels, or patterns of labels such as ``*sakd*``, of the entries to make; None for all.
        smoke: shrink every run to seconds.
        say: takes a line of progress.

    Returns:
        Why runs were left out or failed, a line each; empty if everything is done.

    Raises:
        UserError: the file is wrong, or a pattern fits no label.
    """
    if smoke and results is not None:
        raise UserError("--smoke shrinks runs to seconds, which are no results; leave --results out")
    check_budget(workers, minutes)
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    out = out or Path("runs") / (file.stem + ("-smoke" if smoke else ""))
    planned = plan(choose_entries(read_run_list(file), only or []), out, overrides or [], smoke)
    check_places([run.recipe for run in planned])
    if results is not None:
        enlist(file, results)
        write_page(results)  # before hours are spent: a list that cannot be read any more ends it now
        planned, recorded = _unrecorded(planned, results / RECORDS / file.stem)
        if recorded:
            say(f"{recorded} runs are among the records of '{results}' already, and are left out")
    troubles = []
    for ended in train_all([run.recipe for run in planned], workers=workers, deadline=deadline, verbose=True):
        run = planned[ended.number]
        head = f"{ended.number + 1}/{len(planned)} {run.name}"
        if ended.summary is None:
            late = isinstance(ended.trouble, Stopped)
            troubles.append(f"{head}: {ended.trouble}{', as this command does' if late else ''}")
            say(troubles[-1])
            continue
        say(f"{head}: {ended.summary['student_accuracy']:.2f} %")
        if results is not None:
            record_run(run.recipe.folder(), results / RECORDS / file.stem / run.name)
            write_page(results)
    if results is not None:
        write_page(results)
    return troubles


def _unrecorded(planned: list[Planned], records: Path) -> tuple[list[Planned], int]:
    """The runs that are to be made, and how many others there are."""
    needed = {run.recipe.folder() for run in unmade(planned, records)}
    for run in reversed(planned):  # a teacher, which may have been taught itself, stands before those that it teaches
        if run.recipe.folder() in needed and run.recipe.teacher and run.recipe.teacher.path:
            needed.add(Path(run.recipe.teacher.path))
    left = [run for run in planned if run.recipe.folder() in needed]
    return left, len(planned) - len(left)
