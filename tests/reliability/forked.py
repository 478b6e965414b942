"""Runs in processes of their own, to be killed: forked from one server that has imported everything already."""

from __future__ import annotations

import errno
import gc
import multiprocessing
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import lightning_fabric  # noqa: F401 (imported for the processes that are forked from here)
import sklearn.datasets  # noqa: F401
import tensorboard.summary.writer.record_writer  # noqa: F401
import torch
from torch.utils.data import Dataset

import spikedistill as sd
from spikedistill.engine import loop
from spikedistill.engine.lock import hold
from spikedistill.engine.loop import Trainer
from spikedistill.errors import UserError
from spikedistill.recipe import Recipe
from spikedistill.recipebook import read_recipe
from spikedistill.run import train

EACH_STEP = 1e-9
"""``checkpoint_minutes`` that leave a checkpoint at each step."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC


def recipe(out: Path, *overrides: str, name: str = "digits-2conv-kdsnn-response") -> Recipe:
    """A taught run of seconds at most: a teacher of 2 epochs, a student of 3 epochs of 6 steps, a validation part."""
    small = ["data.subset=64", "data.test_subset=32", "data.validation=0.25", "student.width=4", "batch_size=8"]
    small += ["epochs=3", f"checkpoint_minutes={EACH_STEP}", f"out={out}"]
    if name != "digits-2conv-snn":
        small += ["teacher.width=8", "teacher.epochs=2", "teacher.batch_size=16"]
    return read_recipe(name, [*small, *overrides])


def start(function: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Calls ``function`` (of a module that can be imported) in a process of its own."""
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(Path(__file__).parent), *filter(None, sys.path)]))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["forked"])
    process = context.Process(target=function, args=arguments)
    process.start()
    return process


def queue() -> Any:
    """A queue that such a process can write to."""
    return multiprocessing.get_context("forkserver").SimpleQueue()


def hold_forever(folder: Path, ready: Any) -> None:
    """Holds a run folder and says so."""
    with hold(folder):
        ready.put(True)
        signal.pause()


def hold_with_a_child(folder: Path, ready: Any) -> None:
    """Holds a run folder, forks, and says the child's number."""
    with hold(folder):
        child = os.fork()
        if child:
            ready.put(child)
        signal.pause()


def nothing() -> None:
    """Ends at once."""


def run(asked: Recipe, resume: bool = False, steps: Any = None) -> None:
    """Trains; ``steps`` is a shared number that counts finished optimiser steps."""
    torch.set_num_threads(1)
    loop.EPOCH_SECONDS = 0.0  # these epochs end with a checkpoint as do those that take longer
    if steps is not None:
        _count(steps)
    train(asked, resume=resume, verbose=False)


def run_counting(asked: Recipe, operations: Any) -> None:
    """Trains; ``operations`` is a shared number that counts the changes of files in the run folder."""

    def count(_number: int) -> None:
        operations.value += 1

    _at_operations(asked, count)
    run(asked)


def run_until_operation(asked: Recipe, number: int) -> None:
    """Trains, and dies by SIGKILL just before the ``number``-th change of a file in the run folder, from 1."""
    _at_operations(asked, lambda at: os.kill(os.getpid(), signal.SIGKILL) if at == number else None)
    run(asked)


def run_failing_at_operation(asked: Recipe, number: int, said: Any) -> None:
    """Trains on a disk that is full at the ``number``-th change of a file, and puts what is said into a queue."""

    def fail(at: int) -> None:
        if at == number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    _at_operations(asked, fail)
    run_saying(asked, False, said)


def run_with_small_files(asked: Recipe, limit: int, said: Any) -> None:
    """Trains where no file may be larger than ``limit`` bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    run_saying(asked, False, said)


def run_watching_memory(folder: Path, steps: int, said: Any) -> None:
    """Trains so many steps and says the process's memory in bytes after 500 of them and at the end."""
    seen: list[int] = []
    step, done = Trainer._step, 0

    def watched(self: Trainer, *arguments: Any) -> bool:
        nonlocal done
        done += 1
        if done in (500, steps):
            gc.collect()
            seen.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize())
        return step(self, *arguments)

    Trainer._step = watched  # type: ignore[method-assign]
    # 200 images, a batch of 2: 100 steps an epoch, with their rows, checkpoints and validations.
    small = ["batch_size=2", f"epochs={steps // 100}", "checkpoint_minutes=1000", "timesteps=1", "student.width=1"]
    small += ["data.subset=222", "data.validation=0.1", "optimizer={name: sgd, lr: 0.001}"]
    run(recipe(folder, *small, name="digits-2conv-snn"))
    said.put(seen)


