"""Fabricated run folders: the files a training leaves, with figures that look like real ones."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Fabricate = Callable[..., Path]
LAYERS = ("relu1", "relu2", "relu3")


def metrics_rows(rng: random.Random, epochs: int, final: float, terms: dict[str, float]) -> list[dict[str, Any]]:
    rows = []
    for epoch in range(1, epochs + 1):
        gap = 60 * 0.55**epoch
        total = 0.1 + 2 * 0.6**epoch
        row: dict[str, Any] = {"epoch": epoch, "lr": 0.01, "seconds": 1.5, "train_loss": round(total, 4)}
        row["train_accuracy"] = round(final - gap - 0.6 + rng.gauss(0, 0.2), 3)
        row["validation_accuracy"] = round(final - gap * 0.9 + rng.gauss(0, 0.25), 3)
        rows.append(row | {f"loss/{name}": round(total * share, 4) for name, share in terms.items()})
    return rows


def evaluation(
    rng: random.Random, accuracy: float, timesteps: int, layers: tuple[str, ...], classes: list[str]
) -> dict:
    size = len(classes)
    confusion = [[0] * size for _ in range(size)]
    for true in range(size):
        for _ in range(36):
            missed = rng.random() * 100 > accuracy
            confusion[true][rng.randrange(size) if missed else true] += 1
    steps = range(1, timesteps + 1)
    image = [[[min(255, int(16 * rng.random() * (8 - abs(4 - x))))] for x in range(8)] for _ in range(8)]
    rates = {layer: round(0.22 / (1 + 0.35 * depth) + rng.gauss(0, 0.006), 4) for depth, layer in enumerate(layers)}
    raster = {name: [[int(rng.random() < rates[name]) for _ in steps] for _ in range(32)] for name in layers}
    return {
        "timesteps": timesteps,
        "accuracy": accuracy,
        "accuracy_per_timestep": {
            str(t): round(accuracy - 9 * 0.3 ** (t - 1) + 9 * 0.3 ** (timesteps - 1), 3) for t in steps
        },
        "firing_rate": rates,
        "confusion": confusion,
        "classes": classes,
        "example": {"index": 0, "image": image, "label": 3, "prediction": 3, "raster": raster},
    }


def fabricate(
    root: Path,
    method: str = "snn",
    seed: int = 0,
    *,
    accuracy: float = 96.5,
    teacher: float | None = 98.2,
    timesteps: int | None = 4,
    epochs: int = 10,
    dataset: str = "digits",
    model: str = "2conv",
    settings: dict[str, Any] | None = None,
    summary: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    layers: tuple[str, ...] = LAYERS,
    classes: list[str] | None = None,
    terms: dict[str, float] | None = None,
    folder: str | None = None,
) -> Path:
    """Writes one complete run folder below ``root`` and returns it."""
    name = f"{dataset}-{model}-{method}"
    path = root / (folder or f"{name}-T{timesteps}-s{seed}")
    path.mkdir(parents=True)
    rng = random.Random(f"{path.name}")
    recipe = {
        "name": name,
        "seed": seed,
        "epochs": epochs,
        "timesteps": timesteps,
        "data": {"name": dataset, "batch_size": 64},
        "student": {"model": model, "width": 32},
        "teacher": {"model": model, "path": f"runs/teacher-s{seed}"} if teacher else None,
        "method": {"name": method} | (settings or {}),
        "optimiser": {"name": "adamw", "lr": 0.002},
        "out": str(path),
    } | (config or {})
    (path / "config.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    rows = metrics_rows(rng, epochs, accuracy, terms or {"task": 0.6, "response": 0.4})
    with (path / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    told = {
        "method": method,
        "model": model,
        "dataset": dataset,
        "student_accuracy": accuracy,
        "teacher_accuracy": teacher,
        "timesteps": timesteps,
        "seed": seed,
        "epochs": epochs,
        "device": "cpu",
        "torch": "2.13.0",
        "commit": "0123456789abcdef",
        "wall_seconds": 12.34,
        "firing_rate": None if timesteps is None else 0.151,
        "parameters": 7387338,
    } | (summary or {})
    (path / "summary.json").write_text(json.dumps(told), encoding="utf-8")
    if timesteps is not None:
        measured = evaluation(rng, accuracy, timesteps, layers, classes or [str(digit) for digit in range(10)])
        (path / "evaluation.json").write_text(json.dumps(measured), encoding="utf-8")
    return path


@pytest.fixture
def make_run(tmp_path: Path) -> Fabricate:
    """``make_run(method, seed, ...)`` writes a run folder below ``tmp_path / "runs"``."""

    def make(*args: Any, **settings: Any) -> Path:
        return fabricate(tmp_path / "runs", *args, **settings)

    return make


def bill(computation: float, timesteps: int | None = 4) -> dict[str, Any]:
    """A network's part of energy.json: two layers, the first on the image, the second on spikes."""
    first = {"name": "conv1", "macs": 10, "computation": computation / 4, "input": "image" if timesteps else None}
    last = {"name": "fc", "macs": 10, "computation": 3 * computation / 4, "input": "spikes" if timesteps else None}
    return {
        "timesteps": timesteps,
        "images": 256,
        "prices": {"source": "Horowitz 2014"},
        "total": {
            "macs": 20,
            "synops": 30_500,
            "firing_rate": 0.18 if timesteps else None,
            "computation": computation,
            "movement": [114_000.0, 1_140_000.0],
        },
        "layers": [first, last, {"name": "relu", "macs": 0, "computation": 0.0, "input": None}],
    }


