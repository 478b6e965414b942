"""What a run is made of: a recipe's data and networks, put together, or refused before anything is written."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spikedistill.build import PRETRAINED, load_teacher, make_network, resolved
from spikedistill.data import Data, DataInfo, open_data
from spikedistill.engine.devices import check_sharding, resolve_device, resolve_precision
from spikedistill.errors import UserError
from spikedistill.methods.base import JOINT_TEACHER, check_classes
from spikedistill.models.elsewhere import PREFIX
from spikedistill.recipe import ModelSettings, Recipe
from spikedistill.spiking import compiling
from spikedistill.transfer import TRANSFERS


@dataclass
class Parts:
    """What a run is made of.

    Attributes:
        recipe, data, student: what is said to be trained, and on what.
        teacher: None where the method has none or where it must be trained first.
        seconds: how long it took to put them together.
    """

    recipe: Recipe
    data: Data
    student: nn.Module
    teacher: nn.Module | None
    seconds: float = 0.0


def assemble(recipe: Recipe, device: str | None = None) -> Parts:
    """Opens the data and builds the networks of a recipe.

    Args:
        recipe: what to run.
        device: where it will be computed, if not where the recipe says.

    Raises:
        UserError: data, networks or method that do not fit each other.
    """
    if recipe.student is None:
        raise UserError("the recipe has no section 'student'; say which network to train: student.model=")
    wanted, started = recipe.student, time.perf_counter()
    method = recipe.method_class()
    check_sharding(recipe.strategy, recipe.precision, recipe.compile)
    resolve_precision(recipe.precision, resolve_device(device or recipe.device))
    data = open_data(recipe.data, recipe.seed)
    check_frames(data.info, recipe.timesteps, "data.frames=")
    recipe = recipe.model_copy(update={"normalisation": (data.info.mean, data.info.std)})
    network = recipe.student = resolved(wanted, data.info, "student")
    torch.manual_seed(recipe.seed)
    student = make_network(network, method.spiking_student, recipe, data.info)
    if method.teacher_role == JOINT_TEACHER:
        twin = make_network(resolved(recipe.teacher or network, data.info, "teacher"), False, recipe)
    else:
        twin = _trained_teacher(recipe, data, student)
    return Parts(recipe, data, student, twin, time.perf_counter() - started)


def check_frames(info: DataInfo, timesteps: int, remedy: str) -> None:
    """Refuses sequences whose length is not the network's T.

    Raises:
        UserError: they differ; ``remedy`` is what to set.
    """
    if info.timesteps not in (None, timesteps):
        raise UserError(
            f"timesteps is {timesteps}, and data '{info.name}' come as sequences of {info.timesteps} frames; make them "
            f"equal: {remedy}{timesteps}"
        )


def _trained_teacher(recipe: Recipe, data: Data, student: nn.Module) -> nn.Module | None:
    """The teacher at ``teacher.path``; None where there is none, or where it is trained first (and would fit)."""
    if not needs_trained_teacher(recipe):
        return None
    section = recipe.teacher
    if section is None:
        name = recipe.method["name"]
        raise UserError(f"method '{name}' needs a teacher: add a section 'teacher' with a model or a path")
    if section.path is None:
        if section.model is not None and section.model.startswith(PREFIX):
            raise UserError(f"teacher.model '{section.model}' is not trained here; set teacher.path={PRETRAINED}")
        recipe.teacher = resolved(section, data.info, "teacher")
        _rehearse(recipe, data, student)
        return None
    path = Path(section.path)
    if not path.exists() and section.path != PRETRAINED:
        raise UserError(f"no teacher at teacher.path '{path}'")
    section = section if path.is_dir() else resolved(section, data.info, "teacher")
    teacher = load_teacher(recipe, section, path, data.info.shape)
    with compiling.choose("plain"):
        check_classes(student, teacher, torch.zeros(1, *data.info.shape))
    return teacher


def _rehearse(recipe: Recipe, data: Data, student: nn.Module) -> None:
    """Puts copies of an untrained teacher and of the student together, so that what cannot be is refused now.

    Training the teacher may take hours; a feature or a shape that does not fit must not wait for its end.
    """
    assert recipe.teacher is not None
    with torch.random.fork_rng(devices=[]), compiling.choose("plain"):
        teacher, pupil = make_network(recipe.teacher, False, recipe), copy.deepcopy(student)
        TRANSFERS[recipe.init.kind](teacher, pupil, recipe.init)
        recipe.method_class()(pupil, teacher, recipe.method_settings(), torch.zeros(2, *data.info.shape)).close()


def needs_trained_teacher(recipe: Recipe) -> bool:
    """Whether a run starts from a trained ANN: to be taught by it, or for its weights."""
    return recipe.method_class().asks_teacher(recipe.method_settings()) or recipe.init.kind != "random"


def teacher_recipe(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe that trains a run's teacher, in ``folder``."""
    section = recipe.teacher
    assert section is not None
    model = ModelSettings.model_validate({key: getattr(section, key) for key in ModelSettings.model_fields})
    shared = ("epochs", "batch_size", "optimizer", "schedule", "clip", "accumulate")
    updates: dict[str, Any] = {key: getattr(section, key) for key in shared}
    updates |= {
        "name": f"{recipe.name}-teacher",
        "description": "",
        "published": None,
        "out": str(folder),
        "student": model,
        "teacher": None,
        "method": {"name": "ann"},
        "encoding": "direct",
        "init": type(recipe.init)(),
    }
    return recipe.model_copy(update=updates)
