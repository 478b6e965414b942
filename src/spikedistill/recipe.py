"""Recipes: everything that decides a run, in one YAML file; refused where a key or a type is wrong."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from spikedistill.data import DataSettings
from spikedistill.documents import is_path
from spikedistill.engine import OptimizerSettings, ScheduleSettings
from spikedistill.errors import UserError, nearest, printable, unknown
from spikedistill.methods import METHODS, Method
from spikedistill.methods.base import Lesson
from spikedistill.models.registry import options_of

FORBID = ConfigDict(extra="forbid", validate_default=True)
Positive = Annotated[int, Field(ge=1)]
LONGEST_NAME = 200
"""In bytes; file systems take 255, and seeds and the like are put behind it."""


def _number_as_text(value: Any) -> Any:
    """YAML reads ``precision: 32`` as a number."""
    return str(value) if isinstance(value, int) else value


class ModelSettings(BaseModel):
    """A network by name. ``width`` and ``stem`` where the network has them; ``options`` for what else it offers.

    ``num_classes``, ``in_channels`` and ``image_size`` are filled in from the data when a run starts.
    """

    model_config = FORBID
    model: str
    width: Positive | None = None
    stem: str | None = None
    num_classes: Positive | None = None
    in_channels: Positive | None = None
    image_size: Positive | None = None
    options: dict[str, int | str] = {}

    def arguments(self) -> dict[str, Any]:
        """The keyword options for ``create_model``; refuses those that the network does not have."""
        named = ("width", "stem", "num_classes", "in_channels", "image_size")
        given = {**{key: getattr(self, key) for key in named}, **self.options}
        chosen = {key: value for key, value in given.items() if value is not None}
        accepted = options_of(self.model) if self.model else {}
        for key in chosen:
            if key not in accepted:
                raise unknown(f"option of model {self.model}", key, list(accepted))
        return chosen


class TrainingSettings(BaseModel):
    """How a network is trained; the student's stand at the top level of a recipe, the teacher's in its section."""

    model_config = FORBID
    epochs: Positive = 10
    batch_size: Positive = 128
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    clip: Annotated[float, Field(gt=0)] | None = None
    accumulate: Positive = 1


class TeacherSettings(ModelSettings, TrainingSettings):
    """The teacher: a network by name, and either where it is (``path``) or how it is trained.

    ``path`` is a run folder (its own config says which network it holds), a state-dict file (.safetensors, or .pt and
    .pth read with weights_only=True), or ``pretrained`` for a model ``timm/...``. Without it the teacher is trained
    first, in the run's own folder ``teacher``. ``mean`` and ``std`` say what its images were normalised with, where
    that is not known (it is for a run folder and for timm) and not what the data are normalised with now.
    """

    model: str | None = None  # type: ignore[assignment]
    path: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[Annotated[float, Field(gt=0)], ...] | None = None


class InitSettings(BaseModel):
    """Where the student's weights start: at random, as the teacher's (``copy``), or resampled from a larger network.

    ``path`` is a run folder whose network takes the teacher's place in that: one network starts the student, another
    teaches it, or is trained with it and starts there as well.
    """

    model_config = FORBID
    kind: Literal["random", "copy", "resample"] = "random"
    shortcuts: bool = True
    path: str | None = None


class NeuronSettings(BaseModel):
    """The neuron template, as the arguments of ``LIF``."""

    model_config = FORBID
    decay: Annotated[float, Field(gt=0, le=1)] = 0.5
    threshold: Annotated[float, Field(gt=0)] = 1.0
    reset: Literal["hard", "soft"] = "hard"
    detach_reset: bool = False
    surrogate: Literal["triangle", "rectangle", "sigmoid", "arctan", "exponential"] = "triangle"
    width: Annotated[float, Field(gt=0)] | None = None
    fires_on: Literal[">=", ">"] = ">="
    learn_decay: bool = False


class Published(BaseModel):
    """The figure that a recipe stands beside: top-1 accuracy in percent and where it is printed."""

    model_config = FORBID
    figure: float
    source: str
    timesteps: int | None = None
    baseline: float | None = None
    teacher: float | None = None
    note: str = ""


class Recipe(TrainingSettings):
    """A whole run. See the fields' own classes for the sections.

    ``method`` holds every setting of the method, those left out as well. ``student`` is None for a run on a network of
    the user's own; ``normalisation`` (mean, std) is filled in from the data when a run starts. ``memory`` is what a
    training step keeps for its backward pass: ``fast``, or ``lean``, which keeps spikes at one bit each. Each batch is
    shared by ``devices`` processes on each of ``nodes`` machines. ``compile`` runs the whole step through
    ``torch.compile``. ``on_bad_numbers`` decides what a loss or gradient that is NaN or infinite does: ``stop`` ends
    the run at its last good checkpoint, ``skip`` leaves the step out.
    """

    name: str = "run"
    description: str = ""
    published: Published | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    timesteps: Positive = 4
    out: str | None = None
    data: DataSettings = DataSettings()
    student: ModelSettings | None = None
    neuron: NeuronSettings = NeuronSettings()
    encoding: Literal["direct", "poisson"] = "direct"
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    teacher: TeacherSettings | None = None
    init: InitSettings = InitSettings()
    method: dict[str, Any]
    device: str = "auto"
    devices: Positive = 1
    nodes: Positive = 1
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    precision: Annotated[Literal["auto", "32", "bf16", "16"], BeforeValidator(_number_as_text)] = "32"
    memory: Literal["fast", "lean"] = "fast"
    compile: bool = False
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 10.0
    on_bad_numbers: Literal["stop", "skip"] = "stop"

    def lesson(self) -> Lesson:
        """The method with its settings, validated."""
        return _lesson(self.method)

    def method_settings(self) -> Any:
        """The method's own settings, validated."""
        return self.lesson().settings

    def method_class(self) -> type[Method]:
        """The method."""
        return METHODS[self.method["name"]]

    def spiking_student(self) -> bool:
        """Whether the trained network is an SNN."""
        return self.method_class().spiking_student

    def folder(self) -> Path:
        """The run folder."""
        return Path(self.out) if self.out else Path("runs") / f"{self.name}-seed{self.seed}"

    def to_yaml(self) -> str:
        """The resolved recipe; training it again is the same run."""
        import yaml

        return yaml.safe_dump(self.plain(), sort_keys=False, allow_unicode=True)

    def plain(self) -> dict[str, Any]:
        """The resolved recipe as JSON has it."""
        return TypeAdapter(Recipe).dump_python(self, mode="json")


