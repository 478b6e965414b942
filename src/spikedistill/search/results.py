"""What a search leaves: every trial as a row, and what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from spikedistill.engine.metrics import write_csv
from spikedistill.models.subnets import Subnet
from spikedistill.search.bayes import Trial, best_of
from spikedistill.search.measure import Measured
from spikedistill.search.space import coordinates


def write_trials(path: Path, trials: Sequence[Trial]) -> None:
    """Writes a CSV with a row a trial; accuracies in percent."""
    rows: list[dict[str, Any]] = [
        {
            "trial": trial.number,
            **coordinates(trial.subnet),
            "validation_accuracy": trial.measured.accuracy,
            "parameters": trial.measured.parameters,
            "seconds": trial.measured.seconds,
        }
        for trial in trials
    ]
    write_csv(path, rows)


def findings(trials: Sequence[Trial], reference: tuple[Subnet, Measured]) -> dict[str, Any]:
    """What a search found, ready for JSON: the best subnet, the reference beside it, and how far apart all are.

    Args:
        trials: the search.
        reference: the teacher's architecture, measured as the trials were.

    Returns:
        Accuracies are those on the validation part, in percent.
    """
    best = best_of(trials)
    accuracies = sorted(trial.measured.accuracy for trial in trials)
    return {
        "best": {"trial": best.number, **_described(best.subnet, best.measured)},
        "reference": _described(*reference),
        "trials": len(trials),
        "distinct": len({trial.subnet for trial in trials}),
        "lowest": accuracies[0],
        "median": median(accuracies),
        "highest": accuracies[-1],
    }


def _described(subnet: Subnet, measured: Measured) -> dict[str, Any]:
    return {
        "subnet": str(subnet),
        **asdict(subnet),
        "validation_accuracy": measured.accuracy,
        "parameters": measured.parameters,
    }
