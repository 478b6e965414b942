"""Lists of runs: one YAML file that says which recipes, with which changes, under which seeds.

For example::

    title: CIFAR-10 at a size for two processors
    seeds: [0, 1, 2]
    set: {data.path: data/cifar10}
    runs:
      - {recipe: small-cifar10-resnet18-ann}
      - {recipe: small-cifar10-resnet18-sakd, teacher: small-cifar10-resnet18-ann, estimate: 20 minutes on one core}

All runs of the first seed come first, so that a list that is stopped early leaves a whole table of one seed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from spikedistill.errors import UserError, unknown
from spikedistill.recipe import FORBID, Recipe
from spikedistill.recipebook import read_recipe, smoke_size

Setting = bool | int | float | str | list[Any] | None


class Entry(BaseModel):
    """A recipe and what is changed in it.

    ``label`` names its run folders (default: the recipe's name), ``set`` has dotted overrides, ``teacher`` is the label
    of an earlier entry whose run of the same seed is the teacher, ``estimate`` what a run costs and where.
    """

    model_config = FORBID
    recipe: str
    label: str = ""
    seeds: list[Annotated[int, Field(ge=0)]] | None = None
    set: dict[str, Setting] = {}
    teacher: str | None = None
    estimate: str = ""

    @property
    def name(self) -> str:
        """What its run folders are called, without the seed."""
        return self.label or Path(self.recipe).stem


class RunList(BaseModel):
    """The list of runs; ``seeds`` and ``set`` hold for every entry that has none of its own."""

    model_config = FORBID
    title: str = ""
    description: str = ""
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[0], min_length=1)
    set: dict[str, Setting] = {}
    runs: list[Entry] = Field(min_length=1)


@dataclass(frozen=True)
class Planned:
    """One run of a list.

    Attributes:
        entry: where it comes from.
        seed: its seed.
        recipe: resolved, its folder included.
    """

    entry: Entry
    seed: int
    recipe: Recipe

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.recipe.folder().name


def read_run_list(file: Path) -> RunList:
    """Reads a list of runs.

    Raises:
        UserError: no such file, not YAML, a wrong key or type, a teacher that no earlier entry is.
    """
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no list of runs at '{file}'") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"list of runs '{file}' cannot be read as YAML: {str(error).splitlines()[0]}") from None
    try:
        runs = RunList.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UserError(f"list of runs '{file}': {where}: {first['msg'][0].lower() + first['msg'][1:]}") from None
    names: list[str] = []
    for entry in runs.runs:
        if entry.name in names:
            raise UserError(
                f"list of runs '{file}' has two entries '{entry.name}'; give one of them a label of its own"
            )
        if entry.teacher is not None and entry.teacher not in names:
            raise unknown(f"teacher of '{entry.name}' (the label of an earlier entry)", entry.teacher, names)
        names.append(entry.name)
    return runs


def plan(runs: RunList, out: Path, overrides: list[str], smoke: bool = False) -> list[Planned]:
    """The runs in the order in which they are made.

    Args:
        runs: the list.
        out: the folder below which the run folders lie.
        overrides: dotted overrides ``key=value`` for all runs.
        smoke: shrink every run to seconds.

    Raises:
        UserError: an unknown recipe or key.
    """
    seeds = list(dict.fromkeys([*runs.seeds, *(seed for entry in runs.runs for seed in entry.seeds or ())]))
    return [
        Planned(entry, seed, _recipe(runs, entry, seed, out, overrides, smoke))
        for seed in seeds
        for entry in runs.runs
        if seed in (runs.seeds if entry.seeds is None else entry.seeds)
    ]


def _recipe(runs: RunList, entry: Entry, seed: int, out: Path, overrides: list[str], smoke: bool) -> Recipe:
    settings = [f"{key}={json.dumps(value)}" for key, value in (runs.set | entry.set).items()]
    folder = f"out={json.dumps(str(out / f'{entry.name}-seed{seed}'))}"
    recipe = read_recipe(entry.recipe, [*settings, *overrides, f"seed={seed}", folder])
    recipe = smoke_size(recipe) if smoke else recipe
    if entry.teacher is not None:
        if recipe.teacher is None:
            raise UserError(f"entry '{entry.name}' names a teacher, but its recipe has no section 'teacher'")
        recipe.teacher.path = str(out / f"{entry.teacher}-seed{seed}")
    return recipe
