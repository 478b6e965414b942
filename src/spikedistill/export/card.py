"""The model card that stands beside every exported file, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from spikedistill.evaluation.cost import Energy
from spikedistill.export.compare import Agreement

UNKNOWN = "not known to the exporter"


@dataclass(frozen=True)
class Origin:
    """Where a network comes from; what is left out is not known.

    Attributes:
        model: the architecture.
        summary: of the run that trained it (``summary.json``).
        command: what trains it again.
        run: the run folder's name.
    """

    model: str
    summary: Mapping[str, Any] = field(default_factory=dict)
    command: str | None = None
    run: str | None = None


def render_card(
    *,
    name: str,
    kind: str,
    size: int,
    sha256: str,
    metadata: Mapping[str, Any],
    shape: Sequence[int],
    neurons: str,
    origin: Origin,
    agreement: Agreement,
    bill: Energy | None,
    notes: Sequence[str],
) -> str:
    """The card of one file.

    Args:
        name, kind, size, sha256: of the file.
        metadata: what the file says about itself.
        shape: of an image.
        neurons: in words.
        origin: of the network.
        agreement: of the file with the network.
        bill: what the network costs.
        notes: what a reader of the file must know that its format does not say.
    """
    run = origin.summary
    sections = [
        f"# {origin.model}, a spiking network of {metadata['timesteps']} timesteps ({kind})",
        _table(_network(run, origin, metadata, neurons, bill)),
        "## The file",
        _table(_file(name, kind, size, sha256, metadata, shape)),
        f"Read back and compared with the network: {agreement}; largest difference of a logit {agreement.logits:.1e}.",
        "## How it was made",
        _table(_making(run, origin, metadata)),
        "## Licence",
        "Licence: (to be filled in by whoever publishes the file; what the data and the teacher allow counts as well)",
        "## Limits",
        "\n".join(f"- {note}" for note in [*notes, *_limits(run, bill)]),
    ]
    return "\n\n".join(sections) + "\n"


def _network(
    run: Mapping[str, Any], origin: Origin, metadata: Mapping[str, Any], neurons: str, bill: Energy | None
) -> dict[str, str]:
    accuracy = _percent(run.get("teacher_accuracy"))
    taught = [str(run.get("teacher") or "a network of its user's own"), accuracy] if accuracy else []
    rows = {
        "network": origin.model,
        "parameters": _number(run.get("parameters")),
        "neurons": neurons,
        "timesteps": str(metadata["timesteps"]),
        "data": str(run.get("dataset") or UNKNOWN),
        "method": str(run.get("method") or UNKNOWN),
        "teacher": ", ".join(taught) or ("none" if run else UNKNOWN),
        "accuracy": _accuracy(run),
        "firing rate, mean of the layers": _rate(run.get("firing_rate")),
    }
    if bill is not None:
        low, high = bill.movement
        rows["energy an image"] = (
            f"{bill.computation / 1e6:.3g} µJ for computation ({bill.synops:.3g} synaptic operations), "
            f"{low / 1e6:.3g} to {high / 1e6:.3g} µJ for moving data; measured on {bill.images} images, "
            f"{bill.prices.source}"
        )
    return rows


def _file(
    name: str, kind: str, size: int, sha256: str, metadata: Mapping[str, Any], shape: Sequence[int]
) -> dict[str, str]:
    classes = str(metadata.get("class_names", UNKNOWN))
    inputs = f"images {list(shape)}" if metadata["encoding"] == "direct" else f"sequences of {list(shape)}"
    rows = {
        "name": f"`{name}`, {kind}, {size:,} bytes",
        "sha256": f"`{sha256}`",
        "sha256 of the weights": f"`{metadata['weights_sha256']}` (safetensors)",
        "takes": f"{inputs}, {metadata['encoding']} coding",
        "normalisation": _normalisation(metadata),
        "gives": f"logits; {metadata['readout']}",
        "classes": classes if len(classes) < 400 else f"{classes[:400]} ... (all are in the file)",
    }
    if "dt" in metadata:
        rows["a timestep"] = f"{metadata['dt']:g} s; {metadata['fires_on']}; reset {metadata['reset']}"
    return rows


def _making(run: Mapping[str, Any], origin: Origin, metadata: Mapping[str, Any]) -> dict[str, str]:
    rows = {
        "trained by": f"`{origin.command}`" if origin.command else UNKNOWN,
        "run folder": f"`{origin.run}`" if origin.run else UNKNOWN,
        "exported by": str(metadata["producer"]),
    }
    for key in ("epochs", "seed", "device", "precision", "torch", "commit"):
        if run.get(key) is not None:
            rows[key] = str(run[key])
    return rows


def _limits(run: Mapping[str, Any], bill: Energy | None) -> list[str]:
    limits = []
    if run:
        limits.append(
            f"The accuracy is that of the last epoch on the {_number(run.get('test_images'))} test images of "
            f"{run.get('dataset')}; other images, other cameras and other classes were not looked at."
        )
    if bill is not None:
        limits.append("The energy is computed from operation counts and prices, not measured on a chip.")
    return [
        *limits,
        "Nothing is known about fairness, safety or misuse; the network answers every picture with a class.",
    ]


def _accuracy(run: Mapping[str, Any]) -> str:
    return _percent(run.get("student_accuracy")) or UNKNOWN


def _normalisation(metadata: Mapping[str, Any]) -> str:
    if "mean" not in metadata:
        return UNKNOWN
    mean, std = ([float(f"{value:.6g}") for value in metadata[key]] for key in ("mean", "std"))
    return f"{metadata['normalisation']}: mean {mean}, std {std}"


def _percent(value: Any) -> str | None:
    return None if value is None else f"{value:.2f} %"


def _rate(value: Any) -> str:
    return UNKNOWN if value is None else f"{100.0 * value:.2f} % of neurons a step (mean over layers)"


def _number(value: Any) -> str:
    return UNKNOWN if value is None else f"{value:,}"


def _table(rows: Mapping[str, str]) -> str:
    cells = (f"| {key} | {value.replace('|', '/')} |" for key, value in rows.items())
    return "\n".join(["| | |", "|---|---|", *cells])
