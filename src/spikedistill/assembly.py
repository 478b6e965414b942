"""What a run is made of: a recipe's data and networks, put together, or refused before anything is written."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spikedistill.build import PRETRAINED, load_run, load_teacher, make_network, resolved
from spikedistill.data import Data, DataInfo, open_data
from spikedistill.engine.devices import check_sharding, resolve_device, resolve_precision
from spikedistill.errors import UserError
from spikedistill.methods.base import JOINT_TEACHER, check_classes
from spikedistill.models.elsewhere import PREFIX
from spikedistill.recipe import ModelSettings, Recipe, TeacherSettings, TrainingSettings
from spikedistill.spiking import compiling
from spikedistill.transfer import TRANSFERS, Entry


@dataclass
class Parts:
    """What a run is made of.

    Attributes:
        recipe, data, student: what is said to be trained, and on what.
        teacher: None where the method has none or where it must be trained first.
        source: whose weights to start from, where that is not the teacher.
        seconds: how long it took to put them together.
        by_program: whether a program handed them over, so that no recipe brings them back.
    """

    recipe: Recipe
    data: Data
    student: nn.Module
    teacher: nn.Module | None
    source: nn.Module | None = None
    seconds: float = 0.0
    by_program: bool = False


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
    twin = _joint_teacher(recipe, network, data) if _trains_teacher(recipe) else _trained_teacher(recipe, data, student)
    source = open_source(recipe, student, twin)
    return Parts(recipe, data, student, twin, source, time.perf_counter() - started)


def open_source(recipe: Recipe, student: nn.Module, teacher: nn.Module | None) -> nn.Module | None:
    """The network at ``init.path``, tried on copies of the networks that start from it; None where none is named.

    Raises:
        UserError: no run folder, or a network from which they cannot start.
    """
    if recipe.init.path is None:
        return None
    path = Path(recipe.init.path)
    if not path.is_dir():
        raise UserError(f"no run folder at init.path '{path}'")
    source = load_run(path)
    for network in (student, teacher if _trains_teacher(recipe) else None):
        if network is not None:
            TRANSFERS[recipe.init.kind](source, copy.deepcopy(network), recipe.init)
    return source


def start(parts: Parts, teacher: nn.Module | None) -> list[Entry] | None:
    """Gives the student the weights that it starts from, and an ANN that is trained with it those at ``init.path``.

    Returns:
        What became of each of the student's tensors; None for a start at random.
    """
    init = parts.recipe.init
    transfer = TRANSFERS[init.kind]
    if parts.source is None:
        return transfer(teacher, parts.student, init) if teacher is not None else None
    if teacher is not None and _trains_teacher(parts.recipe):
        transfer(parts.source, teacher, init)
    return transfer(parts.source, parts.student, init)


def _trains_teacher(recipe: Recipe) -> bool:
    return recipe.method_class().teacher_role == JOINT_TEACHER


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


def _joint_teacher(recipe: Recipe, twin: ModelSettings, data: Data) -> nn.Module:
    """The ANN that is trained with the student: the one at ``teacher.path``, or a fresh one.

    Raises:
        UserError: nothing there, or a training of its own, which it does not have.
    """
    section = recipe.teacher
    if section is None:
        return make_network(resolved(twin, data.info, "teacher"), False, recipe)
    for key in TrainingSettings.model_fields:
        if getattr(section, key) != TrainingSettings.model_fields[key].get_default():
            raise UserError(
                f"teacher.{key} has no effect: method '{recipe.method['name']}' trains the ANN together with the "
                f"student; leave it out, or set {key}= for both"
            )
    if section.path is None:
        return make_network(resolved(section, data.info, "teacher"), False, recipe)
    return _opened(recipe, section, data).train()


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
    teacher = _opened(recipe, section, data)
    with compiling.choose("plain"):
        check_classes(student, teacher, torch.zeros(1, *data.info.shape))
    return teacher


def _opened(recipe: Recipe, section: TeacherSettings, data: Data) -> nn.Module:
    """The network at ``teacher.path``."""
    assert section.path is not None
    path = Path(section.path)
    if not path.exists() and section.path != PRETRAINED:
        raise UserError(f"no teacher at teacher.path '{path}'")
    section = section if path.is_dir() else resolved(section, data.info, "teacher")
    return load_teacher(recipe, section, path, data.info.shape)


def _rehearse(recipe: Recipe, data: Data, student: nn.Module) -> None:
    """Puts copies of an untrained teacher and of the student together, so that what cannot be is refused now.

    Training the teacher may take hours; a feature or a shape that does not fit must not wait for its end.
    """
    assert recipe.teacher is not None
    with torch.random.fork_rng(devices=[]), compiling.choose("plain"):
        teacher, pupil = make_network(recipe.teacher, False, recipe), copy.deepcopy(student)
        if recipe.init.path is None:
            TRANSFERS[recipe.init.kind](teacher, pupil, recipe.init)
        recipe.method_class()(pupil, teacher, recipe.method_settings(), torch.zeros(2, *data.info.shape)).close()


def needs_trained_teacher(recipe: Recipe) -> bool:
    """Whether a run starts from a trained ANN: to be taught by it, or for its weights."""
    starts_from_it = recipe.init.kind != "random" and recipe.init.path is None
    return recipe.method_class().asks_teacher(recipe.method_settings()) or starts_from_it


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
