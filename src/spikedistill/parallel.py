"""Many small runs at once: one process each, as many as there are processors, one thread a process.

A small network gains little from a second thread, and two runs side by side gain nearly a factor of two.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import active_children, get_context, parent_process
from typing import Any

from spikedistill.recipe import Recipe


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def train_many(recipes: Sequence[Recipe], workers: int | None = None) -> Iterator[dict[str, Any]]:
    """Trains recipes, those that are finished already excepted, and yields their summaries as they end.

    Args:
        recipes: runs that do not depend on each other.
        workers: processes; None takes one per processor, 1 trains here.

    Raises:
        UserError: from the first run that is refused; the others are not begun.
    """
    workers = min(workers or processors(), len(recipes))
    if workers <= 1:
        yield from map(_train, recipes)
        return
    # Fresh processes: one that was forked would inherit the threads of torch half-way through their work.
    others = set(active_children())
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin) as pool:
        futures = [pool.submit(_train, recipe) for recipe in recipes]
        try:
            for future in as_completed(futures):
                yield future.result()
        except Exception:
            raise
        except BaseException:  # a signal: runs that are under way write a checkpoint first
            for child in set(active_children()) - others:
                child.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _begin() -> None:
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


def _train(recipe: Recipe) -> dict[str, Any]:
    from spikedistill.run import train

    return train(recipe, resume=True, verbose=False).summary
