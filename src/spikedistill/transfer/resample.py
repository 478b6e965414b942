"""Initialisation from a larger teacher: blocks by their place in the stage, channels by loop interpolation.

Source: IDSNN (Fan, Zhang, Zhang 2023), section 3.2.2 and figures 2 and 3. Block j of a stage takes the teacher's block
j of that stage; a convolution is interpolated along its output channels, then its input channels, in a loop: channel c
takes the teacher's channel ``c mod n``, so a narrower student takes the first ones and a wider one starts over. Since
both directions of all layers follow this one rule, a channel of the student meets the same partners as its original.
BatchNorm's weight, bias and running statistics go the same way; the linear layers behind the blocks stay random.

Deviations. The authors' code leaves projection shortcuts random; here they are taken over unless ``shortcuts`` is off.
The teacher's branch and projection were trained to be added up, with statistics to match: a random projection puts
noise of unit variance into the first sum of a stage, to which nothing behind it is used. A teacher may also be narrower
or shallower (the paper: "or vice versa"); blocks that it lacks are left.

Which tensors make up a block is read from the field's names (``layer2.0.conv1`` is in the first block of stage 2, in
public ResNets as well), else from the network's ``blocks``: a block is what is defined behind the previous block's
activation, up to its own. Two blocks fit if they are made of the same kinds of tensors in the same order; where they do
not (a bottleneck for a basic block) the student's is left, and a teacher of which no block fits is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spikedistill.errors import UserError
from spikedistill.spiking import LIF
from spikedistill.transfer.report import Entry

BLOCK_NAME = re.compile(r"layer(\d+)\.(\d+)\.(.+)")
SHORTCUT_NAMES = ("downsample", "shortcut")
STEM, HEAD, CLASSIFIER, SHORTCUT = "stem", "head", "classifier", ".shortcut"


def loop_interpolate(source: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Repeats or cuts the first two dimensions to the sizes in ``shape``: index i takes index ``i mod n``.

    Args:
        source: a convolution's or linear layer's weight ``[c_out, c_in, ...]``, a vector ``[c]`` or a scalar.
        shape: what is wanted; dimensions beyond the first two must be those of ``source``.
    """
    for dim, size in enumerate(shape[:2]):
        source = source.index_select(dim, torch.arange(size, device=source.device) % source.shape[dim])
    return source


@torch.no_grad()
def resample_weights(teacher: nn.Module, student: nn.Module, shortcuts: bool = True) -> list[Entry]:
    """Initialises ``student`` in place from ``teacher``.

    Args:
        teacher: a trained network with the field's block names or an attribute ``blocks``.
        student: the network to initialise, likewise.
        shortcuts: take projection shortcuts over too.

    Returns:
        One entry per tensor of the student.

    Raises:
        UserError: as ``plan_resample``.
    """
    report = plan_resample(teacher, student, shortcuts)
    theirs, ours = teacher.state_dict(), student.state_dict()
    for entry in report:
        if entry.source is not None:
            ours[entry.name].copy_(loop_interpolate(theirs[entry.source], entry.shape))
    return report


def plan_resample(teacher: nn.Module, student: nn.Module, shortcuts: bool = True) -> list[Entry]:
    """What ``resample_weights`` will do. Needs the teacher's architecture only, not its training; changes nothing.

    Raises:
        UserError: a network whose blocks cannot be told, or a teacher of which no block fits.
    """
    theirs, ours = _anatomy(teacher, "teacher"), _anatomy(student, "student")
    found: dict[str, Entry] = {}
    obstacles: dict[str, str] = {}
    for part, names in ours.parts.items():
        obstacles[part] = reason = _obstacle(part, ours, theirs, shortcuts)
        for i, name in enumerate(names):
            shape = ours.shapes[name]
            if reason:
                found[name] = Entry(name, "left", shape, reason=reason)
                continue
            source = theirs.parts[part][i]
            action = "copied" if theirs.shapes[source] == shape else "resampled"
            found[name] = Entry(name, action, shape, source, theirs.shapes[source])
    in_blocks = [reason for part, reason in obstacles.items() if part not in (STEM, HEAD, CLASSIFIER)]
    if all(in_blocks):
        raise UserError(
            "init.kind=resample finds nothing in the teacher for any block of the student "
            f"({in_blocks[0] if in_blocks else 'which has none'}); take a teacher with the same kind of blocks, or "
            "init.kind=random"
        )
    neuron = "a neuron's parameter, which an ANN does not have"
    return [found.get(name) or Entry(name, "left", shape, reason=neuron) for name, shape in ours.shapes.items()]