def measure(folder: Path) -> None:
    """What the commands energy and eval add to a run folder."""
    energy = {"student": bill(300_000.0), "twin": bill(960_000.0, None), "teacher": bill(3.59e6, None)}
    curve = {"summary": "noise; strength: sigma", "accuracy": {"0": 97.0, "0.1": 90.0, "0.3": 60.0}}
    exits = [
        {"confidence": 0.0, "timesteps": 1.0, "accuracy": 90.1},
        {"confidence": 1.0, "timesteps": 4.0, "accuracy": 90.4},
    ]
    latency = {"timesteps": 4, "accuracy": {str(t): 90.0 + t / 10 for t in range(1, 9)}, "exits": exits}
    robustness = {"images": 10, "seed": 0, "curves": {"gaussian": curve}}
    for name, content in (("energy", energy), ("latency", latency), ("robustness", robustness)):
        (folder / f"{name}.json").write_text(json.dumps(content))


def record(**changes: Any) -> dict[str, Any]:
    """What the command experiment leaves beside its runs."""
    table = {
        "title": "Accuracy",
        "heads": ["network", "SAKD", "published"],
        "rows": [["ResNet-18", "90.00 ± 1.00", "94.99"]],
        "notes": ["a note"],
    }
    return {
        "title": "Depth",
        "source": "SAKD table 4",
        "about": "A <small> one.",
        "command": "spikedistill experiment depth",
        "runs": {"finished": 1, "planned": 2},
        "seeds": [0],
        "device": ["cpu"],
        "torch": ["2.13"],
        "commit": ["abc"],
        "tables": [table],
        "pictures": [{"files": ["../../secret.png", "accuracy.svg"], "caption": "Left."}],
        "notes": [],
    } | changes


def fabricate_demo(root: Path) -> Path:
    """What the demo leaves: plain SNN, ANN and a few methods under three seeds each, one of them stopped.

    The plain SNN of the first seed was measured beside, and the runs are an experiment's; the demo leaves both to
    other commands.
    """
    means = {"snn": 96.4, "kdsnn-response": 97.3, "kdsnn-feature": 97.6, "sakd": 97.9}
    for method, mean in means.items():
        for seed in range(3):
            shift = (-0.25, 0.02, 0.21)[seed] * (1 + 0.2 * len(method) / 10)
            terms = {"task": 1.0} if method == "snn" else {"task": 0.6, "response": 0.3, "feature": 0.1}
            told = {} if method == "snn" else {"published": {"figure": mean - 0.5, "source": "a paper, table 1"}}
            folder = fabricate(root, method, seed, accuracy=round(mean + shift, 2), terms=terms, summary=told)
            if (method, seed) == ("snn", 0):
                measure(folder)
    for seed in range(3):
        fabricate(root, "ann", seed, accuracy=98.2 + 0.1 * seed, teacher=None, timesteps=None, terms={"task": 1.0})
    (root / "experiment.json").write_text(json.dumps(record()))
    stopped = fabricate(root, "idsnn", 0, epochs=4, accuracy=90.0)
    (stopped / "summary.json").unlink()
    (stopped / "evaluation.json").unlink()
    return root


@pytest.fixture(scope="session")
def demo_runs() -> Callable[[Path], Path]:
    """``demo_runs(folder)`` fills a folder with the runs of a demo."""
    return fabricate_demo


@pytest.fixture(scope="session")
def make_bill() -> Callable[..., dict[str, Any]]:
    """``make_bill(computation, timesteps)``: a network's part of energy.json."""
    return bill


@pytest.fixture(scope="session")
def make_record() -> Callable[..., dict[str, Any]]:
    """``make_record(**changes)``: the contents of experiment.json."""
    return record
