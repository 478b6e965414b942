"""Inputs to begin from, made here: every shipped recipe, a finished run's files, a NIR file and broken ones."""

from __future__ import annotations

import io
from pathlib import Path

from targets import FILES, SEPARATOR, WEIGHTS_FROM_ELSEWHERE

OVERRIDES = (
    "epochs=3\nteacher.epochs=2\nmethod.alpha=0.3",
    "data.path=/tmp/x\nout=../..\nseed=-1",
    "student.width=1000000000000\ntimesteps=.inf",
    "method={name: sakd, alpha: 1}\nteacher=null",
    "neuron.surrogate=arctan\nneuron.decay=1\nprecision=32",
    "data.augment=[crop:4, flip]\nclip=1e400",
)
ODD = (
    "a: &a [*a, *a]\nmethod: *a",
    "&a {name: snn, method: *a}",
    "x: [&b [1,1,1,1,1,1,1,1], &c [*b,*b,*b,*b,*b,*b,*b,*b], [*c,*c,*c,*c,*c,*c,*c,*c]]",
    "!!python/object/apply:os.system [id]",
    "method: {name: [1]}\nepochs: 2001-01-01",
    "method: {name: !!binary aGk=}\n? {a: b}\n: 1",
    "method: {name: snn}\nepochs: 0x1f\nseed: 1_000\nlr: 1e3\nname: !!set {a, b}",
    "published: {figure: 1, source: x}\nmethod: {name: ann}\nstudent: {model: 2conv, options: {image_size: 8}}",
)


def recipe_seeds() -> list[bytes]:
    """Every shipped recipe, with and without overrides."""
    from importlib import resources

    folder = resources.files("spikedistill") / "recipes"
    texts = [file.read_bytes() for file in sorted(folder.iterdir(), key=str) if file.name.endswith(".yaml")]
    with_overrides = [texts[index * 7 % len(texts)] + SEPARATOR + text.encode() for index, text in enumerate(OVERRIDES)]
    return texts + with_overrides + [text.encode() for text in ODD]


def small_run(folder: Path) -> Path:
    """A finished run of the smallest network there is."""
    from spikedistill.recipebook import read_recipe
    from spikedistill.run import train

    small = ["data.subset=16", "data.test_subset=8", "student.width=1", "batch_size=16", "epochs=1", "timesteps=1"]
    train(read_recipe("digits-2conv-snn", [*small, f"out={folder}"]), verbose=False)
    return folder


def run_seeds(run: Path) -> list[bytes]:
    """Each file of a run alone, weights in torch's own format, and files that mean harm."""
    import torch

    from spikedistill.runfolder import read_state

    names = [name for name in FILES if (run / name).is_file()]
    contents = [(name, (run / name).read_bytes()) for name in names]
    checkpoint = sorted((run / "checkpoints").iterdir())[-1].read_bytes()[32:]
    pickled = io.BytesIO()
    torch.save(read_state(run / "student.safetensors"), pickled)
    contents += [(FILES[-1], checkpoint), (WEIGHTS_FROM_ELSEWHERE, pickled.getvalue())]
    contents += [("config.yaml", text.encode()) for text in ODD]
    contents += [
        ("summary.json", b'{"seed": 1e400, "timesteps": ' + b"9" * 400 + b', "student_accuracy": 1e308}'),
        ("summary.json", b"[" * 100_000),
        ("summary.json", b'{"student_accuracy": NaN, "published": {"figure": -1e308}, "method": ["<script>"]}'),
        ("metrics.csv", b"epoch,train_loss,loss/a\n1,nan,1e308\n1,inf,-1e308\n2,,\n"),
        ("evaluation.json", b'{"confusion": [[1e308]], "classes": ["<img src=x onerror=alert(1)>"]}'),
        ("evaluation.json", b'{"example": {"image": [[[0]]], "raster": {"a": [[1e9, -1]]}, "label": 10}}'),
        ("evaluation.json", b'{"firing_rate": {"a": 1e308}, "accuracy_per_timestep": {"-3": 1}}'),
        ("student.safetensors", b"\xff" * 8 + b"{}"),
        (WEIGHTS_FROM_ELSEWHERE, b"cos\nsystem\n(S'id'\ntR."),
    ]
    return [SEPARATOR.join((name.encode(), content)) for name, content in contents]


def nir_seeds() -> list[bytes]:
    """A NIR file of a small spiking network, and instructions for ``graphs.written``."""
    import torch
    from graphs import written

    import spikedistill as sd
    from spikedistill.export.about import About
    from spikedistill.export.nir_file import nir_bytes

    network = sd.create_model("2conv", num_classes=2, in_channels=1, image_size=4, width=1, spiking=True, timesteps=2)
    files = [nir_bytes(network.eval(), torch.zeros(1, 1, 4, 4), About(timesteps=2)), written(b"")]
    return files + [bytes([first, second, 3, 5, 7, 1]) for first in range(12) for second in range(0, 250, 25)]
