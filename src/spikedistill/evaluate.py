"""The command ``eval``: a finished run on its test images again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from spikedistill.build import load_run, read_config
from spikedistill.data import Loader, open_data
from spikedistill.engine.devices import resolve_device
from spikedistill.errors import UserError
from spikedistill.evaluation.accuracy import evaluate
from spikedistill.models.network import checked_timesteps
from spikedistill.run import EVALUATION_BATCH


def evaluate_run(folder: Path, *, timesteps: int | None = None, data_path: str | None = None) -> dict[str, Any]:
    """Evaluates a run folder's network on its test images.

    Args:
        folder: the run folder.
        timesteps: another T than it was trained with.
        data_path: where the data lie now, if not where they lay.

    Raises:
        UserError: no finished run, no data, or T for an ANN.
    """
    from dataclasses import replace

    recipe = read_config(folder)
    network = load_run(folder)
    if timesteps is not None:
        if getattr(network, "timesteps", None) is None:
            raise UserError(f"--timesteps: the network of '{folder}' is an ANN and has no timesteps")
        network.timesteps = checked_timesteps(timesteps)  # type: ignore[assignment]
    settings = replace(recipe.data, path=data_path) if data_path else recipe.data
    data = open_data(settings, recipe.seed)
    device = resolve_device(recipe.device)
    loader = Loader(data.test, data.info, batch_size=EVALUATION_BATCH, device=device, shuffle=False, seed=0)
    result = evaluate(network.to(device), loader, len(data.info.classes))
    return {
        "run": str(folder),
        "timesteps": result.timesteps,
        "images": result.count,
        "accuracy": result.accuracy,
        "accuracy_per_timestep": result.accuracy_per_timestep,
        "firing_rate": result.firing_rate,
        "mean_firing_rate": result.mean_firing_rate,
    }


def print_evaluation(result: dict[str, Any], as_json: bool) -> None:
    """Prints an evaluation for people or as JSON."""
    if as_json:
        print(json.dumps(result, indent=2))
        return
    print(f"accuracy {result['accuracy']:.2f} % on {result['images']} test images")
    if result["timesteps"]:
        steps = "  ".join(f"T={t} {value:.2f}" for t, value in result["accuracy_per_timestep"].items())
        print(f"by timesteps (percent): {steps}")
        for name, rate in result["firing_rate"].items():
            print(f"  {name:<28} {rate:.4f} spikes per neuron and step")
        print(f"  {'mean':<28} {result['mean_firing_rate']:.4f}")
