"""Shipped recipes by name, recipes from files, dotted overrides, and the smoke size of any recipe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from spikedistill.documents import CHARACTERS, is_path, parse_yaml, read_text
from spikedistill.errors import UserError, unknown
from spikedistill.methods.base import JOINT_TEACHER
from spikedistill.models.elsewhere import PREFIX
from spikedistill.models.registry import options_of
from spikedistill.recipe import Recipe, parse

SMOKE_EPOCHS, SMOKE_BATCH, SMOKE_IMAGES, SMOKE_WIDTH, SMOKE_SIZE, SMOKE_RATE = 2, 16, 48, 8, 16, 0.001


def list_recipes() -> list[str]:
    """The names of the shipped recipes, sorted."""
    folder = resources.files("spikedistill") / "recipes"
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def read_recipe(name_or_path: str, overrides: Sequence[str] = (), smoke: bool = False) -> Recipe:
    """Reads a recipe, by shipped name or from a YAML file.

    Args:
        name_or_path: one of ``list_recipes()`` or the path of a file.
        overrides: ``key=value`` with dotted keys; values are YAML.
        smoke: shrink it to seconds.

    Raises:
        UserError: no such recipe, a file that is not YAML, a wrong key or type.
    """
    content = _read_yaml(name_or_path)
    for override in overrides:
        _override(content, override)
    recipe = parse(content, f"recipe '{name_or_path}'")
    return smoke_size(recipe) if smoke else recipe


def _read_yaml(name_or_path: str) -> dict[str, Any]:
    shipped, source = list_recipes(), f"recipe '{name_or_path}'"
    if name_or_path in shipped:
        text = (resources.files("spikedistill") / "recipes" / f"{name_or_path}.yaml").read_text()
    elif is_path(name_or_path) and Path(name_or_path).is_file():
        text = read_text(Path(name_or_path), source, CHARACTERS)
    elif name_or_path.endswith((".yaml", ".yml")) or "/" in name_or_path:
        raise UserError(f"no recipe file at '{name_or_path}'")
    else:
        raise unknown("recipe", name_or_path, shipped)
    content = parse_yaml(text, source)
    if not isinstance(content, dict):
        raise UserError(f"{source} must be a YAML mapping of keys to values")
    if name_or_path not in shipped:
        content.setdefault("name", Path(name_or_path).stem)
    return content


def setting(key: str, value: Any) -> str:
    """An override ``key=value`` that gives just this value, whatever characters a text has."""
    text = json.dumps(value, ensure_ascii=False)
    # YAML takes what cannot be printed by its number alone.
    return f"{key}=" + "".join(one if one.isprintable() else f"\\U{ord(one):08x}" for one in text)


def _override(content: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if key.startswith("-"):
        raise UserError(f"no option '{key}' (see --help); a recipe's setting is written {key.lstrip('-')}=VALUE")
    if not equals or not key:
        raise UserError(f"an override is key=value, not '{override}'")
    value = parse_yaml(text, f"override '{override[:200]}': the value")
    if " #" in text and "#" not in str(value):
        told = f"what follows ' #' is a comment in YAML; put the value in quotes of its own: '{key}=\"...\"'"
        raise UserError(f"override '{override[:200]}': {told}")
    section: Any = content
    *path, last = key.split(".")
    for part in path:
        if section.get(part) is None:
            section[part] = {}
        section = section[part]
        if not isinstance(section, dict):
            raise UserError(f"override '{override}': '{part}' is a value, not a section")
    section[last] = value


def smoke_size(recipe: Recipe) -> Recipe:
    """A recipe that runs every part of the given one in seconds: narrow networks, two epochs, few images.

    The data become the embedded digits, brought to the recipe's number of channels and to at most 16x16 pixels, so that
    nothing needs to be downloaded. A teacher of timm's, which would be, becomes one of the student's architecture.

    Raises:
        UserError: the recipe of a run on a network of the user's own, which it does not hold.
    """
    if recipe.student is None:
        raise UserError(f"recipe '{recipe.name}' has no section 'student', so there is no network to shrink")
    content = recipe.model_dump(mode="python")
    content |= {"name": f"{recipe.name}-smoke", "epochs": SMOKE_EPOCHS, "batch_size": SMOKE_BATCH, "published": None}
    content["precision"], content["compile"] = "32", False
    content["data"] = smoke_data(recipe)
    _calm(content)
    _narrow(content["student"])
    if content["teacher"] is not None:
        content["teacher"]["path"] = None
        if (content["teacher"]["model"] or PREFIX).startswith(PREFIX):
            content["teacher"] |= {"model": content["student"]["model"], "width": None, "stem": None, "options": {}}
        _narrow(content["teacher"])
        if recipe.method_class().teacher_role != JOINT_TEACHER:  # that one is trained as the student is
            content["teacher"] |= {"epochs": SMOKE_EPOCHS, "batch_size": SMOKE_BATCH}
            _calm(content["teacher"])
    if content["init"]["path"] is not None:  # as teachers' paths, it is not followed; there may be no teacher instead
        content["init"] |= {"path": None, "kind": "random"}
    return Recipe.model_validate(content)


def smoke_data(recipe: Recipe) -> dict[str, Any]:
    """The ``data`` section of a recipe's smoke size; events become those of a simulated camera before the digits."""
    from dataclasses import asdict

    from spikedistill.data import SimulatorSettings, holds_events, nominal_shape, stand_in

    channels, side = nominal_shape(recipe.data)
    section = {
        "name": stand_in(recipe.data.name),
        "size": min(side, SMOKE_SIZE),
        "channels": channels,
        "subset": SMOKE_IMAGES,
        "test_subset": SMOKE_IMAGES,
        "validation": 0.25 if recipe.data.validation else 0.0,
        "augment": recipe.data.augment,
    }
    if holds_events(recipe.data):
        camera = asdict(recipe.data.simulator or SimulatorSettings()) | {"side": section["size"], "loops": 1}
        events = {"simulator": camera, "frames": recipe.data.frames, "slicing": recipe.data.slicing}
        section |= {"size": None, "channels": None, **events}
    return section


def _calm(training: dict[str, Any]) -> None:
    # Six steps at the rate of a long run make a deep network's features overflow.
    training["optimizer"]["lr"] = min(training["optimizer"]["lr"], SMOKE_RATE)


def _narrow(model: dict[str, Any]) -> None:
    model |= dict.fromkeys(("num_classes", "in_channels", "image_size"))  # these are of other data
    accepted = options_of(model["model"])
    if "width" in accepted:
        model["width"] = min(SMOKE_WIDTH, model["width"] or SMOKE_WIDTH)
