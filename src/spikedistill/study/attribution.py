"""What networks see (SAKD section 4.5, figure 4): feature maps, Grad-CAM, CKA and membrane potentials side by side.

Options: ``reference`` (label of the ANN), ``features`` and ``evidence`` (stages whose maps and whose Grad-CAM are
drawn), ``shown`` (images in the pictures), ``images`` (images that CKA and Grad-CAM are compared on).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spikedistill.evalrun import Opened, open_run
from spikedistill.evaluation.maps import grad_cam, mean_features
from spikedistill.evaluation.membranes import Potentials, membrane_potentials
from spikedistill.evaluation.similarity import cka_matrix
from spikedistill.methods.features import points_of
from spikedistill.study import maps
from spikedistill.study.base import Done, Finding, Picture, Table, Value, by_label
from spikedistill.sweep import Planned

SHOWN, IMAGES, CHANNELS = 5, 128, 8


@dataclass(frozen=True)
class Seen:
    """What one network makes of the images; of an ANN there are no potentials.

    Attributes:
        name: for people.
        right: for each shown image, whether it is taken for what it is, and what it is taken for.
        channels: ``[CHANNELS, H, W]``, the first shown image in the channels that vary most.
        evidence: ``[images, H, W]``, Grad-CAM of the true class.
        cka: the reference's stages by this network's.
        potentials: by layer.
    """

    name: str
    right: list[tuple[bool, str]]
    channels: Tensor
    evidence: Tensor
    cka: list[list[float]]
    potentials: dict[str, Potentials]


def attribution(runs: list[Done], planned: list[Planned], options: Mapping[str, Any]) -> Finding:
    """The study."""
    names = {one.cell.label: one.cell.row for one in planned if one.cell.row}
    reference = str(options["reference"])
    by_seed: dict[int, dict[str, Done]] = {}
    for run in runs:
        if run.label in names:
            by_seed.setdefault(run.planned.seed, {})[run.label] = run
    complete = {seed: found for seed, found in by_seed.items() if reference in found and len(found) > 1}
    if not complete:
        return Finding((), (), ("Neither pictures nor figures before the ANN and one SNN of a seed are trained.",))
    looks = {seed: _look(found, names, reference, options) for seed, found in complete.items()}
    first = looks[min(looks)]
    images, stages = first[0], first[2]
    drawn = list(first[1].values())
    spiking = [one for one in drawn if one.potentials]
    pictures = (
        Picture(
            "features",
            f"The {CHANNELS} channels that vary most over the first image, after {options.get('features', stages[0])}; "
            "spikes as rates. Channels of two networks do not correspond.",
            lambda figure: maps.channels(figure, images[0], [(one.name, one.channels) for one in drawn]),
            (9.5, 1.15 * len(drawn)),
        ),
        Picture(
            "gradcam",
            f"Grad-CAM of the true class at {options.get('evidence', stages[-1])}; below each, what the network took "
            "the image for.",
            lambda figure: maps.evidence(figure, images, [(one.name, one.evidence, one.right) for one in drawn]),
            (1.5 * len(images) + 1.2, 1.7 * (len(drawn) + 1)),
        ),
        Picture(
            "cka",
            f"Linear CKA of the {names[reference]}'s stages (rows) and each SNN's (columns): 1 is the same up to a "
            "rotation and a scale.",
            lambda figure: maps.similarity(figure, names[reference], stages, [(one.name, one.cka) for one in spiking]),
            (3.4 * len(spiking), 3.2),
        ),
        Picture(
            "membranes",
            "Membrane potentials before the spike (grey), the threshold (line), the surrogate's derivative (colour): "
            "a neuron outside that window learns nothing. The outermost bars hold all that lies beyond.",
            lambda figure: maps.membranes(figure, [(one.name, one.potentials) for one in spiking]),
            (10.0, 2.4 * len(spiking)),
        ),
    )
    labels = [label for label in names if label != reference]
    return Finding((_table(labels, names, reference, runs, {seed: look[1] for seed, look in looks.items()}),), pictures)


def _look(
    found: Mapping[str, Done], names: Mapping[str, str], reference: str, options: Mapping[str, Any]
) -> tuple[Tensor, dict[str, Seen], list[str]]:
    """The shown images as pixels ``[N, C, H, W]``, what each network sees, and the stages."""
    opened = {label: open_run(run.folder, images=int(options.get("images", IMAGES))) for label, run in found.items()}
    teacher = opened[reference]
    images, labels = (torch.cat(part) for part in zip(*teacher.test_images().epoch(0), strict=True))
    shown = min(int(options.get("shown", SHOWN)), len(images))
    order = _spread(labels, shown)
    images, labels = images[order], labels[order]
    info = teacher.data.info
    mean, std = (torch.tensor(value).view(-1, 1, 1) for value in (info.mean, info.std))
    pixels = (images[:shown].cpu() * std + mean).clamp(0.0, 1.0)
    stages = list(points_of(teacher.network, "stage"))
    seen = {
        label: _see(names[label], opened[label], teacher, images, labels, shown, options)
        for label in names
        if label in opened
    }
    return pixels, seen, stages


def _spread(labels: Tensor, shown: int) -> Tensor:
    """An order of the images in which the first ones are of different classes, as far as there are so many."""
    first = {int(label): index for index, label in reversed(list(enumerate(labels)))}
    chosen = sorted(first.values())[:shown]
    rest = [index for index in range(len(labels)) if index not in chosen]
    return torch.tensor([*chosen, *rest])


def _see(
    name: str,
    run: Opened,
    teacher: Opened,
    images: Tensor,
    labels: Tensor,
    shown: int,
    options: Mapping[str, Any],
) -> Seen:
    points = points_of(run.network, "stage")
    stages = list(points)
    feature = str(options.get("features", stages[0]))
    look_at = str(options.get("evidence", stages[-1]))
    with torch.no_grad():
        answers = run.network(images[:shown]).argmax(-1).tolist()
    classes = run.data.info.classes
    right = [(int(label) == answer, classes[answer]) for label, answer in zip(labels[:shown], answers, strict=True)]
    maps_of = mean_features(run.network, images[:1], {feature: points[feature]})[feature][0].cpu()
    order = maps_of.flatten(1).var(1).argsort(descending=True)[:CHANNELS]
    spiking = run.network.timesteps is not None  # type: ignore[attr-defined]
    return Seen(
        name=name,
        right=right,
        channels=maps_of[order],
        evidence=grad_cam(run.network, images, labels, points[look_at]).cpu(),
        cka=cka_matrix(teacher.network, run.network, images, points_of(teacher.network, "stage"), points),
        potentials=membrane_potentials(run.network, images) if spiking else {},
    )


def _table(
    labels: list[str],
    names: Mapping[str, str],
    reference: str,
    runs: list[Done],
    looks: Mapping[int, Mapping[str, Seen]],
) -> Table:
    done = by_label(runs)
    rows = []
    for label in labels:
        mine = [(look[label], look[reference]) for look in looks.values() if label in look]
        if not mine:
            continue
        own = [one for one, _ in mine]
        rows.append(
            (
                names[label],
                (
                    Value(tuple(run.accuracy for run in done[label])),
                    Value(tuple(_correlation(one.evidence, ann.evidence) for one, ann in mine)),
                    Value(tuple(_diagonal(one.cka) for one in own)),
                    Value(tuple(100 * _mean([p.inside for p in one.potentials.values()]) for one in own), digits=1),
                ),
            )
        )
    heads = ("accuracy, %", "Grad-CAM like the ANN's (r)", "CKA with the ANN", "potentials in the window, %")
    notes = (
        "r: correlation of the two networks' Grad-CAM maps of the true class, mean over images; an image for which one "
        "of them finds no evidence counts as 0",
        "CKA: mean over the stages that the networks share",
    )
    return Table("How alike the networks are", "", heads, tuple(rows), notes)


def _correlation(first: Tensor, second: Tensor) -> float:
    """Pearson's r of maps ``[N, H, W]``, mean over N."""
    a, b = (x.flatten(1).double() - x.flatten(1).double().mean(1, keepdim=True) for x in (first, second))
    size = a.norm(dim=1) * b.norm(dim=1)
    return float(torch.where(size > 0, (a * b).sum(1) / size.clamp_min(1e-12), torch.zeros_like(size)).mean())


def _diagonal(matrix: list[list[float]]) -> float:
    return _mean([row[index] for index, row in enumerate(matrix) if index < len(row)])


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
