"""``evaluate``: a network in hand, anybody's, on test images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from spikedistill.errors import UserError

if TYPE_CHECKING:
    from spikedistill.data import DataInfo
    from spikedistill.engine.loop import Batches
    from spikedistill.evaluation.accuracy import Evaluation
    from spikedistill.run import Run

    Normalisation = tuple[Sequence[float], Sequence[float]]


TOLERANCE = 1e-3


def evaluate(
    network: nn.Module,
    data: Any = None,
    *,
    run: Run | str | Path | None = None,
    noise: str | Sequence[str] = (),
    normalisation: Normalisation | None = None,
    batch_size: int = 250,
    workers: int = 0,
    seed: int = 0,
) -> Evaluation:
    """Measures a network's accuracy: after every timestep, by class, and under noise; and how often its neurons fire.

    The network is measured in eval mode on its own device with its own timesteps, and left as it is.

    Args:
        network: an SNN of ``create_model``, ``spikify``, ``load`` or ``adopt``, or any ANN, that answers ``[B, K]``.
        data: a map-style ``Dataset`` of (image tensor ``[C, H, W]``, label), a pair of tensors (images
            ``[N, C, H, W]``, labels ``[N]``), or a loader of batches as the network takes them. Items may be sequences
            ``[T, C, H, W]``; an ANN sees their mean over T. With ``run``: where such data lie now, None for the run's
            own.
        run: a finished run or its folder, whose test images are taken, normalised as in its training.
        noise: kinds of noise, ``gaussian:0.1`` for one strength, ``gaussian`` for a curve, ``all`` for all the curves
            (``spikedistill eval`` has the same).
        normalisation: (mean, std) by channel that the images of ``data`` were normalised with; noise on pixels must
            know it. None: they were not, and lie in [0, 1].
        batch_size: images at a time, of data that are not in batches yet.
        workers: processes that read a dataset's items.
        seed: of the noise.

    Returns:
        The ``Evaluation``: ``accuracy`` (percent), ``accuracy_per_timestep``, ``firing_rate``, ``confusion``,
        ``noise``.

    Raises:
        UserError: no images, labels that are not the network's classes, or an unknown noise.
    """
    from spikedistill.evalrun import ALL
    from spikedistill.evaluation.accuracy import device_of
    from spikedistill.evaluation.accuracy import evaluate as measure
    from spikedistill.evaluation.given import batches_of
    from spikedistill.evaluation.robustness import NOISES, noises_for, parse_noise, robustness
    from spikedistill.models.network import checked_network

    checked_network(network)
    kinds = [noise] if isinstance(noise, str) else list(noise)
    wanted = [parse_noise(text) for text in kinds if text != ALL]
    place = device_of(network)
    if run is not None:
        info, batches = _of_run(network, run, data, place)
    else:
        info, batches = batches_of(network, data, place, batch_size, workers, seed)
        info = _normalised(info, normalisation)
    wanted += [parse_noise(kind) for kind in noises_for(network, info) if ALL in kinds]
    if run is None and any(NOISES[kind].on_pixels for kind, _ in wanted):
        _check_pixels(batches, info)
    result = measure(network, batches, len(info.classes))
    for kind, strengths in wanted:
        found = robustness(network, batches, info, kind, strengths, seed)
        result.noise.setdefault(kind, {}).update(found)
    return result


def _of_run(network: nn.Module, run: Run | str | Path, data: Any, place: torch.device) -> tuple[DataInfo, Batches]:
    """The test images of a run."""
    from spikedistill.evalrun import open_run

    if data is not None and not isinstance(data, str | Path):
        raise UserError("with run=, the data are that run's: leave data out, or say by its path where they lie now")
    folder = Path(run) if isinstance(run, str | Path) else run.folder
    timesteps = getattr(network, "timesteps", None)
    opened = open_run(folder, str(data) if data else None, frames=timesteps, network=network, device=place)
    return opened.data.info, opened.test_images()


def _normalised(info: DataInfo, normalisation: Normalisation | None) -> DataInfo:
    if normalisation is None:
        return info
    mean, std = (tuple(float(value) for value in part) for part in normalisation)
    if len(mean) != info.shape[0] or len(std) != info.shape[0]:
        raise UserError(f"normalisation must be a mean and a deviation for each of the {info.shape[0]} channels")
    return replace(info, mean=mean, std=std)


def _check_pixels(batches: Batches, info: DataInfo) -> None:
    """Refuses noise on pixels of images that are normalised otherwise than they are said to be."""
    images, _ = next(iter(batches.epoch(0)))
    mean, std = (torch.tensor(part, device=images.device).view(-1, 1, 1) for part in (info.mean, info.std))
    low, high = (float(value) for value in torch.aminmax(images * std + mean))
    if low < -TOLERANCE or high > 1 + TOLERANCE:
        raise UserError(
            f"noise on pixels is given in units of [0, 1], and the first images lie in [{low:.3g}, {high:.3g}]; say "
            "what they were normalised with: normalisation=(mean, std)"
        )
