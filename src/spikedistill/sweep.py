"""Experiments as files: a list of runs with their place in a table, at the paper's size and at one for two processors.

For example::

    title: Deep spiking ResNets with and without a teacher
    source: SAKD section 4.2, table 4
    study: grid
    options: {ordered: true}
    smoke: [resnet18-ann, resnet18-snn, resnet18-sakd]
    small:
      about: ResNets of width 8, 4,000 training images, 12 epochs
      set: {student.width: 8, teacher.width: 8, data.subset: 4000, epochs: 12, teacher.epochs: 12}
      without: [resnet152-snn]
    runs:
      - {recipe: sakd-cifar10-resnet18, label: resnet18-ann, trains: teacher, row: ResNet-18, column: ANN}
      - {recipe: sakd-cifar10-resnet18-snn, label: resnet18-snn, row: ResNet-18, column: plain SNN}
      - {recipe: sakd-cifar10-resnet18, label: resnet18-sakd, teacher: resnet18-ann, row: ResNet-18, column: SAKD}

One that differs from a shipped one in its data set alone says so: ``like: depth``, ``recipes: {from: to}`` (the
beginnings of the recipes' names), and keys of its own in the place of the other's.

The recipes are the paper's; what stands under ``small`` changes them. A setting of the teacher is left out where a
recipe has none. The published figure of a run is its recipe's, unless it has a ``published`` of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from spikedistill.assembly import teacher_recipe
from spikedistill.documents import CHARACTERS, is_path, parse_yaml, read_text
from spikedistill.errors import UserError, unknown
from spikedistill.recipe import FORBID, Recipe, check_name
from spikedistill.recipebook import read_recipe, setting, smoke_size
from spikedistill.runlist import Seed, choose_seeds

SMALL, PAPER = "small", "paper"
TINY_STEPS, TINY_SIDE, TINY_IMAGES, TINY_WIDTH = 2, 16, 40, 4
SCALES = (SMALL, PAPER)


class Cell(BaseModel):
    """A run and its place in the table.

    Attributes:
        recipe: a shipped recipe or a file.
        label: names its run folders.
        row, column: its place in the table.
        trains: the recipe's student, or its teacher (the ANN).
        teacher: label of an earlier run whose network of the same seed teaches.
        published: figure in percent, or a word that is printed in its place; None takes the recipe's figure (for a
            teacher, that of the recipe's teacher).
        set: dotted settings at any scale; ``small`` more of them at the small scale.
    """

    model_config = FORBID
    recipe: str
    label: str
    row: str = ""
    column: str = ""
    trains: Literal["student", "teacher"] = "student"
    teacher: str | None = None
    published: float | str | None = None
    set: dict[str, Any] = {}
    small: dict[str, Any] = {}


class Scale(BaseModel):
    """What makes the runs fit: settings for all of them, other seeds, runs left out, and a sentence about it."""

    model_config = FORBID
    about: str = ""
    seeds: list[Seed] | None = None
    set: dict[str, Any] = {}
    without: list[str] = []


class Sweep(BaseModel):
    """An experiment. ``options`` are the study's; ``smoke`` are the labels that a smoke run makes."""

    model_config = FORBID
    title: str
    source: str
    about: str = ""
    study: str
    options: dict[str, Any] = {}
    seeds: list[Seed] = Field(default=[0, 1, 2], min_length=1)
    set: dict[str, Any] = {}
    small: Scale = Scale()
    smoke: list[str] = Field(min_length=1)
    runs: list[Cell] = Field(min_length=1)


@dataclass(frozen=True)
class Planned:
    """One run of an experiment.

    Attributes:
        cell: its place.
        seed: its seed.
        recipe: resolved, its folder included.
        published: the figure to stand beside, in percent, or a word in its place.
    """

    cell: Cell
    seed: int
    recipe: Recipe
    published: float | str | None


def list_experiments() -> list[str]:
    """The names of the shipped experiments, sorted."""
    folder = resources.files("spikedistill") / "experiments"
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def read_sweep(name_or_path: str) -> Sweep:
    """Reads an experiment, by shipped name or from a YAML file.

    Raises:
        UserError: no such experiment, not YAML, a wrong key or type, a label that is not there.
    """
    shipped, source = list_experiments(), f"experiment '{name_or_path}'"
    if name_or_path in shipped:
        text = (resources.files("spikedistill") / "experiments" / f"{name_or_path}.yaml").read_text(encoding="utf-8")
    elif is_path(name_or_path) and Path(name_or_path).is_file():
        text = read_text(Path(name_or_path), source, CHARACTERS)
    else:
        raise unknown("experiment", name_or_path, shipped)
    content = parse_yaml(text, source)
    if isinstance(content, dict) and "like" in content:
        content = _alike(content, source)
    return parse_sweep(content, source)


def _alike(content: dict[str, Any], source: str) -> dict[str, Any]:
    """The content of an experiment that is another one on other recipes."""
    own = dict(content)
    like, recipes = own.pop("like"), own.pop("recipes", {})
    if like not in list_experiments():
        raise unknown(f"experiment in 'like' of {source}", str(like), list_experiments())
    if not isinstance(recipes, dict) or not all(isinstance(text, str) for pair in recipes.items() for text in pair):
        raise UserError(f"{source}: 'recipes' must map the beginnings of recipes' names to others")
    base = read_sweep(like).model_dump()
    for cell in base["runs"]:
        for before, after in recipes.items():
            if cell["recipe"].startswith(before):
                cell["recipe"] = after + cell["recipe"].removeprefix(before)
    return base | own


