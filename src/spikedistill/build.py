"""From a recipe's sections to networks: the student, the teacher, and a trained network read back from a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from spikedistill.data import DataInfo
from spikedistill.documents import read_yaml
from spikedistill.errors import UserError, first_line
from spikedistill.models import Network, create_model
from spikedistill.models.activation import layers_of
from spikedistill.models.elsewhere import PREFIX, from_timm
from spikedistill.models.registry import options_of
from spikedistill.models.rescale import Normalisation, see_as
from spikedistill.models.twin import Twin, name_of, retrace
from spikedistill.recipe import ModelSettings, Recipe, TeacherSettings, parse
from spikedistill.runfolder import STUDENT, check_state, load_state, read_state, read_summary
from spikedistill.spiking import LIF
from spikedistill.spiking.encoding import PoissonEncoding

Settings = TypeVar("Settings", bound=ModelSettings)
PRETRAINED = "pretrained"


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
    """Builds a network from resolved settings, untrained.

    Raises:
        UserError: settings that are not resolved, or of which no network can be made.
    """
    arguments: dict[str, Any] = {**model.arguments()}
    for key in ("num_classes", "in_channels"):
        if key not in arguments:
            raise UserError(
                f"{key} of model {model.model} is not known: it stands in the config of a run that has begun"
            )
    if spiking:
        arguments |= {"spiking": True, "timesteps": recipe.timesteps, "neuron": LIF(**recipe.neuron.model_dump())}
    try:
        network = create_model(str(model.model), **arguments)
    except (RuntimeError, MemoryError, OverflowError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"model {model.model} cannot be built as the recipe wants it: {first_line(error)}") from None
    if spiking and recipe.encoding == "poisson":
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
        UserError: not a run folder, an unfinished run, weights that do not fit, or an ANN or other neurons for a
            spiking network's.
    """
    recipe = read_config(folder)
    if not (folder / STUDENT).is_file():
        if (folder / "summary.json").is_file() and not (folder / "checkpoints").is_dir():
            raise UserError(
                f"'{folder}' is a record without the trained network ({STUDENT}); train its config.yaml again"
            )
        raise UserError(f"'{folder}' holds no trained network yet ({STUDENT}); finish it with --resume")
    if network is None:
        if recipe.student is None:
            raise UserError(
                f"'{folder}' was trained on a network of your own, which only your code can build; read it with "
                "sd.load(folder, network=...) and go on from Python (sd.evaluate, sd.energy, sd.export_nir)"
            )
        return _filled(recipe.student, recipe.spiking_student(), recipe, folder / STUDENT).eval()
    if getattr(network, "timesteps", None) is None and _was_spiking(folder, recipe):
        # Its keys are the spiking network's: the weights would fit, and the answers be others.
        raise UserError(
            f"'{folder}' was trained as a spiking network, and the {name_of(network)} given is none; pass its "
            "spiking twin: load(folder, network=sd.spikify(network, ...))"
        )
    _check_neuron(network, recipe, folder)
    load_state(network, read_state(folder / STUDENT), f"'{folder / STUDENT}'")
    return network.eval()


def _check_neuron(network: nn.Module, recipe: Recipe, folder: Path) -> None:
    """Refuses other neurons than those of the training: the weights would fit, and the answers be others."""
    theirs = LIF(**recipe.neuron.model_dump()).settings()
    for layer in list(layers_of(network).values())[:1]:
        for key, ours in layer.neuron.settings().items():
            learned = key == "decay" and theirs["learn_decay"]
            if ours != theirs[key] and not learned:
                raise UserError(
                    f"'{folder}' was trained with neurons of {key}={theirs[key]}, and those of the network given have "
                    f"{key}={ours}; make it with those: neuron=sd.LIF({key}={theirs[key]!r}, ...)"
                )


def _was_spiking(folder: Path, recipe: Recipe) -> bool:
    """Whether the trained network had timesteps; its evaluation says so, and for a registered one the method."""
    if recipe.student is not None:
        return recipe.spiking_student()
    summary = folder / "summary.json"
    return summary.is_file() and read_summary(summary).get("timesteps") is not None


def _filled(model: ModelSettings, spiking: bool, recipe: Recipe, weights: Path) -> Network:
    """The network whose weights a file holds."""
    state, source = read_state(weights), f"'{weights}'"
    # First without memory: a config may name a network of any size, and only one that the weights fill is wanted.
    with torch.device("meta"):
        check_state(make_network(model, spiking, recipe), state, source)
    network = make_network(model, spiking, recipe)
    load_state(network, state, source)
    return network


def with_features(network: nn.Module, shape: tuple[int, int, int]) -> nn.Module:
    """A network that names no features, rebuilt so that it does; as it is where that cannot be done.

    Args:
        network: any network.
        shape: of an image, ``(C, H, W)``.
    """
    if isinstance(network, Twin) or isinstance(getattr(network, "stages", None), Mapping):
        return network
    place = next(network.parameters(), torch.zeros(()))
    try:
        return retrace(network, torch.zeros(1, *shape, device=place.device, dtype=place.dtype))
    except UserError:
        return network


def load_teacher(recipe: Recipe, model: TeacherSettings, path: Path, shape: tuple[int, int, int]) -> nn.Module:
    """The recipe's teacher from ``teacher.path``: a run folder, a state-dict file, or timm's own weights.

    It takes images ``shape``, ``(C, H, W)``, as the data are normalised now and sees them as those that it was trained
    on.

    Raises:
        UserError: nothing there, or it does not fit.
    """
    network, known = _read_teacher(recipe, model, path)
    network = with_features(network, shape)
    given = recipe.normalisation
    wanted = (model.mean or (known or given or ((), ()))[0], model.std or (known or given or ((), ()))[1])
    if given is None or not wanted[0]:
        return network.eval()
    if any(len(part) != len(given[0]) for part in wanted):
        raise UserError(
            f"the teacher's images were normalised with {len(wanted[0])} means and {len(wanted[1])} deviations, but "
            f"the data have {len(given[0])} channels; set data.channels=, or teacher.mean= and teacher.std="
        )
    return see_as(network.eval(), given, wanted)


def _read_teacher(recipe: Recipe, model: TeacherSettings, path: Path) -> tuple[nn.Module, Normalisation | None]:
    """The trained network and what its images were normalised with, where that is known."""
    if path.is_dir():
        return load_run(path), read_config(path).normalisation
    if model.model is None:
        raise UserError(f"teacher.path '{path}' holds weights only; say which network they are for: teacher.model=")
    classes, channels = model.num_classes, model.in_channels or 3
    if str(path) == PRETRAINED:
        if not model.model.startswith(PREFIX):
            raise UserError(f"teacher.path is '{PRETRAINED}', which is for models of timm; '{model.model}' is none")
        return from_timm(model.model, classes, channels, pretrained=True)
    if model.model.startswith(PREFIX):
        network, known = from_timm(model.model, classes, channels, pretrained=False)
    else:
        return _filled(model, False, recipe, path), None
    load_state(network, read_state(path), f"'{path}'")
    return network, known
