"""What is fuzzed: functions from bytes to nothing. A ``UserError`` is an answer; any other exception is a finding."""

from __future__ import annotations

import hashlib
import io
import shutil
import tempfile
import warnings
import zlib
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

from spikedistill.errors import UserError

SEPARATOR = b"\n=====\n"
"""Between the parts of an input: a recipe and its overrides, or a file's name and its contents."""

FILES = (
    *("config.yaml", "summary.json", "metrics.csv", "evaluation.json", "student.safetensors"),
    "checkpoints/step-0000000001.pt",
)
MEASURED = ("energy.json", "robustness.json", "latency.json", "../experiment.json")
"""What commands add to a run, or beside it."""
WEIGHTS_FROM_ELSEWHERE = "teacher.pt"
HDF5 = b"\x89HDF"


class Workplace:
    """A run folder in memory, whole but for the files that an input puts into it.

    Args:
        run: a finished run, whose files make up the rest.
    """

    def __init__(self, run: Path) -> None:
        memory = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None)) / "run"
        self.whole = {name: (run / name).read_bytes() for name in FILES if (run / name).is_file()}
        self.changed = set(self.whole)
        (self.folder / "checkpoints").mkdir(parents=True)
        self.fill({})

    def fill(self, changed: dict[str, bytes]) -> Path:
        """The folder, with these files in place of its own; an empty one is left out."""
        for name in {*changed, *self.changed}:
            content = changed.get(name, self.whole.get(name, b""))
            path = self.folder / name
            if content:
                path.write_bytes(content)
            else:
                path.unlink(missing_ok=True)
        self.changed = set(changed)
        return self.folder

    def close(self) -> None:
        """Takes the folder away."""
        shutil.rmtree(self.folder.parent, ignore_errors=True)


def recipe(data: bytes) -> None:
    """A recipe's text and overrides, one a line: parsed, written out and parsed again, shrunk, given a teacher.

    A text that has runs is taken for a list of runs and for an experiment, too.
    """
    from spikedistill.assembly import teacher_recipe
    from spikedistill.documents import parse_yaml
    from spikedistill.recipe import parse
    from spikedistill.recipebook import _override, smoke_size

    text, _, overrides = data.partition(SEPARATOR)
    with suppress(UserError):
        content = parse_yaml(text.decode("utf-8", "replace"), "recipe")
        if isinstance(content, dict):
            for override in overrides.decode("utf-8", "replace").split("\n")[:8]:
                if override:
                    _override(content, override)
            if "runs" in content:
                _runs(content)
        parsed = parse(content)
        again = parse(parse_yaml(parsed.to_yaml(), "resolved recipe"))
        assert again == parsed, "a resolved recipe is not what it was resolved from"
        parsed.folder()
        if parsed.teacher is not None:
            teacher_recipe(parsed, Path("teacher"))
        if parsed.student is not None:
            smoke_size(parsed)


def _runs(content: dict[str, Any]) -> None:
    from spikedistill import runlist, sweep

    with suppress(UserError):
        runlist.plan(runlist.parse_run_list(content, "list"), Path("out"), [])
    with suppress(UserError):
        sweep.plan(sweep.parse_sweep(content, "experiment"), "small", Path("out"), [])


def run_folder(workplace: Workplace) -> Callable[[bytes], None]:
    """A run folder of which one or more files were tampered with: read, shown, loaded, gone on with."""
    from spikedistill.build import load_run, read_config
    from spikedistill.engine.checkpoint import latest_checkpoint
    from spikedistill.report import find_runs, print_table, to_markdown, write_run_report
    from spikedistill.report.contents import arrange
    from spikedistill.report.energy import energies
    from spikedistill.report.experiment import experiments
    from spikedistill.report.latency import latencies
    from spikedistill.report.robustness import robustness
    from spikedistill.runfolder import read_state, read_summary

    def test(data: bytes) -> None:
        files = _files(data)
        folder = workplace.fill(files)
        if "config.yaml" in files:
            with suppress(UserError):
                read_config(folder)
        if "config.yaml" in files or "student.safetensors" in files:
            with suppress(UserError):
                load_run(folder)
        if FILES[-1] in files:
            with suppress(UserError):
                latest_checkpoint(folder / "checkpoints")
        if "summary.json" in files:
            with suppress(UserError):
                read_summary(folder / "summary.json")
        if not files.keys().isdisjoint(MEASURED):
            with suppress(UserError):
                shown = arrange(find_runs([folder]))
                for section in (energies, robustness, latencies, experiments):
                    section(shown)
        if WEIGHTS_FROM_ELSEWHERE in files:
            with suppress(UserError):
                read_state(folder / WEIGHTS_FROM_ELSEWHERE)
        with suppress(UserError), redirect_stdout(io.StringIO()):
            runs = find_runs([folder])
            to_markdown(runs)
            # A page takes twenty times as long as all the rest.
            if zlib.crc32(data) % 20 == 0:
                print_table(runs)
                write_run_report(folder)

    return test


def _files(data: bytes) -> dict[str, bytes]:
    """The files of an input: ``name SEPARATOR content SEPARATOR name ...``; a name may be a number."""
    parts = data.split(SEPARATOR)
    names = (*FILES, WEIGHTS_FROM_ELSEWHERE, *MEASURED)
    found = {}
    for name, content in zip(parts[::2], parts[1::2], strict=False):
        chosen = names[name[0] % len(names)] if name and name.decode("utf-8", "replace") not in names else name.decode()
        if chosen.endswith("0001.pt"):
            # Past the checksum, or nothing behind it would ever be reached.
            content = hashlib.sha256(content).digest() + content
        found[chosen or names[0]] = content
    return found


def nir(data: bytes) -> None:
    """A NIR file, or instructions for changing a good one (see ``graphs``): read and, if it can be, run on zeros."""
    import torch
    from graphs import written

    from spikedistill.export.interpreter import read_nir

    content = data if data.startswith(HDF5) else written(data)
    with suppress(UserError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = read_nir(io.BytesIO(content))
        network.timesteps = min(network.timesteps, 3)
        network(torch.zeros(1, *network.shape))
