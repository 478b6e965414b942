"""The sections of the report page: each is a function from the report's contents to an introduction and HTML.

A new section is a function here or anywhere else and one entry in ``SECTIONS``; one that has nothing to show returns
None and leaves no trace on the page.
"""

from __future__ import annotations

from html import escape

from spikedistill.report import plots
from spikedistill.report.contents import Block, Part, Report, Section, chart, missing, place
from spikedistill.report.energy import energies
from spikedistill.report.experiment import experiments
from spikedistill.report.latency import latencies
from spikedistill.report.layouts import to_html
from spikedistill.report.measured import accuracy_by_timesteps, confusion_matrices, example_spikes, firing_rates
from spikedistill.report.plots import Dot
from spikedistill.report.recipes import recipes
from spikedistill.report.robustness import robustness
from spikedistill.report.runs import PLAIN_SNN
from spikedistill.report.training import accuracy_curves, loss_curves


def results(report: Report) -> Part:
    """The comparison table of each block."""
    intro = (
        "Accuracy on the test images after the last epoch, mean ± standard deviation over seeds; no epoch is picked by "
        "its test accuracy. Differences are percentage points."
    )
    body = ""
    for block in report.blocks:
        body += place(block, report) + to_html(block.table, block.colours, with_place=False)
        lacking = missing([run for row in block.table.rows for run in row.group.runs])
        body += "".join(f'<p class="note missing">{escape(line)}</p>' for line in lacking)
    return Part(intro, body)


def comparison(block: Block) -> str:
    """The block's accuracies side by side as one chart, or nothing where none is finished."""
    entries = zip(block.table.rows, block.names, block.colours, strict=True)
    dots = [
        Dot(name, colour, row.accuracy, row.group.accuracies, row.teacher)
        for row, name, colour in entries
        if row.accuracy
    ]
    plain = [row.accuracy.mean for row in block.table.rows if row.accuracy and row.group.method == PLAIN_SNN]
    if not dots:
        return ""
    return chart(plots.side_by_side(dots, plain[0] if len(plain) == 1 and len(dots) > 1 else None))


SECTIONS: dict[str, Section] = {
    "Experiment": experiments,
    "Results": results,
    "Learning curves": accuracy_curves,
    "Accuracy against timesteps": accuracy_by_timesteps,
    "Firing rates": firing_rates,
    "Latency": latencies,
    "Energy": energies,
    "Robustness": robustness,
    "Spikes of one image": example_spikes,
    "Confusion matrix": confusion_matrices,
    "Loss": loss_curves,
    "What was run": recipes,
}
