"""The command ``bench``: runs the works, prints what they gave and writes it down."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from spikedistill.bench.page import figures, to_markdown
from spikedistill.bench.peers import installed
from spikedistill.bench.timing import interleaved, peak_bytes, saved_bytes
from spikedistill.bench.works import ON_GPU_ONLY, WORKS, Setup, Work
from spikedistill.engine.checkpoint import write_durably
from spikedistill.errors import UserError, unknown


@dataclass(frozen=True)
class Row:
    """One candidate of a work: median seconds, median ratio to the baseline with its range, bytes where counted."""

    candidate: str
    seconds: float
    ratio: float
    lowest: float
    highest: float
    saved_bytes: int | None
    peak_bytes: int | None


@dataclass(frozen=True)
class Aim:
    """A target and what was reached of it; ``of`` is ``time`` or ``memory``."""

    candidate: str
    to: str
    of: str
    at_most: float
    ratio: float
    reached: bool


@dataclass(frozen=True)
class Result:
    """A work that was measured."""

    work: str
    title: str
    baseline: str
    rounds: int
    rows: list[Row]
    aims: list[Aim]
    bound: str


def bench(
    names: Sequence[str] = (),
    *,
    device: str = "auto",
    rounds: int = 7,
    small: bool = False,
    out: Path | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measures.

    Args:
        names: which works, by name; empty for all that this device is meant for.
        device: ``auto``, ``cpu`` or ``cuda``.
        rounds: interleaved rounds of each work.
        small: shrink the works to seconds, to try the command; the figures mean nothing then.
        out: a Markdown page to write; its figures lie beside it as JSON.
        say: takes lines of progress.

    Returns:
        ``machine`` (what it ran on) and ``results``, a list of ``Result`` as dicts.

    Raises:
        UserError: an unknown work, or a device that is not there.
    """
    from spikedistill.engine.devices import keep_freed_memory, resolve_device

    for name in names:
        if name not in WORKS:
            raise unknown("work", name, list(WORKS))
    if out is not None and out.suffix == ".json":
        raise UserError(f"'{out}' is to be a Markdown page, with its figures as JSON beside it; call it {out.stem}.md")
    if rounds < 1:
        raise UserError(f"--rounds is {rounds}; it must be at least 1")
    place, peers = resolve_device(device), installed()
    if place.type == "cpu":
        keep_freed_memory()  # as in training, and for every candidate
    setup = Setup(place, tuple(peers), small)
    chosen = names or [name for name in WORKS if place.type == "cuda" or name not in ON_GPU_ONLY]
    machine = describe(place, peers)
    told = ", ".join(f"{name} {version}" for name, version in peers.items()) or "none installed (make bench has them)"
    say(f"{machine['device']}, torch {machine['torch']}, peers: {told}")
    results = []
    for name in chosen:
        say(f"{name}: {WORKS[name].title}")
        result = measure(name, setup, rounds)
        for row in result.rows:
            say(f"  {row.candidate:<30} {figures(asdict(row))}")
        for aim in result.aims:
            said = "reached" if aim.reached else "missed"
            say(f"  {said}: {aim.candidate} takes {aim.ratio:.2f} of the {aim.of} of {aim.to} (aim: {aim.at_most:.2f})")
        results.append(asdict(result))
    found = {"machine": machine, "small": small, "results": results}
    if out is not None:
        write_durably(out.with_suffix(".json"), (json.dumps(found, indent=2) + "\n").encode())
        write_durably(out, to_markdown(found).encode())
    return found


def measure(name: str, setup: Setup, rounds: int) -> Result:
    """Runs one work."""
    work = WORKS[name]
    steps = work.candidates(setup)
    baseline = work.baseline if work.baseline in steps else next(iter(steps))
    timings = interleaved(steps, baseline, rounds, setup.device)
    cuda = setup.device.type == "cuda"
    rows = [
        Row(
            candidate,
            timing.seconds,
            timing.ratio,
            timing.lowest,
            timing.highest,
            saved_bytes(steps[candidate]) if work.memory else None,
            peak_bytes(steps[candidate], setup.device) if work.memory and cuda else None,
        )
        for candidate, timing in timings.items()
    ]
    return Result(name, work.title, baseline, rounds, rows, _aims(work, rows, setup), work.bound)


def _aims(work: Work, rows: list[Row], setup: Setup) -> list[Aim]:
    by_name = {row.candidate: row for row in rows}
    aims: list[Aim] = []
    if setup.small:
        return aims
    for target in work.gpu_targets if setup.device.type == "cuda" else work.targets:
        to = target.to or work.baseline
        if to not in by_name:  # a peer that is not installed
            continue
        ours, theirs = by_name[target.candidate], by_name[to]
        ratio = _memory(ours) / _memory(theirs) if target.memory else ours.seconds / theirs.seconds
        if not target.memory and target.to is None:
            ratio = ours.ratio
        of = "memory" if target.memory else "time"
        aims.append(Aim(target.candidate, to, of, target.at_most, ratio, ratio <= target.at_most))
    return aims


def _memory(row: Row) -> int:
    """The peak where it is known (GPU), else what is kept for the backward pass."""
    return row.peak_bytes or row.saved_bytes or 0


def describe(device: torch.device, peers: dict[str, str]) -> dict[str, Any]:
    """The machine and the versions."""
    from spikedistill.runfolder import commit

    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{_processor()}, {torch.get_num_threads()} threads"
    return {
        "device": name,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": commit(),
        "peers": peers,
    }


def _processor() -> str:
    """The processor's name where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
