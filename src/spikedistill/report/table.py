"""The comparison of runs: mean and standard deviation over seeds, beside the plain SNN, the teacher and the paper."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from spikedistill.errors import shortened
from spikedistill.report.groups import Group, Spread, group_runs, plain_snn_of, spread, training_differences
from spikedistill.report.quantities import EMPTY
from spikedistill.report.runs import PLAIN_ANN, Published, Run

SIZES = ("data.subset", "data.test_subset", "student.width")
"""Settings without which accuracies of one data set and student say nothing about methods."""


@dataclass(frozen=True)
class Row:
    """One line of the table. Accuracies in percent, differences in percentage points (ours minus the other)."""

    group: Group
    accuracy: Spread | None
    teacher: float | None
    to_teacher: float | None
    plain: Group | None
    gain: float | None
    published: Published | None
    to_published: float | None
    firing_rate: float | None
    parameters: int | None
    seeds: str
    device: str
    torch: str
    commit: str


@dataclass(frozen=True)
class Table:
    """Rows in order of reading, and remarks that must not be lost: runs that never ended, unlike baselines."""

    rows: list[Row]
    notes: list[str]


def table(runs: Iterable[Run]) -> Table:
    """Compares runs: those that differ only in seed share a row (see ``groups.group_runs``)."""
    groups = group_runs(runs)
    rows = [_row(group, groups) for group in groups]
    return Table(rows, [note for mine in places(rows).values() for note in notes(mine)])


def notes(rows: Sequence[Row]) -> list[str]:
    """What must not be lost about the rows of one data set and student."""
    return [note for row in rows for note in _of_row(row)] + _baselines(rows) + _unlike(rows)


def _baselines(rows: Sequence[Row]) -> list[str]:
    """A line for the rows that differ in the same from the plain SNN that they are measured against."""
    differing: dict[str, list[str]] = {}
    for row in rows:
        keys = training_differences(row.group, row.plain) if row.plain and row.accuracy else []
        if keys:
            differing.setdefault(shortened(keys, 3), []).append(row.group.label)
    return [
        f"{', '.join(labels)}: the plain SNN {'it is' if len(labels) == 1 else 'they are'} measured against differs in "
        f"{told}"
        for told, labels in differing.items()
    ]


def _unlike(rows: Sequence[Row]) -> list[str]:
    """A line where rows of one data set and student differ in how much they had or were; else nothing."""
    # The ANN may be larger: it is what taught, and no rival.
    finished = [row.group for row in rows if row.accuracy and row.group.method != PLAIN_ANN]
    differing = [key for key in SIZES if len({str(group.settings.get(key)) for group in finished}) > 1]
    if not differing:
        return []
    place = f"{finished[0].model} on {finished[0].dataset}"
    return [f"{place}: the rows differ in {', '.join(differing)}; only those that are alike in that compare"]


def _row(group: Group, groups: list[Group]) -> Row:
    accuracy = group.accuracy
    teacher = spread(run.teacher_accuracy for run in group.runs if run.finished)
    plain = plain_snn_of(group, groups)
    baseline = plain.accuracy if plain else None
    firing = spread(run.firing_rate for run in group.runs if group.timesteps)
    published = next((run.published for run in group.runs if run.published), None)
    return Row(
        group=group,
        accuracy=accuracy,
        teacher=teacher.mean if teacher else None,
        to_teacher=accuracy.mean - teacher.mean if accuracy and teacher else None,
        plain=plain,
        gain=accuracy.mean - baseline.mean if accuracy and baseline else None,
        published=published,
        to_published=accuracy.mean - published.figure if accuracy and published else None,
        firing_rate=firing.mean if firing else None,
        parameters=next((run.parameters for run in group.runs if run.parameters), None),
        seeds=" ".join(map(str, group.seeds)) or EMPTY,
        device=joined(run.device for run in group.runs),
        torch=joined(run.torch for run in group.runs),
        commit=joined(run.commit for run in group.runs),
    )


def _of_row(row: Row) -> list[str]:
    """What must not be lost about a row: runs that never ended, seeds that count twice."""
    group, notes = row.group, []
    stopped = [run for run in group.runs if not run.finished]
    for run in stopped:
        planned = f" of {run.epochs}" if run.epochs else ""
        notes.append(f"{group.label}, seed {run.seed}: stopped after epoch {run.epochs_done}{planned}, not counted")
    twice = sorted({seed for seed in group.seeds if group.seeds.count(seed) > 1})
    if twice:
        notes.append(f"{group.label}: seed {', '.join(map(str, twice))} was run more than once and counts each time")
    if row.published and row.published.timesteps not in (None, group.timesteps):
        notes.append(f"{group.label}: the published figure is for T = {row.published.timesteps}")
    if row.published and row.published.note:
        notes.append(f"{group.label}, published figure: {row.published.note}")
    return notes


def joined(values: Iterable[str]) -> str:
    """What all runs share, or what they have, each once."""
    return " / ".join(dict.fromkeys(values))


def places(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """The rows of each data set and student, in the order of the rows."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.group.dataset, row.group.model), []).append(row)
    return found
