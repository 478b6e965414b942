"""The command ``campaign``: a list of runs that is picked up where it stopped, its results written as they come."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from spikedistill.errors import Stopped, UserError
from spikedistill.parallel import train_all
from spikedistill.results import RECORDS, enlist, record_run, write_page
from spikedistill.runlist import plan, read_run_list


def run_campaign(
    file: Path,
    *,
    out: Path | None = None,
    results: Path | None = None,
    minutes: float | None = None,
    workers: int = 1,
    overrides: list[str] | None = None,
    smoke: bool = False,
    say: Callable[[str], None] = print,
) -> list[str]:
    """Makes the runs of a campaign that are not finished yet.

    Args:
        file: the campaign.
        out: where run folders go; None for ``runs/<file's name>``.
        results: where records and pages are written; None for nowhere.
        minutes: stop, with a checkpoint, after so long.
        workers: runs made side by side, each in a process of its own.
        overrides: dotted overrides ``key=value`` for all runs; ``seed=0,2`` makes only the runs of these seeds.
        smoke: shrink every run to seconds.
        say: takes a line of progress.

    Returns:
        Why runs were left out or failed, a line each; empty if everything is done.

    Raises:
        UserError: the file is wrong.
    """
    if smoke and results is not None:
        raise UserError("--smoke shrinks runs to seconds, which are no results; leave --results out")
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    out = out or Path("runs") / file.stem
    planned = plan(read_run_list(file), out, overrides or [], smoke)
    if results is not None:
        enlist(file, results)
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
