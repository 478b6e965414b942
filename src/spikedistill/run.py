"""Puts the parts together: a recipe becomes a run folder."""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from spikedistill.assembly import Parts, assemble, needs_trained_teacher, teacher_recipe
from spikedistill.build import load_run
from spikedistill.data import Data, Loader, pixels
from spikedistill.engine import Trainer, TrainSettings
from spikedistill.engine.checkpoint import sweep, write_durably
from spikedistill.engine.devices import keep_freed_memory, make_fabric, resolve_device, resolve_precision
from spikedistill.engine.lock import LOCK, hold
from spikedistill.engine.progress import Reporter
from spikedistill.errors import UserError
from spikedistill.evaluation.accuracy import Evaluation, evaluate, raster
from spikedistill.models.fuse import channels_last, optimise, restore
from spikedistill.models.twin import name_of
from spikedistill.recipe import Recipe
from spikedistill.report import write_run_report
from spikedistill.resuming import check_same_run
from spikedistill.runfolder import STUDENT, commit, read_json, save_network, write_json
from spikedistill.transfer import TRANSFERS

if TYPE_CHECKING:
    from lightning_fabric import Fabric

EVALUATION_BATCH = 250
SUMMARY, CONFIG, REPORT = "summary.json", "config.yaml", "report.html"


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


def train(recipe: Recipe, *, resume: bool = False, verbose: bool = True, deadline: float | None = None) -> Run:
    """Runs a recipe to its end.

    Everything that can be refused is refused before the run folder is made.

    Args:
        recipe: what to run.
        resume: go on from the last checkpoint of the recipe's run folder; a finished run is returned as it is.
        verbose: show progress.
        deadline: on ``time.monotonic``; None for no limit.

    Raises:
        UserError: the recipe cannot be run, or its folder already holds a run and ``resume`` is False.
        Stopped: the deadline has passed; ``resume`` goes on from there.
    """
    folder = recipe.folder()
    if resume and (folder / SUMMARY).is_file():
        return _finished(recipe, folder)
    refuse_occupied(folder, resume)
    parts = assemble(recipe)
    return execute(parts, resume=resume, verbose=verbose, deadline=deadline)


def _finished(recipe: Recipe, folder: Path) -> Run:
    """A run that has come to its end; a report that was not written any more is written now."""
    check_same_run(folder, recipe)
    run = Run(load_run(folder), read_json(folder / SUMMARY), folder)
    if (folder / LOCK).exists() or not (folder / REPORT).is_file():  # it was killed behind its summary
        with hold(folder):
            sweep(folder)
            write_run_report(folder)
    return run


