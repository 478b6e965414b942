"""The section drawn from energy.json: what an image costs each network, beside the ANN of the same architecture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from spikedistill.errors import UserError
from spikedistill.report import bars
from spikedistill.report.contents import Block, Part, Report, chart, grid, place
from spikedistill.report.evaluation import reasonable
from spikedistill.report.groups import Spread, spread
from spikedistill.report.quantities import EMPTY, count, joules, scale
from spikedistill.report.runs import ENERGY, Run

TWIN = "ANN of the same make"


@dataclass(frozen=True)
class Bill:
    """What an image costs a network. Energies in pJ, ``movement`` with the cheapest and the dearest memory."""

    timesteps: int | None
    images: int
    macs: float
    synops: float
    firing_rate: float | None
    computation: float
    movement: tuple[float, float]
    layers: dict[str, float]
    takes: dict[str, str]
    source: str


@dataclass(frozen=True)
class Line:
    """A line of the table and a bar of the chart: a network with its bills, one a run, and those of its ANNs."""

    name: str
    colour: str
    bills: list[Bill]
    twins: list[Bill] = field(default_factory=list)

    def mean(self, key: str) -> float:
        """Of one of a bill's figures, over the runs."""
        return sum(getattr(bill, key) for bill in self.bills) / len(self.bills)

    @property
    def movement(self) -> tuple[float, float]:
        """Mean energy of moving data."""
        low, high = (sum(bill.movement[end] for bill in self.bills) / len(self.bills) for end in (0, 1))
        return low, high


def energies(report: Report) -> Part | None:
    """What an image costs: computation, data movement, and the layers of the best row."""
    body = ""
    source = _source(report)
    others = [run.name for run in report.runs if _bill_source(run) not in (None, source)]
    for block in report.blocks:
        lines = _lines(block, source)
        if not lines:
            continue
        drawn = [chart(bars.stacked([(one.name, one.colour, one.mean("computation"), one.movement) for one in lines]))]
        detailed = [line for line in lines if line.bills[0].timesteps]
        if detailed:
            drawn.append(chart(_by_layer(detailed, block)))
        body += place(block, report) + _table(lines) + grid(drawn, block)
    if not body:
        return None
    intro = (
        f"Energy of one image, counted and measured on test images, not on a chip: {source}; the formulas stand in "
        "each run's energy.json. A layer that takes spikes adds, a layer that takes anything else multiplies. Moving "
        "data is a range, from the cheapest to the dearest memory."
    )
    if others:
        body += (
            '<p class="note">Left out, as they were measured with other constants: '
            f"{escape(', '.join(dict.fromkeys(others)))}.</p>"
        )
    return Part(intro, body)


def _source(report: Report) -> str:
    """The constants that most bills were made out with."""
    named = Counter(source for run in report.runs if (source := _bill_source(run)) is not None)
    return named.most_common(1)[0][0] if named else ""


def _bill_source(run: Run) -> str | None:
    """The constants of a run's bill; None where it has none."""
    bill = _bill(run, "student") if ENERGY in run.measured else None
    return bill.source if bill else None


def _lines(block: Block, source: str) -> list[Line]:
    """Each row that was measured, then the ANN of the same architecture and the teachers."""
    lines: list[Line] = []
    others: dict[str, dict[float, tuple[Bill, str]]] = {}
    for row, name, colour in zip(block.table.rows, block.names, block.colours, strict=True):
        found = [run for run in row.group.runs if _bill_source(run) == source]
        bills = [bill for bill in (_bill(run, "student") for run in found) if bill]
        if bills:
            lines.append(Line(name, colour, bills, [bill for bill in (_bill(run, "twin") for run in found) if bill]))
        for run in found:
            named = run.config.get("teacher")
            teacher = f"teacher {named.get('model') or '' if isinstance(named, dict) else ''}".strip()
            for label, whose in ((TWIN, "twin"), (teacher, "teacher")):
                bill = _bill(run, whose)
                if bill:
                    others.setdefault(label, {}).setdefault(bill.macs, (bill, name))
    # Rows of different width have different ANNs: these are then named after the first row that each belongs to.
    return lines + [
        Line(label if len(bills) == 1 else f"{label} ({whose})", "c0", [bill])
        for label, bills in others.items()
        for bill, whose in bills.values()
    ]


def _bill(run: Run, whose: str) -> Bill | None:
    content = run.measured[ENERGY].get(whose)
    if content is None:
        return None
    try:
        total = content["total"]
        weighted = [layer for layer in content["layers"] if layer["macs"]]
        low, high = total["movement"]
        return Bill(
            timesteps=None if content["timesteps"] is None else int(reasonable(content["timesteps"])),
            images=int(reasonable(content["images"])),
            macs=reasonable(total["macs"]),
            synops=reasonable(total["synops"]),
            firing_rate=None if total["firing_rate"] is None else reasonable(total["firing_rate"]),
            computation=_positive(total["computation"]),
            movement=(_positive(low), _positive(high)),
            layers={str(layer["name"]): _positive(layer["computation"]) for layer in weighted},
            takes={str(layer["name"]): str(layer["input"] or "analogue") for layer in weighted},
            source=str(content["prices"]["source"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as fault:
        raise UserError(f"{run.path / ENERGY}: '{whose}' is not what the command energy writes ({fault!r})") from fault


def _positive(value: Any) -> float:
    energy = reasonable(value)
    if energy < 0:
        raise ValueError(f"{energy} pJ")
    return energy


def _table(lines: Sequence[Line]) -> str:
    heads = (
        "network",
        "T",
        "SynOps",
        "firing %, all neurons",
        "computation",
        "moving data",
        "computation against the ANN",
    )
    head = "".join(
        f'<th scope="col"{" class=num" if index else ""}>{escape(text)}</th>' for index, text in enumerate(heads)
    )
    rows = ""
    for line in lines:
        first = line.bills[0]
        rates = spread(bill.firing_rate for bill in line.bills)
        computation = spread(bill.computation for bill in line.bills)
        own = line.mean("computation")
        twin = sum(bill.computation for bill in line.twins) / max(len(line.twins), 1)
        ratio = twin / own if twin and own else None
        cells = (
            str(first.timesteps or EMPTY),
            count(line.mean("synops")) if first.timesteps else EMPTY,
            f"{100 * rates.mean:.2f}" if rates and first.timesteps else EMPTY,
            _energy(computation),
            " to ".join(joules(end) for end in line.movement),
            EMPTY if ratio is None else f"1 / {ratio:.3g}" if ratio >= 1 else f"{1 / ratio:.3g} times",
        )
        told = "".join(f'<td class="num">{escape(cell)}</td>' for cell in cells)
        rows += f'<tr><th scope="row"><span class="mark {line.colour}"></span>{escape(line.name)}</th>{told}</tr>'
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _energy(value: Spread | None) -> str:
    if value is None:
        return EMPTY
    unit, size = scale(value.mean)
    sd = "" if value.sd is None else f" ± {value.sd / size:.2g}"
    return f"{value.mean / size:.3g}{sd} {unit}"


def _by_layer(lines: Sequence[Line], block: Block) -> str:
    """Computation layer by layer in the block's best row, or the first one where that was not measured."""
    line = next((one for one in lines if one.name == block.names[block.best]), lines[0])
    first = line.bills[0]
    layers = {name: sum(bill.layers.get(name, 0.0) for bill in line.bills) / len(line.bills) for name in first.layers}
    return bars.by_layer(layers, first.takes, line.colour, line.name)
