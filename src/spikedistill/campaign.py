"""The command ``campaign``: a list of runs that is picked up where it stopped, its results written as they come."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from spikedistill.errors import Stopped, TrainingFailed, UserError
from spikedistill.results import RECORDS, enlist, record_run, write_page
from spikedistill.run import train
from spikedistill.runlist import plan, read_run_list


def run_campaign(
    file: Path,
    *,
    out: Path | None = None,
    results: Path | None = None,
    minutes: float | None = None,
    overrides: list[str] | None = None,
    smoke: bool = False,
    say: Callable[[str], None] = print,
) -> list[str]:
    """Makes the runs of a campaign that are not finished yet, one after another.

    Args:
        file: the campaign.
        out: where run folders go; None for ``runs/<file's name>``.
        results: where records and pages are written; None for nowhere.
        minutes: stop, with a checkpoint, after so long.
        overrides: dotted overrides ``key=value`` for all runs.
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
    for number, run in enumerate(planned, 1):
        head = f"{number}/{len(planned)} {run.name}"
        try:
            summary = train(run.recipe, resume=True, deadline=deadline).summary
        except Stopped as error:
            troubles.append(f"{head}: {error}, as this command does")
            break
        except (UserError, TrainingFailed) as error:
            troubles.append(f"{head}: {error}")
            say(troubles[-1])
            continue
        say(f"{head}: {summary['student_accuracy']:.2f} %")
        if results is not None:
            record_run(run.recipe.folder(), results / RECORDS / file.stem / run.name)
            write_page(results)
    if results is not None:
        write_page(results)
    return troubles