def refuse_occupied(folder: Path, resume: bool) -> None:
    """Refuses a folder that cannot take this run.

    Raises:
        UserError: it holds a run and ``resume`` is False, or it is something else.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"out '{folder}' is a file, not a folder")
    if not resume and any((folder / name).exists() for name in (CONFIG, SUMMARY, "checkpoints")):
        raise UserError(f"'{folder}' already holds a run; go on with --resume or choose another folder with out=")


def execute(parts: Parts, *, resume: bool, verbose: bool, deadline: float | None = None) -> Run:
    """Trains what ``assemble`` (or a user) put together, and writes the run folder."""
    folder = parts.recipe.folder()
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the run folder '{folder}' cannot be made: {error.strerror}; choose another with out="
        ) from None
    with hold(folder):
        refuse_occupied(folder, resume)  # once more: someone may have begun between the first look and the lock
        began_here = made and not (folder / CONFIG).exists()
        try:
            return _execute(parts, resume=resume, verbose=verbose, deadline=deadline)
        except UserError:
            if began_here and not any(folder.rglob("step-*.pt")):
                shutil.rmtree(folder, ignore_errors=True)
            raise


def _execute(parts: Parts, *, resume: bool, verbose: bool, deadline: float | None) -> Run:
    """``execute`` in a folder that is ours alone."""
    recipe, folder = parts.recipe, parts.recipe.folder()
    sweep(folder)
    if (folder / CONFIG).is_file():
        check_same_run(folder, recipe)
    write_durably(folder / CONFIG, recipe.to_yaml().encode())
    teacher, known = parts.teacher, None
    if needs_trained_teacher(recipe) and teacher is None:
        own = teacher_recipe(recipe, folder / "teacher")
        trained = train(own, resume=True, verbose=verbose, deadline=deadline)
        teacher, known = trained.student, trained.summary
    run = _train_student(parts, teacher, known, resume=resume, verbose=verbose, deadline=deadline)
    write_run_report(folder)
    return run


def _train_student(
    parts: Parts,
    teacher: nn.Module | None,
    taught_by: dict[str, Any] | None,
    *,
    resume: bool,
    verbose: bool,
    deadline: float | None,
) -> Run:
    recipe, data, folder = parts.recipe, parts.data, parts.recipe.folder()
    code = commit()
    device = resolve_device(recipe.device)
    precision = resolve_precision(recipe.precision, device)
    fabric = make_fabric(device, precision)
    transfer = TRANSFERS[recipe.init.kind](teacher, parts.student, recipe.init) if teacher is not None else None
    method_class = recipe.method_class()
    torch.manual_seed(recipe.seed + 1)  # extras do not depend on how many numbers the networks drew
    example = torch.zeros(2, *data.info.shape)
    method = method_class(parts.student, teacher, recipe.method_settings(), example)
    optimise(method.student, recipe.memory)
    if teacher is not None:
        channels_last(teacher)
    if device.type == "cpu":
        keep_freed_memory()
    loader = Loader(
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
    label = f"{recipe.name} seed {recipe.seed}"
    trainer = Trainer(
        fabric,
        method,
        loader,
        train_settings(recipe),
        folder,
        lambda network: _validation(network, data, fabric),
        Reporter(label, verbose),
        deadline,
    )
    resumed = trainer.resume() if resume else False
    rows = trainer.fit()
    method.close()
    student = restore(method.deployable())
    finished = time.perf_counter()
    teacher_accuracy = taught_by["student_accuracy"] if taught_by else None
    if teacher is not None and teacher_accuracy is None:
        teacher_accuracy = evaluate_part(method.byproducts().get("ann", teacher), data, fabric).accuracy
    result = evaluate_part(student, data, fabric)
    _write_results(parts, student, result, fabric)
    for name, network in method.byproducts().items():
        save_network(network, folder / f"{name}.safetensors")
    if transfer is not None:
        write_json(folder / "transfer.json", [asdict(entry) for entry in transfer])
    summary = {
        "name": recipe.name,
        "method": recipe.method["name"],
        "model": recipe.student.model if recipe.student else name_of(student),
        "dataset": data.info.name,
        "student_accuracy": result.accuracy,
        "teacher_accuracy": teacher_accuracy,
        "teacher": recipe.teacher.model if recipe.teacher else None,
        "timesteps": result.timesteps,
        "seed": recipe.seed,
        "epochs": recipe.epochs,
        "device": _device_name(fabric.device),
        "precision": precision,
        "torch": torch.__version__,
        "commit": code,
        "wall_seconds": sum(row["seconds"] for row in rows) + time.perf_counter() - finished,
        "teacher_wall_seconds": taught_by["wall_seconds"] if taught_by else None,
        "resumed": resumed,
        "firing_rate": result.mean_firing_rate,
        "parameters": sum(p.numel() for p in student.parameters()),
        "train_images": len(data.train),
        "test_images": result.count,
        "published": recipe.published.model_dump() if recipe.published else None,
    }
    write_json(folder / SUMMARY, summary)
    return Run(student.cpu().eval(), summary, folder)


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


def _validation(network: nn.Module, data: Data, fabric: Fabric) -> dict[str, float]:
    if data.validation is None:
        return {}
    loader = Loader(
        data.validation, data.info, batch_size=EVALUATION_BATCH, device=fabric.device, shuffle=False, seed=0
    )
    with fabric.autocast():
        return {"validation_accuracy": evaluate(network, loader, len(data.info.classes)).accuracy}


def evaluate_part(network: nn.Module, data: Data, fabric: Fabric) -> Evaluation:
    """The test part's evaluation, in float32 whatever the training's precision was."""
    loader = Loader(data.test, data.info, batch_size=EVALUATION_BATCH, device=fabric.device, shuffle=False, seed=0)
    return evaluate(network.to(fabric.device), loader, len(data.info.classes))


def _write_results(parts: Parts, student: nn.Module, result: Evaluation, fabric: Fabric) -> None:
    folder, data = parts.recipe.folder(), parts.data
    save_network(student, folder / STUDENT)
    loader = Loader(data.test, data.info, batch_size=1, device=fabric.device, shuffle=False, seed=0)
    images, labels = next(iter(loader.epoch(0)))
    with torch.inference_mode():
        student.eval()
        prediction = int(student(images).argmax(-1))
    image = images.select(-4, 0)
    content = {
        "timesteps": result.timesteps,
        "accuracy": result.accuracy,
        "accuracy_per_timestep": result.accuracy_per_timestep,
        "firing_rate": result.firing_rate,
        "confusion": result.confusion,
        "classes": list(data.info.classes),
        "example": {
            "index": 0,
            "image": pixels(image, data.info).tolist(),
            "label": int(labels),
            "prediction": prediction,
            "raster": raster(student, image),
        },
    }
    write_json(folder / "evaluation.json", content)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type} ({threads} thread{'s' if threads > 1 else ''})"