@dataclass(frozen=True)
class _Anatomy:
    """A network's state-dict keys by part, in order of definition and without the neurons' own, and all shapes.

    Parts are the blocks (``stage1.block2``), their projections (``stage1.block2.shortcut``), what precedes the first
    block (``stem``) and follows the last (``head``), of which linear layers are the ``classifier``.
    """

    parts: dict[str, list[str]]
    shapes: dict[str, tuple[int, ...]]


def _obstacle(part: str, ours: _Anatomy, theirs: _Anatomy, shortcuts: bool) -> str:
    """Why a part of the student cannot take the teacher's, '' where it can."""
    if part == CLASSIFIER:
        return "fully connected layers start at random (IDSNN section 3.3.2)"
    if part.endswith(SHORTCUT):
        if not shortcuts:
            return "init.shortcuts is off"
        if reason := _obstacle(part.removesuffix(SHORTCUT), ours, theirs, shortcuts):
            return f"its block is left: {reason}"
    if part not in theirs.parts:
        return f"the teacher has no {part}"
    names, sources = ours.parts[part], theirs.parts[part]
    if len(names) != len(sources):
        return f"the teacher's {part} is of another kind: {len(sources)} tensors there, {len(names)} here"
    for name, source in zip(names, sources, strict=True):
        shape, source_shape = ours.shapes[name], theirs.shapes[source]
        if _kind(name, shape) != _kind(source, source_shape):
            there, here = f"'{source}' {list(source_shape)}", f"'{name}' {list(shape)}"
            return f"the teacher's {part} is of another kind: {there} there, {here} here"
    return ""


def _kind(name: str, shape: tuple[int, ...]) -> tuple[str, int, tuple[int, ...]]:
    """What loop interpolation cannot change: the tensor's role, its number of dimensions, the kernel's size."""
    return name.rpartition(".")[2], len(shape), shape[2:]


def _anatomy(network: nn.Module, role: str) -> _Anatomy:
    """Tells a network's parts; raises UserError where it names no blocks."""
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    place = _place_by_name(list(shapes)) or _place_by_order(network)
    if place is None:
        raise UserError(
            f"init.kind=resample cannot tell the blocks of the {role} ({type(network).__name__}): its tensors are not "
            "named layer1.0... and it has no attribute 'blocks'"
        )
    modules = dict(network.named_modules())
    neurons = tuple(f"{path}." for path, module in modules.items() if isinstance(module, LIF))
    parts: dict[str, list[str]] = {}
    for name in shapes:
        if name.startswith(neurons):
            continue
        part = place(name)
        if part in (STEM, HEAD) and isinstance(modules[_module_of(name)], nn.Linear):
            part = CLASSIFIER
        parts.setdefault(part, []).append(name)
    return _Anatomy(parts, shapes)


def _module_of(name: str) -> str:
    return name.rpartition(".")[0]


def _place_by_name(names: list[str]) -> Callable[[str], str] | None:
    """The part of a key by the field's names; None where no key is named so."""
    positions = [i for i, name in enumerate(names) if BLOCK_NAME.match(name)]
    if not positions:
        return None
    before = set(names[: positions[0]])

    def place(name: str) -> str:
        match = BLOCK_NAME.match(name)
        if match is None:
            return STEM if name in before else HEAD
        stage, block, local = match.groups()
        return f"stage{stage}.block{int(block) + 1}{SHORTCUT if local.startswith(SHORTCUT_NAMES) else ''}"

    return place


def _place_by_order(network: nn.Module) -> Callable[[str], str] | None:
    """The part of a key by where its module is defined, between the activations that end the blocks."""
    blocks: dict[str, str] | None = getattr(network, "blocks", None)
    if not blocks:
        return None
    ends = list(blocks.values())
    names = [*blocks, HEAD]
    places: dict[str, str] = {}
    passed = 0
    for path, _ in network.named_modules():
        places[path] = names[passed]
        if path in ends[passed:]:
            passed = ends.index(path, passed) + 1
    return lambda name: places[_module_of(name)]
