"""The formats a network can be exported to, and the one way of doing it: write, read back, compare, describe."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from spikedistill.engine.checkpoint import write_durably
from spikedistill.errors import TrainingFailed, UserError, unknown
from spikedistill.evaluation.energy import energy
from spikedistill.export.about import About
from spikedistill.export.card import Origin, render_card
from spikedistill.export.compare import Agreement, batch_dim, compare_spikes
from spikedistill.export.interpreter import NirNetwork, read_nir
from spikedistill.export.nir_file import nir_bytes, require_nir
from spikedistill.export.onnx_file import compare_logits, onnx_bytes, require_onnx, session_of
from spikedistill.export.record import plain_copy
from spikedistill.models.activation import layers_of
from spikedistill.models.folded import TwinSpike
from spikedistill.models.network import Network
from spikedistill.models.twin import Twin

MEASURED = 256
"""Images on which the energy in a card is measured, at most."""

WORST, ENOUGH = 90.0, 20
"""Share of equal spikes, or of equal predictions (of so many at least), in percent, below which a file is wrong."""


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        title: for people.
        require: refuses where a package is missing.
        write: network, images and what to say about them to the file's contents.
        read: the file's contents to something that runs.
        check: network, what ``read`` gave, and images to how well they agree.
        notes: what a file does not say about its network.
    """

    title: str
    require: Callable[[], None]
    write: Callable[[nn.Module, Tensor, About], bytes]
    read: Callable[[bytes], Any]
    check: Callable[[Network | Twin, Any, Tensor], Agreement]
    notes: Callable[[Network | Twin, Any], list[str]]


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        path: of the file.
        card: of its model card.
        agreement: of the file, read back, with the network.
        notes: what a reader of the file must know that its format does not say.
        sha256: of the file.
        size: in bytes.
    """

    path: Path
    card: Path
    agreement: Agreement
    notes: tuple[str, ...]
    sha256: str
    size: int


def export(kind: str, network: nn.Module, path: str | Path, images: Tensor, about: About, origin: Origin) -> Exported:
    """Writes a network's file and its model card, ``<file>.md``; what is not whole is never there.

    Args:
        kind: a name in ``FORMATS``.
        network: spiking, of ``create_model`` or ``spikify``; it stays as it is.
        path: of the file.
        images: at least one, as the network takes them; the file is compared with the network on all of them.
        about: what the file says about the network.
        origin: where the network comes from, for the card.

    Raises:
        UserError: an unknown format, a path that cannot be written to, a network that the format cannot hold, or a
            package that is missing.
        TrainingFailed: the file, read back, does not compute what the network does.
    """
    if kind not in FORMATS:
        raise unknown("export format", kind, list(FORMATS))
    chosen, path = FORMATS[kind], check_writable(Path(path))
    chosen.require()
    plain = plain_copy(network)
    images = images.detach().float().cpu()
    dim = batch_dim(plain, images)
    content = chosen.write(plain, images, about)
    reader = chosen.read(content)
    agreement = chosen.check(plain, reader, images)
    _check_same(agreement, chosen.title)
    digest = hashlib.sha256(content).hexdigest()
    notes = chosen.notes(plain, reader)
    text = render_card(
        name=path.name,
        kind=chosen.title,
        size=len(content),
        sha256=digest,
        metadata=about.metadata() | getattr(reader, "metadata", {}),
        shape=images.shape[dim + 1 :],
        neurons=neurons_in_words(plain),
        origin=origin,
        agreement=agreement,
        bill=energy(plain, images.narrow(dim, 0, min(MEASURED, images.shape[dim]))),
        notes=notes,
    )
    card = path.with_name(f"{path.name}.md")
    write_durably(path, content)
    write_durably(card, text.encode())
    return Exported(path, card, agreement, tuple(notes), digest, len(content))


def check_writable(path: Path) -> Path:
    """The path again.

    Raises:
        UserError: no file can be written there.
    """
    parent = path.parent
    if path.is_dir():
        raise UserError(f"cannot write '{path}': it is a folder; name a file in it")
    if not parent.is_dir():
        raise UserError(f"cannot write '{path}': there is no folder '{parent}'")
    if not os.access(parent, os.W_OK):
        raise UserError(f"cannot write '{path}': the folder '{parent}' may not be written to")
    return path


def _check_same(agreement: Agreement, title: str) -> None:
    """Refuses a file that is wrong: rounding changes a spike here and there, not one in ten."""
    different = agreement.spikes is not None and agreement.spikes < WORST
    if agreement.images >= ENOUGH and 100.0 * agreement.predictions < WORST * agreement.images:
        different = True
    if different:
        raise TrainingFailed(f"nothing was written: the {title} file, read back, does not do the same ({agreement})")


def neurons_in_words(network: nn.Module) -> str:
    """The neurons of a network, each kind once."""
    kinds = []
    for spike in layers_of(network).values():
        settings = spike.neuron.settings()
        learned = ", learned per layer" if settings["learn_decay"] else f" {settings['decay']:g}"
        calibrated = isinstance(spike, TwinSpike) and spike.balance is not None
        threshold = "calibrated per layer" if calibrated else f"{settings['threshold']:g}"
        name = "IF" if settings["decay"] == 1.0 else f"LIF, decay{learned}"
        kinds.append(f"{name}, threshold {threshold}, fires on {settings['fires_on']}, {settings['reset']} reset")
    return "; ".join(dict.fromkeys(kinds))


def _nir_notes(network: Network | Twin, reader: NirNetwork) -> list[str]:
    spikes = list(layers_of(network).values())
    notes = [
        "NIR holds one timestep: how many there are, dt, and that the answer is the mean over time stand in the "
        "graph's metadata; potentials start at zero."
    ]
    if any(not spike.neuron.dynamics.strict for spike in spikes):
        notes.append(
            "NIR fires on v > v_threshold, the network on >=: v_threshold is the float32 number below the threshold. A "
            "reader that fires on >= differs only where a potential hits that very number."
        )
    if any(spike.neuron.dynamics.soft_reset for spike in spikes):
        notes.append(
            "The network's reset is soft, which NIR does not know: a spike subtracts what each neuron's metadata call "
            "`subtract`. A reader that resets to v_reset gives other spikes and a worse accuracy."
        )
    starts = [isinstance(spike, TwinSpike) and spike.start is not None and bool(spike.start) for spike in spikes]
    if any(starts) and any(spike.neuron.dynamics.soft_reset for spike in spikes):
        notes.append("Calibrated neurons start at `v_initial` of their metadata, not at zero.")
    if any("role" in told for told in reader.node_metadata.values()):
        notes.append("A max pooling of spikes is an average pooling and IF neurons that fire if there is any spike.")
    return notes


def _onnx_notes(network: Network | Twin, reader: Any) -> list[str]:
    return [
        f"All {network.timesteps} timesteps are unrolled: another number is another export. Any batch size fits.",
        "Spikes are floating-point numbers in ONNX, so a runtime gains nothing from their being rare.",
    ]


FORMATS: dict[str, Format] = {
    "nir": Format(
        "NIR",
        require_nir,
        nir_bytes,
        lambda content: read_nir(io.BytesIO(content)),
        compare_spikes,
        _nir_notes,
    ),
    "onnx": Format("ONNX", require_onnx, onnx_bytes, session_of, compare_logits, _onnx_notes),
}
