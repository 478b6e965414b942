"""From a recipe's sections to networks: the student, the teacher, and a trained network read back from a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from spikedistill.data import DataInfo
from spikedistill.documents import read_yaml
from spikedistill.errors import UserError
from spikedistill.models import Network, create_model
from spikedistill.models.registry import options_of
from spikedistill.recipe import ModelSettings, Recipe, parse
from spikedistill.runfolder import STUDENT, load_state, read_state
from spikedistill.spiking import LIF
from spikedistill.spiking.encoding import PoissonEncoding

Settings = TypeVar("Settings", bound=ModelSettings)


def resolved(model: Settings, info: DataInfo, section: str) -> Settings:
    """The model's settings with classes, channels and image size filled in from the data.

    Raises:
        UserError: the recipe says otherwise than the data.
    """
    channels, height, width = info.shape
    facts: dict[str, int] = {"num_classes": len(info.classes), "in_channels": channels}
    if model.model and "image_size" in options_of(model.model):
        if height != width:
            raise UserError(f"model {model.model} takes square images; data '{info.name}' has {height}x{width} pixels")
        facts["image_size"] = height
    for key, value in facts.items():
        given = getattr(model, key)
        if given is not None and given != value:
            raise UserError(f"{section}.{key} is {given}, but data '{info.name}' has {value}")
    return model.model_copy(update=facts)


def make_network(model: ModelSettings, spiking: bool, recipe: Recipe, info: DataInfo | None = None) -> Network:
    """Builds a network from resolved settings, untrained."""
    arguments: dict[str, Any] = {**model.arguments()}
    if not spiking:
        return create_model(str(model.model), **arguments)
    neuron = LIF(**recipe.neuron.model_dump())
    network = create_model(str(model.model), spiking=True, timesteps=recipe.timesteps, neuron=neuron, **arguments)
    if recipe.encoding == "poisson":
        normalisation = recipe.normalisation if info is None else (info.mean, info.std)
        network.encoding = PoissonEncoding(*(normalisation or ((0.0,), (1.0,))))
    return network


def read_config(folder: Path) -> Recipe:
    """The resolved recipe of a run folder.

    Raises:
        UserError: not a run folder, or a damaged config.
    """
    config = folder / "config.yaml"
    if not config.is_file():
        raise UserError(f"'{folder}' is not a run folder: it has no config.yaml")
    return parse(read_yaml(config, f"'{config}'"), f"'{config}'")


def load_run(folder: Path, network: nn.Module | None = None) -> nn.Module:
    """The trained network of a run folder, in eval mode on the CPU.

    Args:
        folder: the run folder.
        network: the architecture, for a run on a network of the user's own; its weights are replaced.

    Raises:
        UserError: not a run folder, an unfinished run, or weights that do not fit.
    """
    recipe = read_config(folder)
    if not (folder / STUDENT).is_file():
        raise UserError(f"'{folder}' holds no trained network yet ({STUDENT}); finish it with --resume")
    if network is None:
        if recipe.student is None:
            raise UserError(f"'{folder}' was trained on a network of your own; pass it: load(folder, network=...)")
        network = make_network(recipe.student, recipe.spiking_student(), recipe)
    load_state(network, read_state(folder / STUDENT), f"'{folder / STUDENT}'")
    return network.eval()


def load_teacher(recipe: Recipe, model: ModelSettings, path: Path) -> nn.Module:
    """The recipe's teacher from ``teacher.path``: a run folder or a state-dict file.

    Raises:
        UserError: nothing there, or it does not fit.
    """
    if path.is_dir():
        return load_run(path)
    if model.model is None:
        raise UserError(f"teacher.path '{path}' holds weights only; say which network they are for: teacher.model=")
    network = make_network(model, False, recipe)
    load_state(network, read_state(path), f"'{path}'")
    return network.eval()