def _lesson(section: Any, location: tuple[str, ...] = ("method",)) -> Lesson:
    """The method that a section names, its settings validated; they may hold a section of that kind themselves."""
    where = ".".join(location)
    if not isinstance(section, dict):
        raise UserError(f"recipe key '{where}' must be a section with a name, not {section!r}")
    given = dict(section)
    name = given.pop("name", None)
    if name is None:
        raise UserError(f"the recipe's section '{where}' needs a name (one of: {', '.join(sorted(METHODS))})")
    if not isinstance(name, str) or name not in METHODS:
        raise unknown("method", str(name), list(METHODS))
    kind = METHODS[name].Settings
    for key, annotation in get_type_hints(kind).items():
        if Lesson in get_args(annotation) and given.get(key) is not None:
            given[key] = _lesson(given[key], (*location, key))
    try:
        return Lesson(name, METHODS[name], TypeAdapter(kind).validate_python(given))
    except ValidationError as error:
        raise _sentence(error, location, ["name", *(f.name for f in fields(kind))]) from None


def _plain_lesson(lesson: Lesson) -> dict[str, Any]:
    settings = {field.name: getattr(lesson.settings, field.name) for field in fields(lesson.settings)}
    lessons = {key: _plain_lesson(value) for key, value in settings.items() if isinstance(value, Lesson)}
    plain = TypeAdapter(dict[str, Any]).dump_python({**settings, **lessons}, mode="json")
    return {"name": lesson.name, **plain}


