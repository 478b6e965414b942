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

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from spikedistill.documents import read_yaml
from spikedistill.errors import UserError, unknown
from spikedistill.recipe import FORBID, Recipe, check_name
from spikedistill.recipebook import read_recipe, setting, smoke_size

Seed = Annotated[int, Field(ge=0)]
Setting = bool | int | float | str | list[Any] | None


class Entry(BaseModel):
    """A recipe and what is changed in it.

    ``label`` names its run folders (default: the recipe's name), ``set`` has dotted overrides, ``teacher`` is the label
    of an earlier entry whose run of the same seed is the teacher, ``estimate`` what a run costs and where.
    """

    model_config = FORBID
    recipe: str
    label: str = ""
    seeds: list[Seed] | None = None
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
    seeds: list[Seed] = Field(default=[0], min_length=1)
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
    if not file.exists():
        raise UserError(f"no list of runs at '{file}'")
    return parse_run_list(read_yaml(file, f"list of runs '{file}'"), f"list of runs '{file}'")


def parse_run_list(content: Any, source: str) -> RunList:
    """Validates the content of a list of runs; ``source`` is what to call it.

    Raises:
        UserError: a wrong key or type, a label that is no folder's name, a teacher that no earlier entry is.
    """
    try:
        runs = RunList.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UserError(f"{source}: {where}: {first['msg'][0].lower() + first['msg'][1:]}") from None
    names: list[str] = []
    for entry in runs.runs:
        check_name(entry.name, f"{source}: label")
        if entry.name in names:
            raise UserError(f"{source} has two entries '{entry.name}'; give one of them a label of its own")
        if entry.teacher is not None and entry.teacher not in names:
            raise unknown(f"teacher of '{entry.name}' (the label of an earlier entry)", entry.teacher, names)
        if entry.teacher is not None:
            taught_by = runs.runs[names.index(entry.teacher)]
            for seed in _seeds(runs, entry):
                if seed not in _seeds(runs, taught_by):
                    raise UserError(f"{source}: '{entry.name}' has seed {seed}, its teacher '{entry.teacher}' has not")
        names.append(entry.name)
    return runs


def choose_entries(runs: RunList, only: Sequence[str]) -> RunList:
    """The entries whose labels fit one of the patterns, and those that teach them; all where there is no pattern.

    Raises:
        UserError: a pattern that fits no label.
    """
    if not only:
        return runs
    names = [entry.name for entry in runs.runs]
    for pattern in only:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            raise unknown("label in the list (or pattern of labels, such as '*sakd*')", pattern, names)
    chosen: set[str | None] = {name for name in names if any(fnmatch.fnmatchcase(name, one) for one in only)}
    for entry in reversed(runs.runs):  # a teacher stands before those that it teaches
        if entry.name in chosen:
            chosen.add(entry.teacher)
    return runs.model_copy(update={"runs": [entry for entry in runs.runs if entry.name in chosen]})


def folder_name(label: str, seed: int) -> str:
    """The name of the run folder of an entry and a seed."""
    return f"{label}-seed{seed}"


def plan(runs: RunList, out: Path, overrides: list[str], smoke: bool = False) -> list[Planned]:
    """The runs in the order in which they are made.

    Args:
        runs: the list.
        out: the folder below which the run folders lie.
        overrides: dotted overrides ``key=value`` for all runs; ``seed=0,2`` makes only the runs of these seeds.
        smoke: shrink every run to seconds.

    Raises:
        UserError: an unknown recipe or key, a seed that the list has not.
    """
    chosen, overrides = choose_seeds(overrides)
    seeds = list(dict.fromkeys([*runs.seeds, *(seed for entry in runs.runs for seed in entry.seeds or ())]))
    if chosen is not None:
        if strange := [seed for seed in chosen if seed not in seeds]:
            raise UserError(f"seed {strange[0]} is none of the list's: {' '.join(map(str, seeds))}")
        seeds = chosen
    return [
        Planned(entry, seed, _recipe(runs, entry, seed, out, overrides, smoke))
        for seed in seeds
        for entry in runs.runs
        if seed in _seeds(runs, entry)
    ]


def _seeds(runs: RunList, entry: Entry) -> list[int]:
    return runs.seeds if entry.seeds is None else entry.seeds


def choose_seeds(overrides: Iterable[str]) -> tuple[list[int] | None, list[str]]:
    """Takes ``seed=0`` or ``seed=0,1,2`` out of the overrides of many runs, each of which has a seed of its own.

    Returns:
        The seeds, None where none were named, and the other overrides.

    Raises:
        UserError: something that is no list of whole numbers; ``out=``, which would lay all runs into one folder.
    """
    seeds, rest = None, []
    for text in overrides:
        key, _, value = text.partition("=")
        if key == "out":
            raise UserError(f"'{text}' would put all runs into one folder; --out names the folder for all of theirs")
        if key != "seed":
            rest.append(text)
            continue
        try:
            seeds = list(dict.fromkeys(int(one) for one in value.strip("[]").split(",")))
        except ValueError:
            raise UserError(f"'{text}' is no list of seeds; write seed=0 or seed=0,1,2") from None
        if min(seeds) < 0:
            raise UserError(f"'{text}': a seed is not negative")
    return seeds, rest


def _recipe(runs: RunList, entry: Entry, seed: int, out: Path, overrides: list[str], smoke: bool) -> Recipe:
    settings = [setting(key, value) for key, value in (runs.set | entry.set).items()]
    folder = setting("out", str(out / folder_name(entry.name, seed)))
    recipe = read_recipe(entry.recipe, [*settings, *overrides, f"seed={seed}", folder])
    recipe = smoke_size(recipe) if smoke else recipe
    if entry.teacher is not None:
        if recipe.teacher is None:
            raise UserError(f"entry '{entry.name}' names a teacher, but its recipe has no section 'teacher'")
        if recipe.teacher.path is not None:
            raise UserError(f"entry '{entry.name}' names a teacher and is given teacher.path too; leave one out")
        recipe.teacher.path = str(out / folder_name(entry.teacher, seed))
    return recipe
