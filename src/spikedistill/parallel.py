"""Many small runs at once: one process each, as many as there are processors, one thread a process.

A small network gains little from a second thread, and two runs side by side gain nearly a factor of two.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from typing import Any

from spikedistill.errors import Stopped, TrainingFailed, UserError
from spikedistill.recipe import Recipe


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Ended:
    """How a run of several ended.

    Attributes:
        number: its place in the list, from 0.
        summary: what ``summary.json`` holds; None where it was not finished.
        trouble: why not.
    """

    number: int
    summary: dict[str, Any] | None = None
    trouble: UserError | TrainingFailed | None = None


def check_budget(workers: int, minutes: float | None) -> None:
    """Refuses numbers of processes and minutes with which no run could be made.

    Raises:
        UserError: which it is.
    """
    if workers < 1:
        raise UserError(f"--workers must be at least 1, not {workers}")
    if minutes is not None and not minutes >= 0:
        raise UserError(f"--minutes must be at least 0, not {minutes:g}")


def check_places(recipes: Sequence[Recipe]) -> None:
    """Refuses, once and before anything runs, data folders of which not one is there.

    Raises:
        UserError: names the first.
    """
    places = [recipe.data.path for recipe in recipes]
    if places and not any(place is None or Path(place).expanduser().exists() for place in places):
        raise UserError(f"data.path '{places[0]}' is not a folder; pass the folder of a local data set")


def train_many(recipes: Sequence[Recipe], workers: int | None = None) -> Iterator[dict[str, Any]]:
    """Trains recipes, those that are finished already excepted, and yields their summaries as they end.

    Args:
        recipes: runs.
        workers: processes; None takes one per processor, 1 trains here.

    Raises:
        UserError: from the first run that is refused; the others are not begun.
    """
    with closing(train_all(recipes, workers=workers)) as runs:
        for ended in runs:
            if ended.summary is None:
                assert ended.trouble is not None
                raise ended.trouble
            yield ended.summary


def train_all(
    recipes: Sequence[Recipe],
    *,
    workers: int | None = 1,
    deadline: float | None = None,
    verbose: bool = False,
) -> Generator[Ended]:
    """Trains recipes, those that are finished already excepted, and yields how each ended, as they end.

    A run that is refused or fails keeps no other from being made; one whose teacher is another's run waits for that.
    After one that was stopped no other is begun.

    Args:
        recipes: the runs; a teacher stands before those that it teaches.
        workers: processes; None takes one per processor, 1 trains here. Where there are several GPUs, recipes that
            take any device are dealt out to them.
        deadline: the time, as ``time.monotonic()`` tells it, at which runs stop with a checkpoint.
        verbose: show progress; a line an epoch that names its run where several are made side by side.
    """
    workers = min(workers or processors(), len(recipes))
    if workers <= 1:
        yield from _in_turn(recipes, deadline, verbose)
        return
    # Fresh processes: one that was forked would inherit the threads of torch half-way through their work.
    others = set(active_children())
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin) as pool:
        try:
            yield from _beside(recipes, pool, workers, deadline, verbose)
        except Exception:
            raise
        except BaseException:  # a signal: runs that are under way write a checkpoint first
            for child in set(active_children()) - others:
                child.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _in_turn(recipes: Sequence[Recipe], deadline: float | None, verbose: bool) -> Iterator[Ended]:
    for number, recipe in enumerate(recipes):
        ended = _train(number, recipe, deadline, verbose)
        yield ended
        if isinstance(ended.trouble, Stopped):
            return


def _beside(
    recipes: Sequence[Recipe], pool: ProcessPoolExecutor, workers: int, deadline: float | None, verbose: bool
) -> Iterator[Ended]:
    places = {recipe.folder(): number for number, recipe in enumerate(recipes)}
    teachers = [
        places.get(Path(recipe.teacher.path)) if recipe.teacher and recipe.teacher.path else None for recipe in recipes
    ]
    dealt = _dealt_out(recipes)
    waiting, over, running, stopped = list(range(len(recipes))), set[int](), set[Future[Ended]](), False
    while running or (waiting and not stopped):
        ready = [number for number in waiting if teachers[number] in (None, number, *over)]
        try:
            for number in ready[: 0 if stopped else workers - len(running)]:
                running.add(pool.submit(_train, number, recipes[number], deadline, verbose, dealt[number]))
                waiting.remove(number)
            done, running = wait(running, return_when=FIRST_COMPLETED)
            finished = sorted((future.result() for future in done), key=lambda one: one.number)
        except BrokenProcessPool:
            raise TrainingFailed(
                "a process that trained one of the runs was killed, perhaps for want of memory; the same command goes "
                "on from the last checkpoints"
            ) from None
        for ended in finished:
            over.add(ended.number)
            stopped = stopped or isinstance(ended.trouble, Stopped)
            yield ended


def _dealt_out(recipes: Sequence[Recipe]) -> list[str | None]:
    """Where there are several GPUs, one in turn for each recipe that takes any device."""
    import torch

    count = torch.cuda.device_count()
    return [
        f"cuda:{number % count}" if count > 1 and recipe.device == "auto" else None
        for number, recipe in enumerate(recipes)
    ]


def _begin() -> None:
    # Inductor would otherwise start as many compiling processes in each of ours as there are processors, up to 32.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "2")
    import torch

    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A process of the pool would wait for work for ever when its parent is killed."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    # Training takes that signal, writes its checkpoint and puts the default back.
    while signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        time.sleep(0.1)
    os._exit(1)


def _train(number: int, recipe: Recipe, deadline: float | None, verbose: bool, device: str | None = None) -> Ended:
    from spikedistill.run import train

    try:
        run = train(recipe, resume=True, verbose=verbose, deadline=deadline, device=device)
        return Ended(number, run.summary)
    except (UserError, TrainingFailed) as trouble:
        return Ended(number, trouble=trouble)
    except (RuntimeError, MemoryError) as error:  # memory that ran out, a fault of the GPU: the other runs go on
        traceback.print_exc()
        what = str(error).splitlines()[0] if str(error) else ""
        trouble = TrainingFailed(f"{type(error).__name__}: {what}")
        if type(error).__name__ == "AcceleratorError" and "out of memory" not in what:
            # Nothing runs on that device any more in this process: every other run would fail at its first step.
            if parent_process() is None:
                raise trouble from error
            sys.stderr.flush()
            os._exit(1)
        return Ended(number, trouble=trouble)
