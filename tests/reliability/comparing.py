"""What makes two runs the same."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass
from pathlib import Path

import yaml

VOLATILE = {"wall_seconds", "teacher_wall_seconds", "compile_wall_seconds", "resumed", "commit"}
EXACT = ("student.safetensors", "evaluation.json", "transfer.json")


def result(folder: Path) -> dict[str, object]:
    """All that a run has found: weights, evaluation, metrics without seconds, summary without times; teacher's too."""
    found: dict[str, object] = {}
    for part, place in (("student", folder), ("teacher", folder / "teacher")):
        if not place.is_dir():
            continue
        for name in EXACT:
            if (place / name).exists():
                found[f"{part}: {name}"] = (place / name).read_bytes()
        config = yaml.safe_load((place / "config.yaml").read_text())
        found[f"{part}: config"] = {key: config[key] for key in config if key not in ("out", "checkpoint_minutes")}
        rows = list(csv.DictReader((place / "metrics.csv").read_text().splitlines()))
        found[f"{part}: metrics"] = [{key: row[key] for key in row if key != "seconds"} for row in rows]
        summary = json.loads((place / "summary.json").read_text())
        found[f"{part}: summary"] = {key: summary[key] for key in summary if key not in VOLATILE}
    return found


def files(folder: Path) -> set[str]:
    """What lies in a folder, but for the files whose names say when they were written."""
    names = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    return {name for name in names if "tfevents" not in name and not re.search(r"/step-\d+\.pt$", name)}


def check_same(folder: Path, reference: Path) -> None:
    """Both folders hold the same run, bit for bit, and nothing half-written."""
    ours, theirs = result(folder), result(reference)
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert ours[key] == value, key
    assert files(folder) == files(reference)


@dataclass(frozen=True)
class Undisturbed:
    """A run that nobody disturbed: its folder, how long it took, how often it changed a file."""

    folder: Path
    seconds: float
    operations: int
