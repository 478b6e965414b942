"""Reads run folders: config.yaml, summary.json and, where they exist, metrics.csv and evaluation.json.

Nothing here runs code from a folder: YAML is loaded safely, the rest is JSON and CSV. A run that was stopped has no
summary.json yet; it is read as far as it got and says what is missing.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spikedistill.documents import read_json, read_yaml
from spikedistill.errors import UserError, first_line, printable, shortened
from spikedistill.report.evaluation import Evaluation, parse_evaluation, parse_per_timestep, within_reason

PLAIN_ANN, PLAIN_SNN = "ann", "snn"
"""The methods that distil nothing: the ANN alone and the spiking network without a teacher."""
OWN = "own"
"""What data are called that are ``Dataset`` objects of a program, which no folder can bring back."""
CONFIG, SUMMARY, METRICS, EVALUATION = "config.yaml", "summary.json", "metrics.csv", "evaluation.json"
ENERGY, ROBUSTNESS, LATENCY = "energy.json", "robustness.json", "latency.json"
"""What the commands ``energy`` and ``eval`` add to a run."""
_NOT_RUNS = ("teacher", "checkpoints")
"""Sub-folders a search does not enter: a teacher belongs to its student's run and is no row of its own."""


@dataclass(frozen=True)
class Published:
    """A published accuracy to stand beside ours: percent, where it is printed, its timesteps, and a remark.

    ``baseline`` and ``teacher`` are what the same source gives for the plain SNN and for the teacher, in percent.
    """

    figure: float
    source: str = ""
    timesteps: int | None = None
    baseline: float | None = None
    teacher: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Run:
    """One run folder. Accuracies are in percent, ``firing_rate`` is spikes per neuron and timestep (0 to 1).

    ``metrics`` holds the columns of metrics.csv in order of epochs, ``None`` where a cell is empty or not finite.
    ``accuracy_per_timestep`` is that of a spiking network read out after 1, 2, ... of its T steps.
    ``test_set`` tells data of somebody's own from others of the same name; empty where the name says it.
    ``by_program`` says that a program handed over network, teacher or images, which no command brings back.
    ``missing`` names the files that are not there; ``measured`` holds the contents of those that may be there beside.
    """

    path: Path
    name: str
    method: str
    dataset: str
    model: str
    timesteps: int | None = None
    seed: int | None = None
    accuracy: float | None = None
    accuracy_per_timestep: dict[int, float] = field(default_factory=dict)
    teacher_accuracy: float | None = None
    firing_rate: float | None = None
    parameters: int | None = None
    epochs: int | None = None
    wall_seconds: float | None = None
    device: str = "unknown"
    torch: str = "unknown"
    commit: str = "unknown"
    published: Published | None = None
    test_set: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, list[float | None]] = field(default_factory=dict)
    evaluation: Evaluation | None = None
    missing: tuple[str, ...] = ()
    by_program: bool = False
    measured: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether the run came to its end and its last epoch was measured."""
        return self.accuracy is not None

    @property
    def recorded(self) -> bool:
        """Whether this is a record among committed results, which does not say where things lay."""
        return "out" in self.config and self.config["out"] is None

    @property
    def epochs_done(self) -> int:
        """Epochs that left a row in metrics.csv."""
        return len(self.metrics.get("epoch", []))


def from_python(config: Mapping[str, Any], summary: Mapping[str, Any]) -> bool:
    """Whether a run was begun with what no config can name: a network, a teacher or images that a program held.

    Args:
        config: of the run folder.
        summary: likewise; empty for a run that has not ended.
    """
    own = (config.get("data") or {}).get("name") == OWN
    return bool(summary.get("by_program")) or config.get("student") is None or own


def find_runs(paths: str | Path | Iterable[str | Path], say: Callable[[str], None] | None = None) -> list[Run]:
    """Reads every run below the given paths.

    Args:
        paths: run folders, or folders that hold runs at any depth. Sub-folders called ``teacher`` are passed over
            unless one is named here itself; of several paths, as a shell makes of ``runs/*``, those without a run are.
        say: takes a line about paths that were passed over.

    Raises:
        UserError: a path does not exist, none holds a run, or one holds a broken one.
    """
    folders: dict[Path, Path] = {}
    without: list[Path] = []
    for path in [Path(paths)] if isinstance(paths, (str, Path)) else map(Path, paths):
        if not path.exists():
            raise UserError(f"no such run folder: {path}")
        found = [path] if _is_run(path) else list(_below(path))
        if not found:
            without.append(path)
        folders.update({folder.resolve(): folder for folder in found})
    if without and not folders:
        told = shortened(list(map(str, without)), 3)
        raise UserError(f"no run in {told}: a run folder holds {CONFIG} and {SUMMARY}, as 'train' and 'demo' write")
    if without and say:
        say(f"passed over, as no run is in there: {', '.join(map(str, without))}")
    return [read_run(folder) for folder in folders.values()]


def read_run(path: str | Path) -> Run:
    """Reads one run folder.

    Raises:
        UserError: config.yaml is not there, or a file is broken; the message names the file and the fault.
    """
    folder = Path(path)
    config = _read_config(folder / CONFIG)
    missing = tuple(name for name in (SUMMARY, METRICS, EVALUATION) if not (folder / name).is_file())
    summary = {} if SUMMARY in missing else _read_json(folder / SUMMARY)
    metrics = {} if METRICS in missing else _read_metrics(folder / METRICS)
    evaluation = (
        None if EVALUATION in missing else parse_evaluation(_read_json(folder / EVALUATION), str(folder / EVALUATION))
    )
    where = _Fields(config | summary, folder / (CONFIG if SUMMARY in missing else SUMMARY))
    method = _name(where.values.get("method"))
    per_timestep = parse_per_timestep(summary, str(where.path))
    if not per_timestep and evaluation:  # a run from before its summary told them
        per_timestep = evaluation.accuracy_per_timestep
    return Run(
        path=folder,
        name=str(config.get("name") or folder.resolve().name),
        method=method,
        dataset=_name(summary.get("dataset") or config.get("data")),
        model=_name(summary.get("model") or config.get("student")),
        timesteps=None if method == PLAIN_ANN else where.integer("timesteps"),
        seed=where.integer("seed"),
        accuracy=where.number("student_accuracy"),
        accuracy_per_timestep={} if method == PLAIN_ANN else per_timestep,
        teacher_accuracy=where.number("teacher_accuracy"),
        firing_rate=where.number("firing_rate"),
        parameters=where.integer("parameters"),
        epochs=where.integer("epochs"),
        wall_seconds=where.number("wall_seconds"),
        device=str(summary.get("device") or "unknown"),
        torch=str(summary.get("torch") or "unknown"),
        commit=str(summary.get("commit") or "unknown")[:10],
        published=_published(summary.get("published") or config.get("published"), where.path),
        test_set=str(summary.get("test_set") or ""),
        config=config,
        metrics=metrics,
        evaluation=evaluation,
        missing=missing,
        by_program=from_python(config, summary),
        measured={
            name: _read_json(folder / name) for name in (ENERGY, ROBUSTNESS, LATENCY) if (folder / name).is_file()
        },
    )


def _is_run(path: Path) -> bool:
    return (path / CONFIG).is_file() or (path / SUMMARY).is_file()


def _below(root: Path) -> Iterable[Path]:
    for folder, subfolders, _ in os.walk(root):
        if _is_run(Path(folder)):
            subfolders.clear()
            yield Path(folder)
        subfolders[:] = sorted(name for name in subfolders if name not in _NOT_RUNS and not name.startswith("."))


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"not a run folder: {path} is missing")
    config = _plain(read_yaml(path, str(path)))
    if not isinstance(config, dict):
        raise UserError(f"{path} must hold a mapping of settings, not {type(config).__name__}")
    return config


def _read_json(path: Path) -> dict[str, Any]:
    content = _plain(read_json(path, str(path)))
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold an object, not {type(content).__name__}")
    return content


def _plain(content: Any) -> Any:
    """The same with texts that a terminal prints as they are."""
    if isinstance(content, str):
        return "\n".join(map(printable, content.split("\n")))
    if isinstance(content, list):
        return content if content and isinstance(content[0], int | float) else [_plain(item) for item in content]
    if isinstance(content, dict):
        return {printable(key): _plain(item) for key, item in content.items()}
    return content


def _read_metrics(path: Path) -> dict[str, list[float | None]]:
    """Columns by name. An epoch written twice (a resumed run) counts once, as it was written last."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, restval="")
            columns = list(reader.fieldnames or [])
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as fault:
        raise UserError(f"{path} cannot be read: {first_line(fault)}") from fault
    if "epoch" not in columns:
        raise UserError(f"{path} has no column 'epoch' (columns: {', '.join(columns)[:200] or 'none'})")
    by_epoch: dict[float, list[float | None]] = {}
    for line, row in rows:
        if row.pop(None, None):  # type: ignore[call-overload]
            raise UserError(f"{path}, line {line}: more cells than the {len(columns)} columns of its first line")
        cells = [_cell(row[column], column, line, path) for column in columns]
        epoch = cells[columns.index("epoch")]
        if epoch is not None:
            by_epoch[epoch] = cells
    ordered = [by_epoch[epoch] for epoch in sorted(by_epoch)]
    return {column: [cells[index] for cells in ordered] for index, column in enumerate(columns)}


def _cell(text: str, column: str, line: int, path: Path) -> float | None:
    if not text.strip():
        return None
    try:
        value = float(text)
    except ValueError as fault:
        raise UserError(f"{path}, line {line}: '{text}' in column '{column}' is not a number") from fault
    return value if within_reason(value) else None


@dataclass(frozen=True)
class _Fields:
    """Typed look-up in a summary, refusing what is not a number with the file's path."""

    values: dict[str, Any]
    path: Path

    def number(self, key: str) -> float | None:
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise UserError(f"{self.path}: '{key}' must be a number, not {value!r}")
        return float(value) if within_reason(value) else None

    def integer(self, key: str) -> int | None:
        value = self.number(key)
        return None if value is None else int(value)


def _published(value: Any, path: Path) -> Published | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise UserError(f"{path}: 'published' must be a mapping with 'figure' and 'source', not {value!r}")
    fields = _Fields(value, path)
    figure = fields.number("figure")
    if figure is None:
        return None
    source, note = str(value.get("source") or ""), str(value.get("note") or "")
    timesteps, baseline, teacher = fields.integer("timesteps"), fields.number("baseline"), fields.number("teacher")
    return Published(figure, source, timesteps, baseline, teacher, note)


def _name(value: Any) -> str:
    """The name in a recipe entry that is either a name or a mapping with one."""
    if isinstance(value, dict):
        value = value.get("name") or value.get("model") or value.get("path")
    return "unknown" if value is None else str(value)
