"""What a search leaves: every trial as a row, and what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from spikedistill.engine.metrics import write_csv
from spikedistill.models.elastic import Subnet
from spikedistill.runfolder import write_json
from spikedistill.search.bayes import Trial, best_of
from spikedistill.search.measure import Measured
from spikedistill.search.space import coordinates


def write_results(
    folder: Path, trials: Sequence[Trial], reference: tuple[Subnet, Measured], about: dict[str, Any]
) -> dict[str, Any]:
    """Writes ``trials.csv`` and ``best.json``.

    Args:
        folder: where to.
        trials: the search.
        reference: the teacher's architecture, measured as the trials were.
        about: what else ``best.json`` says, such as seed and run.

    Returns:
        The contents of ``best.json``. Accuracies are those on the validation part, in percent.
    """
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
    write_csv(folder / "trials.csv", rows)
    best = best_of(trials)
    accuracies = sorted(trial.measured.accuracy for trial in trials)
    content = {
        "best": {"trial": best.number, **_described(best.subnet, best.measured)},
        "reference": _described(*reference),
        "trials": len(trials),
        "distinct": len({trial.subnet for trial in trials}),
        "lowest": accuracies[0],
        "median": median(accuracies),
        "highest": accuracies[-1],
        **about,
    }
    write_json(folder / "best.json", content)
    return content


def _described(subnet: Subnet, measured: Measured) -> dict[str, Any]:
    return {
        "subnet": str(subnet),
        **asdict(subnet),
        "validation_accuracy": measured.accuracy,
        "parameters": measured.parameters,
    }
