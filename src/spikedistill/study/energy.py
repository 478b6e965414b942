"""What finished networks cost, beside the papers' tables (KDSNN table 3; Joint A-SNN tables 5 and 6).

Options: ``counted`` (networks whose parameters and FLOPs are counted at full size, without training, with the published
ones), ``additions``, ``multiplications``, ``energy`` and ``volume`` (published, by label), ``images`` (how many test
images to measure), ``notes``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from spikedistill.energyrun import ENERGY, IMAGES, TWIN, energy_of_run
from spikedistill.evaluation.energy import energy as energy_of
from spikedistill.evaluation.prices import DEFAULT_PRICES, PRICES
from spikedistill.models.registry import MODELS, options_of
from spikedistill.study.base import Done, Finding, Picture, Table, Value, by_label
from spikedistill.study.draw import COLOURS, panels
from spikedistill.sweep import Planned

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Bills = Mapping[str, list[dict[str, Any]]]
PAPER = PRICES["joint-asnn"]


def energy(runs: list[Done], planned: list[Planned], options: Mapping[str, Any]) -> Finding:
    """The study."""
    done = by_label(runs)
    names = {one.cell.label: one.cell.row for one in planned if one.cell.row}
    bills = {
        label: [measured(run, int(options.get("images", IMAGES))) for run in done[label]]
        for label in names
        if label in done
    }
    tables = (
        _measured(names, bills, planned, done),
        _computation(names, bills, options),
        _movement(names, bills, options),
        _counted(options),
    )

    def draw(figure: Figure) -> None:
        _draw(figure, names, bills)

    caption = (
        "Energy of an image by the 45 nm constants: computation (solid), moving data with the cheapest memory (pale) "
        "and with the dearest (line); the ANN of the same architecture in grey."
    )
    return Finding(tables, (Picture("energy", caption, draw, (8.0, 1.2 + 0.9 * len(bills))),))


def measured(run: Done, images: int) -> dict[str, Any]:
    """A run's ``energy.json``; measured where it is not there yet, or was by other constants or on other images."""
    known = run.measured(ENERGY, images, "student")
    if known is not None and known["student"]["prices"]["source"] == PRICES[DEFAULT_PRICES].source:
        return known
    return energy_of_run(run.folder, images=images)


def _measured(names: Mapping[str, str], bills: Bills, planned: list[Planned], done: Mapping[str, list[Done]]) -> Table:
    published = {one.cell.label: one.cell.published for one in planned}
    rows = []
    for label, row in names.items():
        found = [bill["student"]["total"] for bill in bills.get(label, []) if bill["student"]["timesteps"]]
        if not found:
            continue
        pairs = [(bill[TWIN], bill["student"]) for bill in bills[label] if bill[TWIN] and bill["student"]["timesteps"]]
        ratios = tuple(twin["total"]["computation"] / own["total"]["computation"] for twin, own in pairs)
        rows.append(
            (
                row,
                (
                    Value(tuple(run.accuracy for run in done[label])),
                    Value(tuple(100 * own["firing_rate"] for own in found)),
                    Value(tuple(own["synops"] / 1e6 for own in found), published[label]),
                    Value(tuple(own["computation"] / 1e6 for own in found)),
                    Value(ratios, digits=1),
                ),
            )
        )
    heads = ("accuracy, %", "firing rate, %", "SynOps, M", "computation, µJ", "times less than its ANN")
    note = (
        "SynOps here are the accumulates that spikes set off over all timesteps; KDSNN's poster does not define its "
        "own, which are about a thousandth of each network's multiply-accumulates"
    )
    return Table("Measured on test images", "", heads, tuple(rows), (note,))


def as_table_5(bill: Mapping[str, Any]) -> tuple[float, float]:
    """Additions and multiplications of an image as Joint A-SNN's table 5 counts them: the first layer T times."""
    steps = bill["timesteps"] or 1
    times = [steps if layer["passes"] == 1 else 1 for layer in bill["layers"]]
    multiplications = sum(layer["multiply_accumulates"] * n for layer, n in zip(bill["layers"], times, strict=True))
    return multiplications + sum(layer["accumulates"] for layer in bill["layers"]), multiplications


