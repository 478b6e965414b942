"""What ships with the package, by name with a line each."""

from __future__ import annotations

from collections.abc import Callable


def _models() -> dict[str, str]:
    from spikedistill.models import list_models
    from spikedistill.models.registry import ANN_ONLY, options_of

    sides = {name: f" (an ANN only; its spiking side is {side})" for name, side in ANN_ONLY.items()}
    return {name: ", ".join(sorted(options_of(name))) + sides.get(name, "") for name in list_models(ann_only=True)}


def _methods() -> dict[str, str]:
    from spikedistill.methods import METHODS

    return {name: METHODS[name].summary for name in sorted(METHODS)}


def _recipes() -> dict[str, str]:
    from spikedistill.recipebook import list_recipes, read_recipe

    return {name: read_recipe(name).description for name in list_recipes()}


def _data() -> dict[str, str]:
    from spikedistill.data import list_data

    return list_data()


def _experiments() -> dict[str, str]:
    from spikedistill.sweep import list_experiments, read_sweep

    return {name: f"{(sweep := read_sweep(name)).title} ({sweep.source})" for name in list_experiments()}


CATALOGUES: dict[str, Callable[[], dict[str, str]]] = {
    "models": _models,
    "methods": _methods,
    "recipes": _recipes,
    "data": _data,
    "experiments": _experiments,
}
