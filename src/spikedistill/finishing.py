"""The end of a run: the student on the test images, and everything that is written about it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from spikedistill.assembly import Parts
from spikedistill.data import Data, Loader, list_data, pixels
from spikedistill.engine.clock import Clock
from spikedistill.engine.devices import resolve_precision
from spikedistill.engine.processes import first_alone
from spikedistill.evaluation.accuracy import Evaluation, evaluate, raster
from spikedistill.methods import Method
from spikedistill.models.twin import name_of
from spikedistill.recipe import Recipe
from spikedistill.runfolder import STUDENT, save_network, write_json
from spikedistill.spiking import compiling
from spikedistill.transfer.report import Entry

if TYPE_CHECKING:
    from lightning_fabric import Fabric

EVALUATION_BATCH = 250
SUMMARY = "summary.json"


class Finish:
    """Evaluates a trained student and writes the run folder's results; on several processes the first one writes.

    Args:
        parts, fabric, method: of the run.
        teacher: the network that taught, if any.
        taught_by: its summary, where it was trained for this run.
        transfer: the report of where the student's weights came from, if they came from the teacher.
        clock: of the run.
    """

    def __init__(
        self,
        parts: Parts,
        fabric: Fabric,
        method: Method,
        teacher: nn.Module | None,
        taught_by: dict[str, Any] | None,
        transfer: Sequence[Entry] | None,
        clock: Clock,
    ) -> None:
        self.parts, self.fabric, self.method = parts, fabric, method
        self.teacher, self.taught_by, self.transfer, self.clock = teacher, taught_by, transfer, clock

    def __call__(self, student: nn.Module, told: dict[str, Any]) -> dict[str, Any]:
        """Returns ``summary.json``'s contents, ``told`` among them, once everything is written.

        ``wall_seconds`` is everything from the reading of the data to here, over all pieces of the run, but for the
        teacher's training: a run of its own, whose seconds stand beside it.
        """
        teacher_accuracy = self._teacher_accuracy()
        result = evaluate_part(student, self.parts.data, self.fabric)
        summary = self._summary(student, result) | told
        summary["teacher_accuracy"] = teacher_accuracy
        if self.parts.by_program:
            summary["by_program"] = True
        summary["teacher_wall_seconds"] = self.taught_by["wall_seconds"] if self.taught_by else None
        summary["kernels"] = compiling.told(self.fabric.device.type)
        summary["compile_wall_seconds"] = round(self.clock.compiling, 3)
        summary["wall_seconds"] = self.clock.seconds
        first_alone(self.fabric, lambda: self._write(student, result, summary))
        return summary

    def _teacher_accuracy(self) -> float | None:
        if self.taught_by is not None:
            return self.taught_by["student_accuracy"]
        if self.teacher is None:
            return None
        answering = self.method.byproducts().get("ann", self.teacher)
        return evaluate_part(answering, self.parts.data, self.fabric).accuracy

    def _summary(self, student: nn.Module, result: Evaluation) -> dict[str, Any]:
        recipe, data = self.parts.recipe, self.parts.data
        return {
            "name": recipe.name,
            "method": recipe.method["name"],
            "model": recipe.student.model if recipe.student else name_of(student),
            "dataset": data.info.name,
            "test_set": _test_set(recipe, data, result),
            "student_accuracy": result.accuracy,
            "accuracy_per_timestep": {str(steps): value for steps, value in result.accuracy_per_timestep.items()},
            "teacher_accuracy": None,
            "teacher": recipe.teacher.model if recipe.teacher else None,
            "timesteps": result.timesteps,
            "seed": recipe.seed,
            "epochs": recipe.epochs,
            "device": _device_name(self.fabric),
            "precision": resolve_precision(recipe.precision, self.fabric.device),
            "torch": torch.__version__,
            "firing_rate": result.mean_firing_rate,
            "parameters": sum(p.numel() for p in student.parameters()),
            "train_images": len(data.train),
            "test_images": result.count,
            "published": recipe.published.model_dump() if recipe.published else None,
        }

    def _write(self, student: nn.Module, result: Evaluation, summary: dict[str, Any]) -> None:
        """Everything about the result; the summary last, as it says that the run is finished."""
        folder = self.parts.recipe.folder()
        _write_evaluation(self.parts, student, result, self.fabric)
        for name, network in self.method.byproducts().items():
            save_network(network, folder / f"{name}.safetensors")
        if self.transfer is not None:
            write_json(folder / "transfer.json", [asdict(entry) for entry in self.transfer])
        write_json(folder / SUMMARY, summary)


def _test_set(recipe: Recipe, data: Data, result: Evaluation) -> str | None:
    """What tells data of somebody's own from others of the same name: classes and how many test images each has."""
    if recipe.data.name in list_data() and not (recipe.data.name == "digits" and recipe.data.path):
        return None
    counts = [sum(row) for row in result.confusion]
    return hashlib.sha256(repr((data.info.classes, data.info.shape, counts)).encode()).hexdigest()[:8]


def validation_part(network: nn.Module, data: Data, fabric: Fabric) -> dict[str, float]:
    """``validation_accuracy`` in percent, or nothing where no image is held out."""
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


def _write_evaluation(parts: Parts, student: nn.Module, result: Evaluation, fabric: Fabric) -> None:
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


def _device_name(fabric: Fabric) -> str:
    device, count = fabric.device, fabric.world_size
    several = f"{count} x " if count > 1 else ""
    if device.type == "cuda":
        return several + torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{several}{device.type} ({threads} thread{'s' if threads > 1 else ''})"