def parse_sweep(content: Any, source: str) -> Sweep:
    """Validates the content of an experiment; ``source`` is what to call it.

    Raises:
        UserError: a wrong key or type, a label that is not there, or is no folder's name.
    """
    try:
        sweep = Sweep.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UserError(f"{source}: {where}: {first['msg'][0].lower() + first['msg'][1:]}") from None
    _check_labels(sweep, source)
    return sweep


def _check_labels(sweep: Sweep, source: str) -> None:
    labels: list[str] = []
    for cell in sweep.runs:
        check_name(cell.label, f"{source}: label")
        if cell.label in labels:
            raise UserError(f"{source} has two runs '{cell.label}'; each needs a label of its own")
        if cell.teacher is not None and cell.teacher not in labels:
            raise unknown(f"teacher of '{cell.label}' (the label of an earlier run)", cell.teacher, labels)
        labels.append(cell.label)
    for label in [*sweep.smoke, *sweep.small.without]:
        if label not in labels:
            raise unknown(f"label in {source}", label, labels)


def plan(sweep: Sweep, scale: str, out: Path, overrides: list[str], smoke: bool = False) -> list[Planned]:
    """The runs in the order in which they are made: all of the first seed first.

    Args:
        sweep: the experiment.
        scale: ``small`` or ``paper``.
        out: the folder below which the run folders lie.
        overrides: dotted overrides ``key=value`` for all runs; ``seed=0,1,2`` takes the place of the scale's seeds.
        smoke: one seed, only the runs named for it, each shrunk to seconds.

    Raises:
        UserError: an unknown scale, recipe or key.
    """
    if scale not in SCALES:
        raise unknown("scale", scale, SCALES)
    small = sweep.small if scale == SMALL else Scale()
    chosen, overrides = choose_seeds(overrides)
    seeds = dict.fromkeys(chosen or (sweep.seeds[:1] if smoke else small.seeds or sweep.seeds))
    cells = [
        cell for cell in sweep.runs if cell.label not in small.without and (not smoke or cell.label in sweep.smoke)
    ]
    if not cells:
        raise UserError(f"every run that is asked for is among those that scale '{scale}' leaves out")
    prepared = [(cell, *_prepared(sweep, cell, small, scale, overrides, smoke)) for cell in cells]
    return [
        Planned(cell, seed, _seeded(recipe, cell, seed, out), published)
        for seed in seeds
        for cell, recipe, published in prepared
    ]


def _prepared(
    sweep: Sweep, cell: Cell, small: Scale, scale: str, overrides: list[str], smoke: bool
) -> tuple[Recipe, float | str | None]:
    """A cell's recipe, but for seed, folder and teacher's place, and the figure to stand beside it."""
    paper = _as_shipped(cell.recipe)
    own = sweep.set | small.set | cell.set | (cell.small if scale == SMALL else {})
    settings = [*(setting(key, value) for key, value in own.items()), *overrides]
    if paper.teacher is None:
        if cell.trains == "teacher" or cell.teacher is not None:
            raise UserError(f"run '{cell.label}' needs a teacher, but recipe '{cell.recipe}' has no section 'teacher'")
        settings = [text for text in settings if not text.startswith("teacher.")]
    recipe = read_recipe(cell.recipe, settings)
    recipe = _tiny(smoke_size(recipe)) if smoke else recipe
    recipe.name = cell.label
    if scale == SMALL:
        recipe.published = None  # a figure of another size, which only the experiment's own table may stand beside
    figure = paper.published.figure if paper.published else None
    if cell.trains == "teacher":
        figure = paper.published.teacher if paper.published else None
    return recipe, cell.published if cell.published is not None else figure


@cache
def _as_shipped(recipe: str) -> Recipe:
    return read_recipe(recipe)


def _seeded(recipe: Recipe, cell: Cell, seed: int, out: Path) -> Recipe:
    """The recipe of one seed, in its folder, with its teacher's."""
    folder = out / f"{cell.label}-seed{seed}"
    recipe = recipe.model_copy(update={"seed": seed, "out": str(folder)}, deep=True)
    if cell.trains == "teacher":
        return teacher_recipe(recipe, folder).model_copy(update={"name": cell.label})
    if cell.teacher is not None:
        assert recipe.teacher is not None
        recipe.teacher.path = str(out / f"{cell.teacher}-seed{seed}")
    return recipe


def _tiny(recipe: Recipe) -> Recipe:
    """A smoke recipe made smaller still: an experiment has several, and compiling kernels would not pay."""
    steps = min(TINY_STEPS, recipe.timesteps)
    data = replace(recipe.data, size=TINY_SIDE if recipe.data.size else None, subset=TINY_IMAGES, frames=steps)
    for model in (recipe.student, recipe.teacher):
        if model is not None and model.width is not None:
            model.width = min(TINY_WIDTH, model.width)
    return recipe.model_copy(update={"timesteps": steps, "data": data})
