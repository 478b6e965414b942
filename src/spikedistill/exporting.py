"""Export from Python and by the command ``export``: a network, and what its run folder says about it, to a file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from spikedistill.errors import UserError

if TYPE_CHECKING:
    from spikedistill.export import Exported, NirNetwork

IMAGES = 1000
"""Test images on which the command compares a file with its network."""


def export_nir(
    network: nn.Module,
    path: str | Path,
    images: Tensor,
    *,
    run: str | Path | None = None,
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    dt: float | None = None,
) -> Exported:
    """Writes a spiking network as a NIR file, and a model card beside it.

    BatchNorm is folded into the layers before it, residual additions are edges that meet, calibrated thresholds are in
    the neurons and in the weights behind them. ``docs/export.md`` says what NIR cannot say and what is done about it.

    Args:
        network: of ``create_model(..., spiking=True)`` or ``spikify``; it stays as it is.
        path: of the file; the card is ``<path>.md``.
        images: at least one, as the network takes them (or sequences ``[T, N, ...]``). The file is read back and
            compared with the network on all of them.
        run: the run folder in which the network was trained; what is not given here is taken from it.
        class_names: in the order of the logits.
        mean: the normalisation's mean per channel, in units of [0, 1].
        std: its standard deviation likewise.
        dt: seconds a timestep; None takes 1e-4.

    Returns:
        What was written, and how well it agrees with the network.

    Raises:
        UserError: no spiking network, something in it that NIR cannot express (with its path and the reason), a path
            that cannot be written to, or a package that is missing.
        TrainingFailed: the file, read back, does not compute what the network does.
    """
    return _export("nir", network, path, images, run, class_names, mean, std, dt)


def export_onnx(
    network: nn.Module,
    path: str | Path,
    images: Tensor,
    *,
    run: str | Path | None = None,
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Exported:
    """Writes a spiking network, its T steps unrolled, as an ONNX file, and a model card beside it.

    Arguments, result and errors as in ``export_nir``; ``onnxruntime`` takes the part of the reader.
    """
    return _export("onnx", network, path, images, run, class_names, mean, std, None)


def read_nir(path: str | Path, timesteps: int | None = None, dt: float | None = None) -> NirNetwork:
    """Reads a NIR file, of this package or another, as a network that runs: images ``[B, ...]`` to logits.

    Args:
        path: the file.
        timesteps: T of images; None takes what the file says, or 1.
        dt: seconds a timestep; None takes what the file says, or 1e-4.

    Raises:
        UserError: no such file, no NIR file, or a graph that cannot be run: cycles, nodes that are missing or unknown,
            shapes that do not fit.
    """
    from spikedistill.export import read_nir as read

    if timesteps is not None and not (isinstance(timesteps, int) and timesteps >= 1):
        raise UserError(f"timesteps must be a whole number of at least 1, not {timesteps!r}")
    _check_dt(dt)
    return read(path, timesteps, dt)


def export_run(
    folder: Path, kind: str, out: Path | None = None, *, data_path: str | None = None, images: int = IMAGES
) -> Exported:
    """Exports the network of a run folder; it is compared on the run's own test images.

    Args:
        folder: the run folder.
        kind: ``nir`` or ``onnx``.
        out: the file; None writes ``student.<kind>`` into the run folder.
        data_path: where the data lie now, if not where they lay.
        images: how many test images to compare on.

    Raises:
        UserError: no finished run of an SNN, an unknown format, no data, or what ``export_nir`` raises.
    """
    import torch

    from spikedistill.build import read_config
    from spikedistill.errors import unknown
    from spikedistill.evalrun import open_run
    from spikedistill.export import FORMATS
    from spikedistill.export.formats import check_writable

    if kind not in FORMATS:
        raise unknown("export format", kind, list(FORMATS))
    if images < 1:
        raise UserError(f"--images must be at least 1, not {images}")
    recipe = read_config(folder)
    if recipe.student is None:
        raise UserError(
            f"'{folder}' was trained on a network of your own, which only your code can build: export it from Python, "
            "sd.export_nir(sd.load(folder, network=...), file, images, run=folder)"
        )
    if not recipe.spiking_student():
        raise UserError(f"'{folder}' holds an ANN, and a file for chips needs a spiking network: distil one from it")
    for other in FORMATS:
        if out is not None and other != kind and out.suffix == f".{other}":
            raise UserError(
                f"'{out}' is named like a file of format {other}, and would be {kind}; add --format {other}"
            )
    path = check_writable(out if out is not None else folder / f"student.{kind}")
    FORMATS[kind].require()
    opened = open_run(folder, data_path, images)
    batches = [batch.cpu() for batch, _ in opened.test_images().epoch(0)]
    shown = torch.cat(batches, dim=1 if opened.data.info.timesteps else 0)
    return _export(kind, opened.network, path, shown, folder, None, None, None, None)


def _export(
    kind: str,
    network: nn.Module,
    path: str | Path,
    images: Tensor,
    run: str | Path | None,
    class_names: Sequence[str] | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    dt: float | None,
) -> Exported:
    from spikedistill.export import DT, About, export
    from spikedistill.models.network import checked_network, settings_of
    from spikedistill.models.twin import name_of
    from spikedistill.runfolder import state_bytes

    checked_network(network)
    if not isinstance(images, Tensor):
        raise UserError(f"images must be a tensor as the network takes them, not {images!r:.60}")
    known = _known(Path(run), network) if run is not None else {}
    timesteps = getattr(network, "timesteps", None)
    settings = settings_of(network) or {}
    _check_dt(dt)
    encoding = _encoding(network, images)
    _check_about(network, images, mean, std, class_names)
    about = About(
        timesteps=len(images) if encoding == "sequence" else timesteps or 1,
        encoding=encoding,
        class_names=tuple(class_names if class_names is not None else known.get("classes", ())),
        mean=_numbers(mean if mean is not None else known.get("mean")),
        std=_numbers(std if std is not None else known.get("std")),
        weights=hashlib.sha256(state_bytes(network)).hexdigest(),
        dt=DT if dt is None else dt,
    )
    return export(kind, network, path, images, about, _origin(known, settings.get("model") or name_of(network)))


def _check_dt(dt: float | None) -> None:
    if dt is not None and not (isinstance(dt, int | float) and dt > 0.0):
        raise UserError(f"dt must be positive, in seconds, not {dt!r}")


def _check_about(
    network: nn.Module,
    images: Tensor,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    class_names: Sequence[str] | None,
) -> None:
    """Refuses what would stand in the file and is not true of the network."""
    from spikedistill.evaluation.accuracy import device_of
    from spikedistill.methods.base import answer_to

    if (mean is None) != (std is None):
        raise UserError("images are normalised with mean= and std=; give both, or neither")
    channels = images.shape[-3] if images.dim() >= 4 else None
    for name, values in (("mean", mean), ("std", std)):
        if values is not None and channels is not None and len(values) != channels:
            raise UserError(f"{name} has {len(values)} values where the images have {channels} channels")
    if class_names is not None:
        image = images[:, :1] if images.dim() == 5 else images[:1]
        count = answer_to(network, image.to(device_of(network))).shape[-1]
        if len(class_names) != count:
            raise UserError(f"class_names has {len(class_names)} names where the network has {count} answers")


def _encoding(network: nn.Module, images: Tensor) -> str:
    from spikedistill.export.record import is_sequence
    from spikedistill.models.network import Network, encoding_of
    from spikedistill.models.twin import Twin

    if isinstance(network, Network | Twin) and is_sequence(network, images):
        return "sequence"
    encoding = encoding_of(network)
    return "direct" if encoding is None else type(encoding).__name__.removesuffix("Encoding").lower()


def _known(folder: Path, network: nn.Module) -> dict[str, Any]:
    """What a run folder tells about its network.

    Raises:
        UserError: the network has other weights than the run's.
    """
    import torch

    from spikedistill.build import read_config
    from spikedistill.evalrun import trained_classes
    from spikedistill.report.runs import from_python
    from spikedistill.runfolder import STUDENT, read_json, read_state

    recipe, summary = read_config(folder), read_json(folder / "summary.json")
    own, trained = network.state_dict(), read_state(folder / STUDENT)
    for key in dict.fromkeys([*own, *sorted(trained)]):
        alike = key in own and key in trained and own[key].shape == trained[key].shape
        if not (alike and torch.equal(own[key].cpu(), trained[key])):
            raise UserError(
                f"the network is not that of run='{folder}': '{key}' differs; give sd.load('{folder}'), or leave run= "
                "out, as what the run's files say is not true of this one"
            )
    timesteps = getattr(network, "timesteps", None)
    if timesteps != summary.get("timesteps"):  # the summary's figures are not of this T
        per_timestep = summary.get("accuracy_per_timestep") or {}
        summary = summary | {"student_accuracy": per_timestep.get(str(timesteps)), "firing_rate": None}
    mean, std = recipe.normalisation or (None, None)
    name, own = folder.resolve().name, from_python(recipe.plain(), summary)
    return {
        "summary": summary,
        "mean": mean,
        "std": std,
        "classes": trained_classes(folder),
        "command": "sd.distill(...)" if own else f"spikedistill train {name}/config.yaml",
        "run": name,
    }


def _origin(known: dict[str, Any], model: Any) -> Any:
    from spikedistill.export import Origin

    return Origin(str(model), known.get("summary", {}), known.get("command"), known.get("run"))


def _numbers(values: Sequence[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(float(value) for value in values)


def print_exported(exported: Exported) -> None:
    """Prints what was written, for people."""
    print(f"wrote {exported.path} ({exported.size:,} bytes) and {exported.card.name}")
    print(f"read back and compared with the network on {exported.agreement}")
    for note in exported.notes:
        print(f"  {note}")
