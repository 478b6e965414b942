"""The command ``eval``: a finished run on its test images again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spikedistill.build import load_run, read_config
from spikedistill.data import Data, Loader, open_data
from spikedistill.engine.devices import at_hand
from spikedistill.engine.loop import Batches
from spikedistill.errors import UserError, shortened
from spikedistill.evaluation.accuracy import evaluate
from spikedistill.evaluation.latency import latency
from spikedistill.evaluation.robustness import NOISES, noises_for, parse_noise, robustness
from spikedistill.finishing import EVALUATION_BATCH
from spikedistill.models.network import checked_timesteps
from spikedistill.recipe import Recipe
from spikedistill.report.evaluation import parse_evaluation
from spikedistill.report.runs import OWN
from spikedistill.runfolder import read_json, write_json

ROBUSTNESS, LATENCY = "robustness.json", "latency.json"
ALL = "all"
"""Every kind of noise that the network can be tried with."""


@dataclass
class Opened:
    """A finished run, ready to be measured.

    Attributes:
        folder: the run folder.
        recipe: its recipe, with the data where they lie now.
        network: its trained network, in eval mode on the device.
        data: its data set, normalised as in training.
        device: where batches are made.
        images: how many of a stream's test images to use, which no subset can be taken of; None for all.
    """

    folder: Path
    recipe: Recipe
    network: nn.Module
    data: Data
    device: torch.device
    images: int | None = None

    def test_images(self) -> Batches:
        """The test images in their own order, in batches of ``EVALUATION_BATCH``."""
        info = self.data.info
        loader = Loader(
            self.data.test, info, batch_size=EVALUATION_BATCH, device=self.device, shuffle=False, seed=self.recipe.seed
        )
        return loader if self.images is None else _First(loader, self.images)

    @property
    def count(self) -> int:
        """How many test images there are."""
        return min(len(self.data.test), self.images or len(self.data.test))


@dataclass(frozen=True)
class _First:
    """The first so many images of a stream."""

    loader: Loader
    images: int

    def __len__(self) -> int:
        return min(len(self.loader), -(-self.images // EVALUATION_BATCH))

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        left = self.images
        for images, labels in self.loader.epoch(number, start):
            yield images.narrow(images.dim() - 4, 0, min(left, len(labels))), labels[:left]
            left -= len(labels)
            if left <= 0:
                return


def open_run(
    folder: Path,
    data_path: str | None = None,
    images: int | None = None,
    frames: int | None = None,
    network: nn.Module | None = None,
    device: torch.device | None = None,
) -> Opened:
    """Opens a run folder's network and its test images.

    Args:
        folder: the run folder.
        data_path: where the data lie now, if not where they lay.
        images: how many test images to use, the same ones whatever the run's seed; None for all that the run used.
        frames: into how many frames recordings of events are cut, if not as many as in training.
        network: the run's network, where it is at hand already; None reads it from the folder.
        device: where to measure; None for what the recipe asks for, if that is there.

    Raises:
        UserError: no finished run, no data, or a run on data or a network that only its user has.
    """
    if images is not None and images < 1:
        raise UserError(f"--images must be at least 1, not {images}")
    recipe = read_config(folder)
    network = load_run(folder) if network is None else network
    if recipe.data.name == OWN and not data_path:
        raise UserError(
            f"'{folder}' was trained on data of your own; say where such data lie (--data-path), or pass them in "
            "Python: sd.evaluate(sd.load(folder), test_set)"
        )
    settings = replace(recipe.data, path=data_path) if data_path else recipe.data
    if images is not None and not settings.streaming:
        settings = replace(settings, test_subset=min(images, settings.test_subset or images))
    if frames is not None:
        settings = replace(settings, frames=checked_timesteps(frames))
    recipe = recipe.model_copy(update={"data": settings})
    data = _as_trained(open_data(settings, recipe.seed), recipe)
    _check_classes(folder, data)
    device = device or at_hand(recipe.device)
    return Opened(folder, recipe, network.to(device), data, device, images if settings.streaming else None)


def trained_classes(folder: Path) -> Sequence[str]:
    """The names of the classes that a run was trained on, in the order of the logits; empty where it does not say."""
    file = folder / "evaluation.json"
    return parse_evaluation(read_json(file), f"'{file}'").classes if file.is_file() else ()


def _check_classes(folder: Path, data: Data) -> None:
    """Refuses data of other classes, or of the same in another order, than the run was trained on."""
    trained = trained_classes(folder)
    if trained and tuple(trained) != tuple(data.info.classes):
        raise UserError(
            f"'{folder}' was trained on the classes {shortened(trained, 5)}, and the data here have "
            f"{shortened(data.info.classes, 5)}; give data of those, in that order"
        )


def _as_trained(data: Data, recipe: Recipe) -> Data:
    """With the constants of the training images, whatever those that lie there now would give.

    Recordings that are cut into other frames have other counts in them, and their own scale.
    """
    info = data.info
    recut = info.timesteps is not None and info.timesteps != recipe.timesteps
    if recipe.normalisation is None or recut or len(recipe.normalisation[0]) != info.shape[0]:
        return data
    mean, std = recipe.normalisation
    return replace(data, info=replace(info, mean=tuple(mean), std=tuple(std)))


def evaluate_run(
    folder: Path,
    *,
    timesteps: int | None = None,
    data_path: str | None = None,
    images: int | None = None,
    noises: Sequence[str] = (),
    by_latency: bool = False,
) -> dict[str, Any]:
    """Evaluates a run folder's network on its test images.

    Noise and latency are measured beside the plain accuracy and kept in the run folder, as ``robustness.json`` and
    ``latency.json``, for the report.

    Args:
        folder: the run folder.
        timesteps: another T than it was trained with.
        data_path: where the data lie now, if not where they lay.
        images: how many test images to use; None for all that the run used.
        noises: ``KIND:VALUE``, ``KIND`` for a whole curve, or ``all``.
        by_latency: accuracy from 1 to 2 T timesteps, and early exit.

    Raises:
        UserError: no finished run, no data, an unknown noise, something about spikes asked of an ANN, or latency
            beside another T.
    """
    if by_latency and timesteps is not None:
        raise UserError("--latency goes from 1 to twice the T of training by itself; leave --timesteps out")
    wanted = [parse_noise(text) for text in noises if text != ALL]
    run = open_run(folder, data_path, images, frames=timesteps)
    wanted += [parse_noise(kind) for kind in noises_for(run.network, run.data.info) if ALL in noises]
    if timesteps is not None:
        if getattr(run.network, "timesteps", None) is None:
            raise UserError(f"--timesteps: the network of '{folder}' is an ANN and has no timesteps")
        run.network.timesteps = checked_timesteps(timesteps)  # type: ignore[assignment]
    result = evaluate(run.network, run.test_images(), len(run.data.info.classes))
    return {
        "run": str(folder),
        "data": str(run.recipe.data.path or run.recipe.data.name),
        "timesteps": result.timesteps,
        "images": result.count,
        "accuracy": result.accuracy,
        "accuracy_per_timestep": result.accuracy_per_timestep,
        "firing_rate": result.firing_rate,
        "mean_firing_rate": result.mean_firing_rate,
        **({"noise": noise_curves(run, wanted)} if wanted else {}),
        **({"latency": latency_of(run)} if by_latency else {}),
    }


def noise_curves(run: Opened, wanted: Sequence[tuple[str, Sequence[float]]]) -> dict[str, dict[str, float]]:
    """Measures a run under noise and adds it to the run's ``robustness.json``.

    Args:
        run: opened.
        wanted: kinds with their strengths.

    Returns:
        Kind to strength to accuracy in percent; strength 0 is without noise.
    """
    curves: dict[str, dict[str, float]] = {}
    for kind, strengths in wanted:
        found = robustness(run.network, run.test_images(), run.data.info, kind, strengths, run.recipe.seed)
        curves.setdefault(kind, {}).update({f"{strength:g}": value for strength, value in found.items()})
    basis = {
        "data": str(run.recipe.data.path or run.recipe.data.name),
        "images": run.count,
        "seed": run.recipe.seed,
        "timesteps": getattr(run.network, "timesteps", None),
    }
    file = run.folder / ROBUSTNESS
    known = read_json(file) if file.is_file() else {}
    if {key: known.get(key) for key in basis} != basis:
        known = {}
    merged = known.get("curves", {})
    for kind, curve in curves.items():
        points = merged.get(kind, {}).get("accuracy", {}) | curve
        merged[kind] = {"summary": NOISES[kind].summary, "accuracy": dict(sorted(points.items(), key=_strength))}
    write_json(file, {**basis, "curves": merged})
    return curves


def _strength(point: tuple[str, float]) -> float:
    return float(point[0])


def latency_of(run: Opened) -> dict[str, Any]:
    """Measures a run's accuracy from 1 to 2 T timesteps and its early exits, and writes its ``latency.json``."""
    content = asdict(latency(run.network, run.test_images()))
    write_json(run.folder / LATENCY, content)
    return content


