"""The Python surface beside networks and neurons: distil a student, load a trained one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from spikedistill.errors import UserError

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    from spikedistill.data import Data
    from spikedistill.run import Run


def distill(
    teacher: nn.Module | None,
    student: nn.Module,
    train: Dataset[Any] | str,
    test: Dataset[Any] | str | None = None,
    method: str | dict[str, Any] = "kdsnn-response",
    epochs: int = 10,
    seed: int = 0,
    out: str | Path = "runs/distilled",
    *,
    batch_size: int = 128,
    optimizer: dict[str, Any] | None = None,
    schedule: dict[str, Any] | None = None,
    init: str | dict[str, Any] = "random",
    validation: float = 0.05,
    augment: tuple[str, ...] = (),
    classes: tuple[str, ...] | None = None,
    workers: int = 0,
    clip: float | None = None,
    device: str = "auto",
    precision: str = "32",
    on_bad_numbers: str = "stop",
    resume: bool = False,
    verbose: bool = True,
) -> Run:
    """Lets a trained ANN teach an SNN, and leaves a run folder.

    Args:
        teacher: the trained ANN, any module from images ``[B, C, H, W]`` to logits ``[B, K]``; None for a method
            without a teacher. It is copied and never changed. A method that trains both takes an untrained ANN (None:
            the student's twin).
        student: the SNN (``create_model(..., spiking=True)`` or ``spikify``); it is trained in place.
        train: a map-style dataset of (image tensor ``[C, H, W]``, label), or a data set name or path as in recipes, or
            a dict of a recipe's section ``data`` (``{"path": "pictures", "size": 32}``). A dataset's items may be
            sequences ``[T, C, H, W]`` (event frames); the teacher then sees their mean over T.
        test: the same for the test images; with a name or a path as ``train`` its own test part is used.
        method: a method's name, or a dict of ``name`` and its settings.
        epochs: passes over the training images.
        seed: of weights drawn here, of the data's order and of the validation part.
        out: the run folder; it must not hold a run, unless ``resume``.
        batch_size: images of a step.
        optimizer: the recipe's section: ``name`` and its settings.
        schedule: the recipe's section: ``name`` and its settings.
        init: ``random`` leaves the student's weights as they are, ``copy`` and ``resample`` start from the teacher's; a
            dict with ``kind`` and the ``path`` of a run folder starts from that one's.
        validation: share of the training images held out.
        augment: augmentations by name, as in recipes; for datasets that draw their own, leave it empty.
        classes: class names of a dataset.
        workers: processes that read a dataset's items.
        clip: largest norm of a step's gradient; None for any.
        device: ``auto``, or a device as torch names it.
        precision: ``32``, ``bf16``, ``16`` or ``auto``.
        on_bad_numbers: what a loss or gradient that is NaN or infinite does: ``stop`` ends the run at its last good
            checkpoint, ``skip`` leaves the step out.
        resume: go on from the folder's last checkpoint.
        verbose: show progress.

    Returns:
        The run: ``run.student`` (eval mode, on the CPU), ``run.summary``, ``run.folder``.

    Raises:
        UserError: an argument that cannot be used; the sentence says which and what would do.
        TrainingFailed: a loss or gradient became NaN or infinite, or a file could not be written.
    """
    import torch

    from spikedistill.assembly import Parts, check_frames, needs_trained_teacher, open_source
    from spikedistill.build import with_features
    from spikedistill.methods.base import JOINT_TEACHER
    from spikedistill.models.network import settings_of
    from spikedistill.models.witness import copied
    from spikedistill.recipe import parse
    from spikedistill.run import execute, refuse_occupied
    from spikedistill.runfolder import check_storable

    _check_networks(teacher, student)
    folder = Path(out)
    content: dict[str, Any] = {
        "name": folder.name,
        "seed": seed,
        "epochs": epochs,
        "out": str(folder),
        "batch_size": batch_size,
        "optimizer": optimizer or {},
        "schedule": schedule or {},
        "clip": clip,
        "init": {"kind": init} if isinstance(init, str) else dict(init),
        "method": {"name": method} if isinstance(method, str) else dict(method),
        "device": device,
        "precision": precision,
        "on_bad_numbers": on_bad_numbers,
        "data": _data_section(train, validation, augment, workers),
    }
    timesteps = getattr(student, "timesteps", None)
    if timesteps is not None:
        content["timesteps"] = timesteps
    content["student"] = settings_of(student)
    content["neuron"] = _neuron(student)
    content["encoding"] = _encoding(student)
    recipe = parse({key: value for key, value in content.items() if value is not None}, "the arguments of distill")
    if timesteps is None and recipe.spiking_student():
        raise UserError(
            f"method '{recipe.method['name']}' trains a spiking network, and the student, a {type(student).__name__}, "
            "has no timesteps; make it spiking first: sd.spikify(network, timesteps=4, example_input=images)"
        )
    refuse_occupied(folder, resume)
    data = _open(train, test, validation, seed, classes, workers, augment, recipe.data)
    student.cpu()  # shapes are found out here; where it is trained is the recipe's affair
    if timesteps is not None:
        check_frames(data.info, timesteps, "sequences of ")
    _check_input(student, data, "student")
    recipe.normalisation = (data.info.mean, data.info.std)
    _check_encoding(student, data)
    check_storable(student, "student")
    if teacher is None and recipe.method_class().teacher_role == JOINT_TEACHER:
        torch.manual_seed(recipe.seed)
        teacher = _twin(student)
    if teacher is None and needs_trained_teacher(recipe):
        raise UserError(
            f"method '{recipe.method['name']}' with init '{recipe.init.kind}' needs a teacher; pass a trained ANN: "
            "teacher="
        )
    taught_by = None
    if teacher is not None:
        taught_by = copied(teacher, "taken as teacher").cpu()  # it may be on a GPU
        _check_input(taught_by, data, "teacher")
        taught_by = with_features(taught_by, data.info.shape)
    source = open_source(recipe, student, taught_by)
    parts = Parts(recipe, data, student, taught_by, source, by_program=True)
    return execute(parts, resume=resume, verbose=verbose)


def load(path: str | Path, network: nn.Module | None = None) -> nn.Module:
    """The trained network of a run folder, in eval mode on the CPU; reads YAML and safetensors, runs no code of theirs.

    Args:
        path: the run folder.
        network: for a run on a network of your own: that network, whose weights are replaced.

    Raises:
        UserError: no run folder, an unfinished run, or weights that do not fit.
    """
    from spikedistill.build import load_run

    return load_run(Path(path), network)


def list_recipes() -> list[str]:
    """The names of the shipped recipes, sorted."""
    from spikedistill.recipebook import list_recipes as names

    return names()


def _twin(student: nn.Module) -> nn.Module:
    """The ANN of the student's architecture and weights, for a method that trains both from there."""
    from spikedistill.models import create_model
    from spikedistill.models.network import settings_of
    from spikedistill.models.twin import Twin

    if isinstance(student, Twin):
        return student.to_ann()
    settings = settings_of(student)
    if settings is None:
        raise UserError("this method trains an ANN beside the SNN; pass the untrained ANN of your network: teacher=")
    section = dict(settings)
    twin = create_model(section.pop("model"), **section.pop("options"), **section)
    # Weights that the two share start as the ANN's, and those that the student has shall not be lost.
    twin.load_state_dict({key: value for key, value in student.state_dict().items() if key in twin.state_dict()})
    return twin


def _data_section(train: Any, validation: float, augment: tuple[str, ...], workers: int) -> dict[str, Any]:
    section: dict[str, Any] = {"validation": validation, "augment": augment, "workers": workers}
    if isinstance(train, dict):
        section |= train
    elif isinstance(train, str | Path):
        section |= {"path": str(train)} if Path(train).exists() else {"name": str(train)}
    else:
        section["name"] = "own"
    return section


def _open(
    train: Any,
    test: Any,
    validation: float,
    seed: int,
    classes: tuple[str, ...] | None,
    workers: int,
    augment: tuple[str, ...],
    settings: Any,
) -> Data:
    from spikedistill.data import from_datasets, open_data

    if isinstance(train, str | Path | dict):
        if test is not None and test != train:
            raise UserError(
                "with a data set's name, path or section as train=, its own test part is used; leave test out"
            )
        if classes is not None:
            raise UserError(
                "with a data set's name, path or section as train=, its own classes are used; leave classes out"
            )
        return open_data(settings, seed)
    if test is None or isinstance(test, str | Path | dict):
        raise UserError("with a Dataset as train=, test= must be a Dataset too")
    return from_datasets(
        train, test, validation=validation, seed=seed, classes=classes, workers=workers, augment=augment
    )


def _neuron(student: nn.Module) -> dict[str, Any] | None:
    from spikedistill.models.activation import layers_of
    from spikedistill.spiking import LIF

    for layer in layers_of(student).values():
        settings = layer.neuron.settings()
        # Left out where it is the surrogate's own, as recipes leave it out: these are the same settings.
        usual = LIF(surrogate=str(settings["surrogate"])).settings()["width"]
        return settings | {"width": None if settings["width"] == usual else settings["width"]}
    return None


def _encoding(student: nn.Module) -> str | None:
    """What a recipe says of a student's input coding; None where it has none of its own.

    Raises:
        UserError: a coding that no run folder could bring back.
    """
    from spikedistill.models.network import encoding_of
    from spikedistill.spiking.encoding import PoissonEncoding

    encoding = encoding_of(student)
    if encoding is None:
        return None
    if not isinstance(encoding, PoissonEncoding):
        raise UserError(
            f"the student's encoding is a {type(encoding).__name__}, which no run folder can bring back; use "
            "PoissonEncoding or None, or give sequences [T, C, H, W] as the data"
        )
    return "poisson"


def _check_encoding(student: nn.Module, data: Data) -> None:
    """Refuses a Poisson coding that takes images for otherwise normalised than they are."""
    from spikedistill.models.network import encoding_of
    from spikedistill.spiking.encoding import PoissonEncoding

    encoding = encoding_of(student)
    if not isinstance(encoding, PoissonEncoding):
        return
    for key, given, here in (("mean", encoding.mean, data.info.mean), ("std", encoding.std, data.info.std)):
        if tuple(given) not in (tuple(here), here[:1] * len(given)):
            raise UserError(
                f"the student's PoissonEncoding has {key} {tuple(given)}, but the images are normalised with "
                f"{tuple(here)}; use those"
            )


def _check_networks(teacher: Any, student: Any) -> None:
    """Refuses what is no network, and a student of which nothing can be trained."""
    from spikedistill.models.network import checked_network

    checked_network(student, "student")
    if teacher is not None:
        checked_network(teacher, "teacher")
    if not any(parameter.requires_grad for parameter in student.parameters()):
        raise UserError("the student has no parameters that can be trained; set student.requires_grad_(True)")


def _check_input(network: nn.Module, data: Data, role: str) -> None:
    import torch

    from spikedistill.methods.base import classifies

    answers = classifies(network, torch.zeros(1, *data.info.shape), role)
    # An ANN's logits that are all positive and sum to one would do so by chance; rates of output neurons may well.
    spiking = getattr(network, "timesteps", None) is not None
    if not spiking and answers.shape[-1] > 1 and bool((answers > 0).all()) and abs(float(answers.sum()) - 1.0) < 1e-4:
        raise UserError(
            f"the {role} answers with probabilities, as a softmax makes them, and losses take logits: leave its last "
            "softmax out"
        )
    if role == "student" and answers.shape[-1] != len(data.info.classes):
        raise UserError(f"the student answers with {answers.shape[-1]} classes, the data have {len(data.info.classes)}")
