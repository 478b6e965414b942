"""The demo: an ANN on scikit-learn's handwritten digits, distilled by every method, beside the plain SNN."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import typer

from spikedistill.parallel import train_many
from spikedistill.recipe import Recipe
from spikedistill.recipebook import read_recipe, setting

SEEDS = (0, 1, 2)
PREFIX = "digits-2conv-"
TEACHER, BASELINE, QUICK = "ann", "snn", "kdsnn-response"


def demo_methods() -> list[str]:
    """The methods that have a digits recipe: the plain SNN first, then every other way of training it."""
    from spikedistill.recipebook import list_recipes

    names = [name.removeprefix(PREFIX) for name in list_recipes() if name.startswith(PREFIX)]
    return [BASELINE, *(name for name in names if name not in (BASELINE, TEACHER))]


def run_demo(out: Path, *, quick: bool) -> Path:
    """Runs the demo into ``out`` and returns the report's path; runs that are already there are kept."""
    from spikedistill.report import find_runs, print_table, write_report

    started = time.perf_counter()
    methods, seeds = ([BASELINE, QUICK], SEEDS[:1]) if quick else (demo_methods(), SEEDS)
    _train([_recipe(out, TEACHER, seed) for seed in seeds])
    _train([_recipe(out, method, seed) for method in methods for seed in seeds])
    runs = find_runs([out])
    print_table(runs)
    page = write_report(runs, out / "report.html", title="spikedistill demo: handwritten digits")
    typer.echo(f"report: {page}  ({time.perf_counter() - started:.0f} s)")
    return page


def _recipe(out: Path, method: str, seed: int) -> Recipe:
    """A digits recipe of the demo; the students of one seed share its teacher."""
    recipe = read_recipe(PREFIX + method, [f"seed={seed}", setting("out", str(out / f"{method}-seed{seed}"))])
    if recipe.teacher is not None:
        recipe.teacher.path = str(out / f"{TEACHER}-seed{seed}")
    return recipe


def _train(recipes: list[Recipe]) -> None:
    for number, summary in enumerate(train_many(recipes), 1):
        typer.echo(_line(number, len(recipes), summary), err=True)


def _line(number: int, count: int, summary: dict[str, Any]) -> str:
    accuracy = f"{summary['student_accuracy']:6.2f} %"
    return f"  {number:>2}/{count}  {summary['method']:<16} seed {summary['seed']}  {accuracy}"
