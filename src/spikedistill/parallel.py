"""Many small runs at once: one process each, as many as there are processors, one thread a process.

A small network gains little from a second thread, and two runs side by side gain nearly a factor of two.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
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
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_single_threaded) as pool:
        futures = [pool.submit(_train, recipe) for recipe in recipes]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _single_threaded() -> None:
    import torch

    torch.set_num_threads(1)


def _train(recipe: Recipe) -> dict[str, Any]:
    from spikedistill.run import train

    return train(recipe, resume=True, verbose=False).summary
