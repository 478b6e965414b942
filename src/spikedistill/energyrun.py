"""The command ``energy``: what a finished run's network costs, beside its ANN twin and its teacher."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from spikedistill.build import make_network, read_config, resolved
from spikedistill.errors import UserError
from spikedistill.evalrun import Opened, open_run
from spikedistill.evaluation.counting import PRODUCT
from spikedistill.evaluation.energy import energy
from spikedistill.evaluation.prices import ATTENTION, DEFAULT_PRICES
from spikedistill.recipe import ModelSettings
from spikedistill.report.quantities import count, joules
from spikedistill.runfolder import OWN_TEACHER, write_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

ENERGY = "energy.json"
TWIN, TEACHER = "twin", "teacher"
IMAGES = 256


def energy_of_run(
    folder: Path, *, data_path: str | None = None, images: int = IMAGES, constants: str = DEFAULT_PRICES
) -> dict[str, Any]:
    """Measures the network of a run folder on its test images and writes ``energy.json`` there.

    An ANN costs the same whatever its weights and its input, so the twin and the teacher are counted, not measured.

    Args:
        folder: the run folder.
        data_path: where the data lie now, if not where they lay.
        images: how many test images to measure.
        constants: see ``evaluation.prices.prices``.

    Returns:
        ``student`` (``Energy.to_dict``), ``twin`` (the ANN of the same architecture; None for an ANN's run) and
        ``teacher`` (None where there is none, or where it is the twin's architecture).

    Raises:
        UserError: no finished run, no data, or unknown constants.
    """
    if images < 1:
        raise UserError(f"--images must be at least 1, not {images}")
    run = open_run(folder, data_path, images)
    student = energy(run.network, run.test_images(), constants=constants, images=images)
    result: dict[str, Any] = {
        "run": str(folder),
        "model": run.recipe.student.model if run.recipe.student else type(run.network).__name__,
        "student": student.to_dict(),
        TWIN: None,
        TEACHER: None,
    }
    if student.timesteps is not None:
        example = torch.zeros(1, *run.data.info.shape, device="meta")
        result[TWIN] = _counted(_twin(run), example, constants)
        result[TEACHER] = _counted(_teacher(run), example, constants)
    write_json(folder / ENERGY, result)
    return result


def _counted(network: nn.Module | None, example: Tensor, constants: str) -> dict[str, Any] | None:
    return None if network is None else energy(network, example, constants=constants).to_dict()


def _twin(run: Opened) -> nn.Module | None:
    return None if run.recipe.student is None else _without_weights(run.recipe.student, run)


def _teacher(run: Opened) -> nn.Module | None:
    """The teacher where it is another architecture than the student's; None where it is not, or cannot be found."""
    section, student = run.recipe.teacher, run.recipe.student
    if section is None or student is None:
        return None
    model = _model_in([run.folder / OWN_TEACHER, *([Path(section.path)] if section.path else [])])
    if model is None:
        model = resolved(section, run.data.info, "teacher") if section.model else None
    if model is None or (model.model, model.arguments()) == (student.model, student.arguments()):
        return None
    return _without_weights(model, run)


def _model_in(folders: list[Path]) -> ModelSettings | None:
    """The network of the first run folder among some."""
    return next((read_config(folder).student for folder in folders if (folder / "config.yaml").is_file()), None)


def _without_weights(model: ModelSettings, run: Opened) -> nn.Module:
    with torch.device("meta"):
        return make_network(model, False, run.recipe)


def print_energy(result: dict[str, Any], as_json: bool, console: Console | None = None) -> None:
    """Prints a bill for people or as JSON."""
    if as_json:
        print(json.dumps(result, indent=2))
        return
    from rich.console import Console

    console = console or Console()
    student = result["student"]
    console.print(_layers(student))
    console.print(_totals(result))
    told = student["prices"]
    if student["timesteps"] is not None:
        console.print(
            "not 0: share of what enters a layer, after pooling; fires: spikes per neuron and step",
            style="dim",
            highlight=False,
        )
    console.print(
        f"measured on {student['images']} test images; {told['add']} pJ an addition, {told['multiply']} pJ a "
        f"multiplication, {told['move'][0]:g} to {told['move'][1]:g} pJ for 64 bits moved ({told['source']})",
        style="dim",
        highlight=False,
    )
    products = any(layer["kind"] == PRODUCT for layer in student["layers"])
    for name, formula in student["formulas"].items():
        if name == ATTENTION and not products:
            continue
        console.print(f"{name}: {formula}", style="dim", highlight=False, markup=False)


def _layers(bill: dict[str, Any]) -> Table:
    import rich.box
    import rich.table

    spiking = bill["timesteps"] is not None
    drawn = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    drawn.add_column("layer")
    if spiking:
        drawn.add_column("takes")
    titles = ("not 0\n%", "fires\n%", "MACs", "accum.", "mult.-\naccum.", "compute") if spiking else ("MACs", "compute")
    for title in titles:
        drawn.add_column(title, justify="right", no_wrap=True)
    for layer in bill["layers"]:
        if layer["firing_rate"] is not None:
            drawn.add_row(layer["name"], "", "", f"{100 * layer['firing_rate']:.1f}", style="dim")
        if not layer["macs"]:
            continue
        work = [count(layer["macs"]), joules(layer["computation"])]
        if spiking:
            rate = f"{100 * layer['input_rate']:.1f}"
            passes = "once" if layer["passes"] == 1 and bill["timesteps"] > 1 else ""
            work = [
                " ".join(filter(None, (layer["input"], passes))),
                rate,
                "",
                work[0],
                count(layer["accumulates"]),
                count(layer["multiply_accumulates"]),
                work[1],
            ]
        drawn.add_row(layer["name"], *work)
    return drawn


def _totals(result: dict[str, Any]) -> Table:
    import rich.box
    import rich.table

    own = "student" if result["student"]["timesteps"] else "ANN"
    named = {own: result["student"], "ANN twin": result[TWIN], "teacher": result[TEACHER]}
    bills = {name: bill for name, bill in named.items() if bill is not None}
    drawn = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    drawn.add_column("an image costs")
    for name in bills:
        drawn.add_column(name, justify="right", no_wrap=True)
    for title, cell in _TOTALS.items():
        cells = [cell(bill["total"], bill["timesteps"]) for bill in bills.values()]
        if any(cells):
            drawn.add_row(title, *cells)
    return drawn


def _span(low: float, high: float) -> str:
    return f"{joules(low)} to {joules(high)}"


_TOTALS: dict[str, Callable[[dict[str, Any], int | None], str]] = {
    "timesteps": lambda total, steps: str(steps or ""),
    "parameters": lambda total, steps: count(total["parameters"]),
    "MACs, one pass": lambda total, steps: count(total["macs"]),
    "FLOPs (KDSNN)": lambda total, steps: "" if steps else count(total["flops"]),
    "SynOps": lambda total, steps: count(total["synops"]) if steps else "",
    "accumulates": lambda total, steps: count(total["accumulates"]) if steps else "",
    "mult.-accumulates": lambda total, steps: count(total["multiply_accumulates"]),
    "neurons": lambda total, steps: count(total["neurons"]),
    "firing, all neurons": lambda total, steps: f"{100 * total['firing_rate']:.2f} %" if steps else "",
    "computation": lambda total, steps: joules(total["computation"]),
    "(layer 1 T times)": lambda total, steps: joules(total["first_layer_every_step"]) if steps else "",
    "data moved": lambda total, steps: f"{count(total['bits'] / 8)}B",
    "moving data": lambda total, steps: _span(*total["movement"]),
    "together": lambda total, steps: _span(*(total["computation"] + one for one in total["movement"])),
}
