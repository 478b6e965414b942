"""Puts the runs that differ only in their seed together, and names what sets one group apart from another."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from spikedistill.methods import with_defaults
from spikedistill.report.runs import PLAIN_ANN, PLAIN_SNN, Run

_SHOWN_AS = {PLAIN_ANN: "ANN", PLAIN_SNN: "plain SNN"}
_NOT_SETTINGS = frozenset(
    (
        *("seed", "out", "name", "description", "published", "path", "timesteps", "normalisation"),
        *("device", "workers", "checkpoint_minutes"),
    )
)
"""Recipe keys, at any depth, that set no two runs apart; the timesteps are told beside the label, and the constants of
``normalisation`` are measured on the images that a seed draws (those that somebody chose are the data's)."""
_TEACHING = ("method", "teacher", "init")


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (n - 1 in the denominator) of n values; ``sd`` is None for n = 1."""

    n: int
    mean: float
    sd: float | None


@dataclass(frozen=True)
class Group:
    """Runs of one recipe under several seeds.

    ``label`` is the method's name, followed by what sets it apart where several variants of it stand side by side.
    ``settings`` maps dotted recipe keys to values, without those that may differ between seeds.
    """

    dataset: str
    model: str
    timesteps: int | None
    method: str
    label: str
    settings: dict[str, Any]
    runs: tuple[Run, ...]

    @property
    def is_baseline(self) -> bool:
        """Whether nothing was distilled here: the plain SNN or the ANN."""
        return self.method in _SHOWN_AS

    @property
    def accuracies(self) -> list[float]:
        """Accuracy of the last epoch of each finished run, in percent."""
        return [run.accuracy for run in self.runs if run.accuracy is not None]

    @property
    def accuracy(self) -> Spread | None:
        """Mean and standard deviation of ``accuracies``."""
        return spread(self.accuracies)

    @property
    def accuracy_per_timestep(self) -> dict[int, Spread]:
        """The same of the networks read out after 1, 2, ... of their T steps, where that was measured."""
        measured = [run.accuracy_per_timestep for run in self.runs if run.finished]
        steps = sorted({step for one in measured for step in one})
        found = {step: spread(one.get(step) for one in measured) for step in steps}
        return {step: value for step, value in found.items() if value}

    @property
    def seeds(self) -> list[int]:
        """The seeds of the finished runs, in order."""
        return sorted(run.seed for run in self.runs if run.finished and run.seed is not None)


def spread(values: Iterable[float | None]) -> Spread | None:
    """Mean and sample standard deviation of the values that are there, or None when none is."""
    present = [value for value in values if value is not None]
    if not present:
        return None
    return Spread(len(present), statistics.fmean(present), statistics.stdev(present) if len(present) > 1 else None)


def group_runs(runs: Iterable[Run]) -> list[Group]:
    """Groups runs by data set, model, method, timesteps and settings.

    Order: data set and model as they first appear; within them by timesteps, the ANN and the plain SNN first, then
    by falling accuracy.
    """
    families: dict[tuple[str, str, str], list[Run]] = {}
    for run in _told_apart(list(runs)):
        families.setdefault((run.dataset, run.model, run.method), []).append(run)
    groups = []
    for (dataset, model, method), family in families.items():
        variants = _variants(family)
        for label, variant in zip(_labels(_SHOWN_AS.get(method, method), variants), variants, strict=True):
            for found in _split(variant, lambda run: str(run.timesteps)):
                first = found[0]
                groups.append(Group(dataset, model, first.timesteps, method, label, _settings(first), tuple(found)))
    appearance = {place: index for index, place in enumerate(dict.fromkeys((g.dataset, g.model) for g in groups))}
    return sorted(groups, key=lambda g: (appearance[g.dataset, g.model], *_rank(g)))


def _told_apart(runs: list[Run]) -> list[Run]:
    """Runs on data of the same name but of other classes or test images, under names of their own.

    Which those are is known of finished runs only.
    """
    kinds: dict[str, set[str]] = {}
    for run in runs:
        kinds.setdefault(run.dataset, set()).update([run.test_set] if run.finished else [])
    return [
        replace(run, dataset=f"{run.dataset} ({run.test_set or 'unknown'})") if len(kinds[run.dataset]) > 1 else run
        for run in runs
    ]


def plain_snn_of(group: Group, groups: Iterable[Group]) -> Group | None:
    """The plain SNN that a group is measured against: same data, model and timesteps.

    Where several were run, the one that differs in nothing but method and teacher; None where that is not clear.
    """
    if group.is_baseline:
        return None
    place = (group.dataset, group.model, group.timesteps)
    plain = [g for g in groups if g.method == PLAIN_SNN and (g.dataset, g.model, g.timesteps) == place and g.accuracy]
    alike = [g for g in plain if not training_differences(group, g)]
    candidates = alike or plain
    return candidates[0] if len(candidates) == 1 else None


def training_differences(first: Group, second: Group) -> list[str]:
    """The recipe keys, method, teacher and initialisation aside, in which two groups differ."""
    keys = {key for key in first.settings | second.settings if key.split(".")[0] not in _TEACHING}
    return sorted(key for key in keys if first.settings.get(key) != second.settings.get(key))


def _variants(runs: list[Run]) -> list[list[Run]]:
    """Runs of one method apart by settings; a seed that comes twice is set apart by where its other networks lay."""
    variants: list[list[Run]] = []
    for alike in _split(runs, lambda run: repr(sorted(_settings(run).items()))):
        twice = len({(run.seed, run.timesteps) for run in alike}) < len(alike)
        variants += _split(alike, _other_networks) if twice else [alike]
    return [sorted(found, key=lambda run: run.seed or 0) for found in variants]


def _other_networks(run: Run) -> str:
    """Where the networks lay that a run learned or started from; those of other seeds lie in folders of their own."""
    text = repr([run.config.get(key) for key in ("teacher", "init")])
    return text.replace(f"-seed{run.seed}", "")


def _split(runs: list[Run], key: Callable[[Run], str]) -> list[list[Run]]:
    parts: dict[str, list[Run]] = {}
    for run in runs:
        parts.setdefault(key(run), []).append(run)
    return list(parts.values())


def _settings(run: Run) -> dict[str, Any]:
    return _flat(run.config | {"method": with_defaults(run.config.get("method"))})


def _flat(node: dict[Any, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if key == "name" and prefix == "method.":
            continue
        if key in _NOT_SETTINGS and not (key == "name" and prefix):
            continue
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        elif value is not None:  # a setting left out is the same as one that a record is too old to have
            whole = isinstance(value, float) and value.is_integer()
            flat[f"{prefix}{key}"] = int(value) if whole else value  # 1 and 1.0 are one setting
    return flat


def _labels(method: str, variants: list[list[Run]]) -> list[str]:
    """One label a variant: what differs if that is short, else the recipe's or the folder's name, at last a number."""
    if len(variants) == 1:
        return [method]
    settings = [_settings(runs[0]) for runs in variants]
    keys = list(dict.fromkeys(key for flat in settings for key in flat))
    differing = [key for key in keys if any(flat.get(key) != settings[0].get(key) for flat in settings)]
    names = [runs[0].name for runs in variants]
    if len(differing) not in (1, 2) and len(set(names)) == len(names):
        return [f"{method} ({name})" for name in names]
    labels = []
    for flat in settings:
        told = ", ".join(f"{key.removeprefix('method.')}={flat.get(key)}" for key in differing if key in flat)
        labels.append(f"{method} ({told})" if told else method)
    if len(set(labels)) == len(labels) and max(map(len, labels)) <= 60:
        return labels
    names = [name.removeprefix(method).lstrip("-") for name in _folders(variants)]
    if len(set(names)) == len(variants):
        return [f"{method} ({name})" if name else method for name in names]
    return [f"{method} #{index}" for index in range(1, len(variants) + 1)]


def _folders(variants: list[list[Run]]) -> list[str]:
    """What sets the variants' folders apart: their names without the seed and the words that all begin with.

    Empty where the seeds of a variant do not lie in folders of one name.
    """
    names = [{run.path.name.removesuffix(f"-seed{run.seed}") for run in runs} for runs in variants]
    if any(len(one) > 1 for one in names):
        return []
    words = [one.pop().split("-") for one in names]
    shared = 0
    while all(len(one) > shared and one[shared] == words[0][shared] for one in words):
        shared += 1
    return ["-".join(one[shared:]) for one in words]


def _rank(group: Group) -> tuple[float, int, float, str]:
    accuracy = group.accuracy
    order = [PLAIN_ANN, PLAIN_SNN].index(group.method) if group.is_baseline else 2
    return (group.timesteps or 0, order, -accuracy.mean if accuracy else 1.0, group.label)
