"""The demo: an ANN on scikit-learn's handwritten digits, distilled by every method, beside the plain SNN."""

from __future__ import annotations

import time
from pathlib import Path

import typer

from spikedistill.recipebook import read_recipe
from spikedistill.run import train

SEEDS = (0, 1, 2)
PREFIX = "digits-2conv-"
TEACHER, BASELINE, QUICK = "ann", "snn", "kdsnn-response"


def demo_methods() -> list[str]:
    """The methods that have a digits recipe: the plain SNN first, then every distillation."""
    from spikedistill.recipebook import list_recipes

    names = [name.removeprefix(PREFIX) for name in list_recipes() if name.startswith(PREFIX)]
    return [BASELINE, *(name for name in names if name not in (BASELINE, TEACHER))]


def run_demo(out: Path, *, quick: bool) -> Path:
    """Runs the demo into ``out`` and returns the report's path; runs that are already there are kept."""
    from spikedistill.report import find_runs, print_table, write_report

    started = time.perf_counter()
    methods = [BASELINE, QUICK] if quick else demo_methods()
    for seed in SEEDS[:1] if quick else SEEDS:
        teacher = out / f"{TEACHER}-seed{seed}"
        for method in (TEACHER, *methods):
            folder = out / f"{method}-seed{seed}"
            recipe = read_recipe(PREFIX + method, [f"seed={seed}", f"out={folder}"])
            if recipe.teacher is not None:
                recipe.teacher.path = str(teacher)
            summary = train(recipe, resume=True, verbose=False).summary
            typer.echo(f"  {method:<18} seed {seed}  {summary['student_accuracy']:6.2f} %", err=True)
    runs = find_runs([out])
    print_table(runs)
    page = write_report(runs, out / "report.html", title="spikedistill demo: handwritten digits")
    typer.echo(f"report: {page}  ({time.perf_counter() - started:.0f} s)")
    return page