class Readable(Dataset):
    """Images, of which the last one cannot be read if that is wanted."""

    def __init__(self, good: bool, count: int = 16) -> None:
        self.good, self.count = good, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if not self.good and index == self.count - 1:
            raise UserError("the last image cannot be read")
        return torch.full((1, 8, 8), index % 2 + 0.5), index % 2


def distilled(folder: Path, good: bool, epochs: int = 1) -> None:
    """Distils with reading processes (forked ones, not from a server of their own that would import everything)."""
    multiprocessing.set_start_method("fork", force=True)
    make: dict[str, Any] = {"num_classes": 2, "in_channels": 1, "image_size": 8, "width": 2}
    ann, snn = sd.create_model("2conv", **make), sd.create_model("2conv", **make, spiking=True, timesteps=1)
    options: dict[str, Any] = {
        "classes": ("a", "b"),
        "validation": 0.0,
        "workers": 2,
        "verbose": False,
        "epochs": epochs,
    }
    with suppress(UserError):
        sd.distill(ann, snn, Readable(good), Readable(True), batch_size=4, out=folder, **options)


def run_counting_what_is_left(folder: Path, good: bool, said: Any) -> None:
    """Distils twice, and says which threads, files and processes there were after the first and after the second."""
    left = []
    for number in range(2):
        distilled(folder / str(number), good)
        gc.collect()
        files = sorted(os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if _is_open(name))
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        left.append((sorted(thread.name for thread in threading.enumerate()), files, children))
    said.put(left)


def _is_open(descriptor: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{descriptor}")


def run_with_workers_forever(folder: Path, said: Any) -> None:
    """Distils with reading processes, says their numbers at the first step, and goes on."""
    step, told = Trainer._step, False

    def telling(self: Trainer, *arguments: Any) -> bool:
        nonlocal told
        if not told:
            told = True
            said.put([int(n) for n in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()])
        return step(self, *arguments)

    Trainer._step = telling  # type: ignore[method-assign]
    distilled(folder, True, 100_000)


def run_signalled(asked: Recipe, number: int, step: int, said: Any) -> None:
    """Trains, and gets a signal in the middle of the ``step``-th step, the teacher's included, from 1."""
    train_step, left = Trainer._step, step

    def signalled(self: Trainer, *arguments: Any) -> bool:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), number)
        return train_step(self, *arguments)

    Trainer._step = signalled  # type: ignore[method-assign]
    # Tests started in the background (nohup, a shell's `&`) inherit that SIGINT is ignored; this is not about that.
    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    run_saying(asked, False, said)


def run_saying(asked: Recipe, resume: bool, said: Any) -> None:
    """Trains, and puts the exception's kind and message into a queue, or ``None`` where all went well."""
    try:
        run(asked, resume)
    except Exception as error:
        said.put((type(error).__name__, str(error)))
    else:
        said.put(None)


def _at_operations(asked: Recipe, act: Callable[[int], None]) -> None:
    """Calls ``act`` with the number of each change of a file in the run folder, just before it happens."""
    _at_operations_below(str(asked.out), act)


def _at_operations_below(folder: str, act: Callable[[int], None]) -> None:
    done = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal done
        if is_write(event, arguments, folder):
            done += 1
            act(done)

    sys.addaudithook(hook)


def is_write(event: str, arguments: tuple[Any, ...], folder: str) -> bool:
    """Whether an audit event is a change below ``folder``."""
    if event == "open":
        path, _, flags = arguments
        return bool(flags & WRITING) and str(path).startswith(folder)
    return event in ("os.rename", "os.remove", "os.mkdir") and str(arguments[0]).startswith(folder)


def _count(steps: Any) -> None:
    step = Trainer._step

    def counted(self: Trainer, *arguments: Any) -> bool:
        updated = step(self, *arguments)
        steps.value += 1
        return updated

    Trainer._step = counted  # type: ignore[method-assign]


def campaign(file: Path, results: Path, number: int = 0) -> None:
    """Makes a campaign's runs and results in the file's folder, and dies just before the ``number``-th change there."""
    from spikedistill.campaign import run_campaign

    torch.set_num_threads(1)
    _dying(file.parent, number)
    run_campaign(file, out=file.parent / "runs", results=results, say=lambda line: None)


def experiment(file: Path, number: int = 0) -> None:
    """Makes an experiment in the file's folder, and dies just before the ``number``-th change of a file there."""
    from spikedistill.experiment import run_experiment

    torch.set_num_threads(1)
    _dying(file.parent, number)
    run_experiment(str(file), out=file.parent / "runs", say=lambda line: None)


def _dying(folder: Path, number: int) -> None:
    _at_operations_below(str(folder), lambda at: os.kill(os.getpid(), signal.SIGKILL) if at == number else None)
