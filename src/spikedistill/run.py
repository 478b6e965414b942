"""Puts the parts together: a recipe becomes a run folder."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from spikedistill.assembly import Parts, assemble, needs_trained_teacher, start, teacher_recipe
from spikedistill.build import load_run
from spikedistill.data import Data, Loader
from spikedistill.engine import Trainer, TrainSettings
from spikedistill.engine.checkpoint import sweep, write_durably
from spikedistill.engine.clock import Clock
from spikedistill.engine.devices import (
    check_sharding,
    check_shares,
    keep_freed_memory,
    make_fabric,
    resolve_device,
    resolve_precision,
)
from spikedistill.engine.lock import LOCK, hold
from spikedistill.engine.processes import first_alone
from spikedistill.engine.progress import Reporter
from spikedistill.engine.sharding import Sharded
from spikedistill.errors import UserError
from spikedistill.finishing import SUMMARY, Finish, validation_part
from spikedistill.methods import Method
from spikedistill.methods.base import seen_by
from spikedistill.models.fuse import channels_last, channels_last_if_taken, optimise, restore
from spikedistill.models.syncnorm import separate, synchronise
from spikedistill.recipe import Recipe
from spikedistill.report import write_run_report
from spikedistill.resuming import check_same_run
from spikedistill.runfolder import OWN_TEACHER, commit, leads_out, read_summary
from spikedistill.spiking import compiling

if TYPE_CHECKING:
    from lightning_fabric import Fabric

CONFIG, REPORT = "config.yaml", "report.html"
WRITTEN_INTO = ("checkpoints", OWN_TEACHER)
"""Folders in a run folder."""


@dataclass
class Run:
    """A finished run.

    Attributes:
        student: the trained network, in eval mode, on the CPU.
        summary: the contents of ``summary.json``.
        folder: the run folder.
    """

    student: nn.Module
    summary: dict[str, Any]
    folder: Path


def train(
    recipe: Recipe,
    *,
    resume: bool = False,
    verbose: bool = True,
    deadline: float | None = None,
    device: str | None = None,
) -> Run:
    """Runs a recipe to its end.

    Everything that can be refused is refused before the run folder is made.

    Args:
        recipe: what to run.
        resume: go on from the last checkpoint of the recipe's run folder; a finished run is returned as it is.
        verbose: show progress.
        deadline: on ``time.monotonic``; None for no limit.
        device: where to compute this time, in place of what the recipe says (and the folder's config goes on saying).

    Raises:
        UserError: the recipe cannot be run, or its folder already holds a run and ``resume`` is False.
        Stopped: the deadline has passed; ``resume`` goes on from there.
    """
    folder = recipe.folder()
    if resume and (folder / SUMMARY).is_file():
        return _finished(recipe, folder)
    refuse_occupied(folder, resume)
    parts = assemble(recipe, device)
    return execute(parts, resume=resume, verbose=verbose, deadline=deadline, device=device)


def _finished(recipe: Recipe, folder: Path, network: nn.Module | None = None) -> Run:
    """A run that has come to its end; a report that was not written any more is written now."""
    check_same_run(folder, recipe)
    run = Run(load_run(folder, network), read_summary(folder / SUMMARY), folder)
    if (folder / LOCK).exists() or not (folder / REPORT).is_file():  # it was killed behind its summary
        with hold(folder):
            sweep(folder)
            write_run_report(folder)
    return run


def refuse_occupied(folder: Path, resume: bool) -> None:
    """Refuses a folder that cannot take this run.

    Raises:
        UserError: it holds a run and ``resume`` is False, it is something else, or what would be written into it would
            land elsewhere.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"out '{folder}' is a file, not a folder")
    for name in WRITTEN_INTO:
        if leads_out(folder / name, folder):
            raise UserError(
                f"'{folder / name}' is a link out of the run folder, into which nothing is written; put a "
                "folder in its place (the run folder itself may be a link)"
            )
    if not resume and any((folder / name).exists() for name in (CONFIG, SUMMARY, "checkpoints")):
        raise UserError(f"'{folder}' already holds a run; go on with --resume or choose another folder with out=")


def execute(
    parts: Parts, *, resume: bool, verbose: bool, deadline: float | None = None, device: str | None = None
) -> Run:
    """Trains what ``assemble`` (or a user) put together, and writes the run folder; a finished one is read."""
    recipe, folder, clock = parts.recipe, parts.recipe.folder(), Clock(parts.seconds)
    if resume and (folder / SUMMARY).is_file():
        return _finished(recipe, folder, parts.student)
    place = resolve_device(device or recipe.device)
    check_sharding(recipe.strategy, recipe.precision, recipe.compile)
    precision = resolve_precision(recipe.precision, place)
    fabric = make_fabric(place, precision, recipe.devices, recipe.nodes, recipe.strategy)
    check_shares(recipe.batch_size, recipe.devices * recipe.nodes)
    if recipe.devices * recipe.nodes > 1:
        fabric.launch()
    with ExitStack() as stack:
        made = not folder.exists()

        def take() -> None:
            _make_folder(folder)
            stack.enter_context(hold(folder))
            refuse_occupied(folder, resume)  # once more: someone may have begun between the first look and the lock

        first_alone(fabric, take)
        began_here = fabric.is_global_zero and made and not (folder / CONFIG).exists()
        try:
            return _execute(parts, fabric, clock, resume=resume, verbose=verbose, deadline=deadline, device=device)
        except UserError:
            if began_here and not any(folder.rglob("step-*.pt")):
                shutil.rmtree(folder, ignore_errors=True)
            raise


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the run folder '{folder}' cannot be made: {error.strerror}; choose another with out="
        ) from None