def _computation(names: Mapping[str, str], bills: Bills, options: Mapping[str, Any]) -> Table:
    rows = []
    for label, row in names.items():
        counts = [as_table_5(bill["student"]) for bill in bills.get(label, [])]
        if not counts:
            continue
        cells = (
            ("additions", tuple(one / 1e6 for one, _ in counts), 1),
            ("multiplications", tuple(many / 1e6 for _, many in counts), 2),
            ("energy", tuple(PAPER.computation(*one) / 1e6 for one in counts), 1),
        )
        rows.append((row, tuple(Value(found, _printed(options, key, label), digits) for key, found, digits in cells)))
    heads = ("additions, M", "multipl., M", "energy, µJ")
    notes = (
        "0.9 pJ an addition, 4.6 pJ a multiplication, first layer counted T times, as the paper does; its table prints "
        "J and mJ, each 1000 times too large, and is given here in the units that its own counts lead to",
        *options.get("notes", ()),
    )
    return Table("Computation as in Joint A-SNN's table 5", "", heads, tuple(rows), notes)


def _movement(names: Mapping[str, str], bills: Bills, options: Mapping[str, Any]) -> Table:
    rows = []
    for label, row in names.items():
        bits = [bill["student"]["total"]["bits"] for bill in bills.get(label, [])]
        if not bits:
            continue
        printed = _printed(options, "volume", label)
        theirs = PAPER.movement(8e6 * printed) if isinstance(printed, float) else (None, None)
        volume = Value(tuple(one / 8e6 for one in bits), printed, 3)
        ends = [
            Value(tuple(PAPER.movement(one)[end] / 1e6 for one in bits), None if value is None else value / 1e6, 1)
            for end, value in enumerate(theirs)
        ]
        rows.append((row, (volume, *ends)))
    heads = ("volume, MB", "cheapest, µJ", "dearest, µJ")
    note = (
        "10 to 100 pJ for 64 bits; the published energies here follow from the published volumes by this rule, those "
        "that table 6 prints (1.022 to 10.22 mJ and 2.062 to 20.62 mJ) do not"
    )
    potentials = (
        "an SNN reads and writes each membrane potential at every step, as the published volumes say (12.506 MB at "
        "T = 2 are 2 x 6.234 MB and the spikes); the paper's text can be read as one move a step"
    )
    return Table("Data movement as in Joint A-SNN's table 6", "", heads, tuple(rows), (note, potentials))


def _printed(options: Mapping[str, Any], key: str, label: str) -> float | None:
    value = dict(options.get(key, {})).get(label)
    return None if value is None else float(value)


def _counted(options: Mapping[str, Any]) -> Table:
    rows = []
    for entry in options.get("counted", ()):
        side, channels = int(entry["side"]), int(entry["channels"])
        options_there = {"num_classes": 10, "in_channels": channels, "image_size": side}
        accepted = {key: value for key, value in options_there.items() if key in options_of(entry["model"])}
        with torch.device("meta"):
            network = MODELS[entry["model"]](**accepted)
            bill = energy_of(network, torch.zeros(1, channels, side, side))
        parameters = Value((bill.parameters / 1e6,), entry.get("parameters"))
        flops = Value(((bill.flops or 0) / 1e6,), entry.get("flops"))
        rows.append((f"{entry['model']}, {channels}x{side}x{side}", (parameters, flops)))
    note = "FLOPs: multiply-accumulates, 4 an element in BatchNorm, 1 an element that leaves an average pooling layer"
    return Table("Full-size networks, counted", "", ("parameters, M", "FLOPs, M"), tuple(rows), (note,))


def _draw(figure: Figure, names: Mapping[str, str], bills: Bills) -> None:
    (panel,) = panels(figure, 1)
    ticks: list[tuple[float, str]] = []
    height = 0.0
    for index, (label, found) in enumerate(bills.items()):
        for whose, colour in (("student", COLOURS[1 + index % (len(COLOURS) - 1)]), (TWIN, COLOURS[0])):
            mine = [bill[whose]["total"] for bill in found if bill[whose]]
            if not mine:
                continue
            work = sum(one["computation"] for one in mine) / len(mine) / 1e6
            low, high = (sum(one["movement"][end] for one in mine) / len(mine) / 1e6 for end in (0, 1))
            panel.barh(height, work, 0.7, color=colour)
            panel.barh(height, low, 0.7, left=work, color=colour, alpha=0.4)
            panel.plot([work + low, work + high], [height, height], color=colour, marker="|")
            ticks.append((height, names[label] if whose == "student" else "its ANN"))
            height -= 1.0
        height -= 0.4
    panel.set_yticks([at for at, _ in ticks], [name for _, name in ticks])
    panel.set_xlabel("energy of an image, µJ")
    panel.grid(visible=False, axis="y")