def print_evaluation(result: dict[str, Any], as_json: bool) -> None:
    """Prints an evaluation for people or as JSON."""
    if as_json:
        print(json.dumps(result, indent=2))
        return
    print(f"accuracy {result['accuracy']:.2f} % on {result['images']} test images of {result['data']}")
    if result["timesteps"]:
        steps = "  ".join(f"T={t} {value:.2f}" for t, value in result["accuracy_per_timestep"].items())
        print(f"by timesteps (percent): {steps}")
        for name, rate in result["firing_rate"].items():
            print(f"  {name:<28} {rate:.4f} spikes per neuron and step")
        print(f"  {'mean of the layers':<28} {result['mean_firing_rate']:.4f}")
    for kind, curve in result.get("noise", {}).items():
        print(f"{kind}: {NOISES[kind].summary}")
        for strength, accuracy in curve.items():
            print(f"  {strength:<8} {accuracy:6.2f} %")
    if "latency" in result:
        _print_latency(result["latency"])


def _print_latency(found: dict[str, Any]) -> None:
    trained = found["timesteps"]
    print(f"by timesteps (percent), trained with T={trained}:")
    for steps, accuracy in found["accuracy"].items():
        print(f"  T={steps:<6} {accuracy:6.2f}")
    print("stopping as soon as the answer is confident:")
    for one in found["exits"]:
        print(f"  {one['confidence']:<8g} {one['accuracy']:6.2f} % in {one['timesteps']:.2f} timesteps")