def _section_type(model: type, name: Any) -> type | None:
    """The model or dataclass behind a section of ``model``, None for a plain value."""
    if is_dataclass(model):
        annotation = get_type_hints(model).get(name)
    elif isinstance(model, type) and issubclass(model, BaseModel) and name in model.model_fields:
        annotation = model.model_fields[name].annotation
    else:
        return None
    for option in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(option, type) and (issubclass(option, BaseModel) or is_dataclass(option)):
            return option
    return None


def accepted_keys(location: Sequence[Any]) -> list[str]:
    """The keys accepted in the section at ``location`` of a recipe (empty: the top level)."""
    model: type | None = Recipe
    for part in location:
        model = _section_type(model, part) if model is not None else None
    if model is None:
        return []
    return list(model.model_fields) if issubclass(model, BaseModel) else [f.name for f in fields(model)]


def _sentence(error: ValidationError, prefix: tuple[str, ...] = (), accepted: Sequence[str] = ()) -> UserError:
    """One sentence from pydantic's first error."""
    first = error.errors()[0]
    location = (*prefix, *first["loc"])
    dotted = ".".join(str(part) for part in location)
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        names = list(accepted) or accepted_keys(location[:-1])
        return UserError(
            f"unknown recipe key '{dotted}'{nearest(str(location[-1]), names)} (accepted there: {', '.join(names)})"
        )
    if first["type"] == "missing":
        return UserError(f"recipe key '{dotted}' is missing")
    message = first["msg"][0].lower() + first["msg"][1:]
    return UserError(f"recipe key '{dotted}': {message}, not {first['input']!r}")


def check_name(name: str, key: str) -> None:
    """Refuses a name that could not be part of a folder's name, or would lead out of the folder it is put in."""
    strange = any(character in "/\\" or character != printable(character) for character in name)
    if strange or not is_path(name) or len(name.encode()) > LONGEST_NAME:
        raise UserError(f"{key}: '{name[:60]}' cannot be a folder's name; use letters, digits, - and _")


def _from_home(recipe: Recipe) -> None:
    """``~`` at the beginning of a path is the user's home, which a shell does not say behind ``key=``."""
    recipe.out = os.path.expanduser(recipe.out) if recipe.out else recipe.out
    for section in (recipe.teacher, recipe.init):
        if section is not None and section.path:
            section.path = os.path.expanduser(section.path)


def parse(content: Any, source: str = "recipe") -> Recipe:
    """Validates a recipe's content.

    Raises:
        UserError: one sentence naming the first wrong key.
    """
    if not isinstance(content, dict):
        raise UserError(f"{source} must be a YAML mapping of keys to values, not {type(content).__name__}")
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        raise _sentence(error) from None
    check_name(recipe.name, "recipe key 'name'")
    _from_home(recipe)
    taught = recipe.teacher.path if recipe.teacher is not None else None
    paths = {"out": recipe.out, "data.path": recipe.data.path, "teacher.path": taught, "init.path": recipe.init.path}
    for key, path in paths.items():
        if path is not None and not is_path(path):
            raise UserError(f"recipe key '{key}': '{path[:60]}' cannot be a path on a disk")
    recipe.method = _plain_lesson(recipe.lesson())
    if recipe.init.path is not None and recipe.init.kind == "random":
        raise UserError("init.path says whose weights to start from; say how as well: init.kind=copy, or resample")
    if recipe.student is not None:
        recipe.student.arguments()
    if recipe.teacher is not None:
        if recipe.teacher.model is None and recipe.teacher.path is None:
            raise UserError("the recipe's section 'teacher' needs a model (a name) or a path (a trained one)")
        recipe.teacher.arguments()
    return recipe
