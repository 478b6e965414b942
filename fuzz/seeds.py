"""Inputs to begin from, made here: every shipped recipe, a finished run's files, a NIR file and broken ones."""

from __future__ import annotations

import io
import json
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
LISTS = (
    "{seeds: [0, 1], runs: [{recipe: digits-2conv-ann}, {recipe: digits-2conv-sakd, label: b, set: {epochs: 2}}]}",
    "{set: {data.path: x}, runs: [{recipe: digits-2conv-ann, label: a}, {recipe: digits-2conv-sakd, teacher: a}]}",
    "{title: x, source: y, study: grid, smoke: [a], seeds: [3], small: {set: {epochs: 1}, without: [b]}, runs: "
    "[{recipe: digits-2conv-ann, label: a, row: x, column: y}, {recipe: digits-2conv-snn, label: b}]}",
    "{title: x, source: y, study: grid, options: {reference: a}, smoke: [a], runs: [{recipe: digits-2conv-sakd, label: "
    "a, trains: teacher}, {recipe: digits-2conv-sakd, label: b, teacher: a, published: 9.5, small: {epochs: 1}}]}",
    "{title: x, source: y, study: grid, smoke: [a], runs: [{recipe: " + "x" * 300 + ", label: a}]}",
)
"""Lists of runs and experiments."""
CONFIG = (
    "{name: run, method: {name: snn}, timesteps: 1, "
    "student: {model: 2conv, width: 1, num_classes: 10, in_channels: 1, image_size: 8}}"
)


def recipe_seeds() -> list[bytes]:
    """Every shipped recipe, with and without overrides."""
    from importlib import resources

    folder = resources.files("spikedistill") / "recipes"
    files = [file.read_text() for file in sorted(folder.iterdir(), key=str) if file.name.endswith(".yaml")]
    texts = list(dict.fromkeys(_without_prose(text).encode() for text in files))
    with_overrides = [texts[index * 7 % len(texts)] + SEPARATOR + text.encode() for index, text in enumerate(OVERRIDES)]
    return texts + with_overrides + [text.encode() for text in (*ODD, *LISTS)]


def _without_prose(text: str) -> str:
    """A recipe's settings on one line: what a name, a description or a remark says is nothing to be found out."""
    import yaml

    content = yaml.safe_load(text)
    prose = ("name", "description", "published")
    return yaml.safe_dump({k: v for k, v in content.items() if k not in prose}, default_flow_style=True, width=10**6)


def small_run(folder: Path) -> Path:
    """A finished run of the smallest network there is."""
    from spikedistill.recipebook import read_recipe
    from spikedistill.run import train

    small = ["data.subset=16", "data.test_subset=8", "student.width=1", "batch_size=16", "epochs=1", "timesteps=1"]
    train(read_recipe("digits-2conv-snn", [*small, f"out={folder}"]), verbose=False)
    # Nearly every input reads it, and PyYAML is slow: what may be left out is.
    (folder / "config.yaml").write_text(CONFIG)
    return folder


def run_seeds(run: Path) -> list[bytes]:
    """Each file of a run alone, weights in torch's own format, and files that mean harm."""
    import torch

    from spikedistill.build import read_config
    from spikedistill.runfolder import read_state

    whole = read_config(run).to_yaml()
    names = [name for name in FILES if (run / name).is_file()]
    contents = [(name, (run / name).read_bytes()) for name in names]
    checkpoint = sorted((run / "checkpoints").iterdir())[-1].read_bytes()[32:]
    pickled = io.BytesIO()
    torch.save(read_state(run / "student.safetensors"), pickled)
    contents += [(FILES[-1], checkpoint), (WEIGHTS_FROM_ELSEWHERE, pickled.getvalue())]
    contents += [("config.yaml", text.encode()) for text in (*ODD, whole)]
    contents += [(name, json.dumps(content).encode()) for name, content in _measured()]
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


def _measured() -> list[tuple[str, object]]:
    """What the commands ``energy``, ``eval`` and ``experiment`` leave."""
    total = {"macs": 10.0, "synops": 5.0, "firing_rate": 0.1, "computation": 9.5, "movement": [1.0, 2.0]}
    layer = {"name": "a", "macs": 10.0, "computation": 9.5, "input": "spikes"}
    bill = {"timesteps": 1, "images": 8, "total": total, "layers": [layer], "prices": {"source": "x"}}
    curve = {"summary": "noise; strength: x", "accuracy": {"0": 90.0, "0.1": 80.0}}
    exits = [{"timesteps": 1.5, "accuracy": 80.0}, {"timesteps": 1.0, "accuracy": 70.0}]
    table = {"title": "t", "heads": ["a", "published"], "rows": [["b", "1"]], "notes": ["n"]}
    record = {"title": "t", "source": "s", "about": "", "command": "c", "seeds": [0], "notes": [], "tables": [table]}
    record |= {"runs": {"finished": 1, "planned": 2}, "pictures": [{"files": ["a.svg"], "caption": "c"}]}
    record |= {key: ["x"] for key in ("device", "torch", "commit")}
    return [
        ("energy.json", {"student": bill, "twin": bill | {"timesteps": None}, "teacher": None}),
        ("robustness.json", {"images": 8, "seed": 0, "timesteps": 1, "curves": {"gaussian": curve}}),
        ("latency.json", {"timesteps": 1, "accuracy": {"1": 80.0, "2": 85.0}, "exits": exits}),
        ("../experiment.json", record),
    ]


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