def _execute(
    parts: Parts,
    fabric: Fabric,
    clock: Clock,
    *,
    resume: bool,
    verbose: bool,
    deadline: float | None,
    device: str | None,
) -> Run:
    """``execute`` in a folder that is ours alone."""
    recipe, folder = parts.recipe, parts.recipe.folder()

    def begin() -> None:
        sweep(folder)
        if (folder / CONFIG).is_file():
            check_same_run(folder, recipe)
        write_durably(folder / CONFIG, recipe.to_yaml().encode())

    first_alone(fabric, begin)
    teacher, known = parts.teacher, None
    if needs_trained_teacher(recipe) and teacher is None:
        own = teacher_recipe(recipe, folder / OWN_TEACHER)
        with clock.apart():
            trained = train(own, resume=True, verbose=verbose, deadline=deadline, device=device)
        teacher, known = trained.student, trained.summary
    run = _train_student(parts, fabric, clock, teacher, known, resume=resume, verbose=verbose, deadline=deadline)
    first_alone(fabric, lambda: write_run_report(folder))
    return run


def _train_student(
    parts: Parts,
    fabric: Fabric,
    clock: Clock,
    teacher: nn.Module | None,
    taught_by: dict[str, Any] | None,
    *,
    resume: bool,
    verbose: bool,
    deadline: float | None,
) -> Run:
    recipe, data, folder = parts.recipe, parts.data, parts.recipe.folder()
    code = commit()
    transfer = start(parts, teacher)
    method = _method(parts, teacher, fabric)
    shared = recipe.strategy == "fsdp" and fabric.world_size > 1
    trainer = Trainer(
        fabric,
        method,
        _training_batches(recipe, data, fabric),
        train_settings(recipe),
        folder,
        lambda network: validation_part(network, data, fabric),
        Reporter(_label(folder), verbose and fabric.is_global_zero),
        deadline,
        Sharded(fabric, method, torch.zeros(2, *data.info.shape)) if shared else None,
        clock,
    )
    resumed = trainer.resume() if resume else False
    trainer.fit()
    method.close()
    student = separate(restore(method.deployable()))
    finish = Finish(parts, fabric, method, teacher, taught_by, transfer, clock)
    summary = finish(student, {"commit": code, "resumed": resumed})
    return Run(student.cpu().eval(), summary, folder)


def _label(folder: Path) -> str:
    """What progress calls a run: its folder's name, which tells apart the runs of one recipe."""
    return f"{folder.parent.name}/{folder.name}" if folder.name == OWN_TEACHER else folder.name


def _method(parts: Parts, teacher: nn.Module | None, fabric: Fabric) -> Method:
    """The method with its networks, its layers exchanged for the fastest that this run can have."""
    recipe = parts.recipe
    torch.manual_seed(recipe.seed + 1)  # extras do not depend on how many numbers the networks drew
    example = torch.zeros(2, *parts.data.info.shape)
    with compiling.choose("plain"):  # two images, once, on the CPU: no kernel is worth compiling for them
        method = recipe.method_class()(parts.student, teacher, recipe.method_settings(), example)
    alone = fabric.world_size == 1
    optimise(method.student, recipe.memory, norms=alone)
    if not alone:
        synchronise(method)
        torch.manual_seed(recipe.seed + 1 + fabric.global_rank)  # what is drawn in training differs by process
    on_cpu = fabric.device.type == "cpu"
    if on_cpu:
        keep_freed_memory()
    else:  # analogue networks too: in bfloat16 a GPU convolves nothing else without transposing it first
        channels_last(method)
    with compiling.choose("plain"):
        for network in (teacher, None if on_cpu else method.student):
            if network is not None:
                channels_last_if_taken(network, seen_by(network, example))
    return method


def _training_batches(recipe: Recipe, data: Data, fabric: Fabric) -> Loader:
    return Loader(
        data.train,
        data.info,
        batch_size=recipe.batch_size,
        device=fabric.device,
        augment=data.augment,
        shuffle=True,
        seed=recipe.seed,
        drop_last=len(data.train) >= recipe.batch_size,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
    )


def train_settings(recipe: Recipe) -> TrainSettings:
    """What the loop needs of a recipe."""
    return TrainSettings(
        epochs=recipe.epochs,
        optimizer=recipe.optimizer,
        schedule=recipe.schedule,
        clip=recipe.clip,
        accumulate=recipe.accumulate,
        checkpoint_minutes=recipe.checkpoint_minutes,
        on_bad_numbers=recipe.on_bad_numbers,
        compile=recipe.compile,
    )
