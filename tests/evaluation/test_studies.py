"""What studies make of runs whose figures are known."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from spikedistill.errors import UserError
from spikedistill.recipebook import read_recipe
from spikedistill.study import STUDIES, Done, Value
from spikedistill.study.attribution import _correlation
from spikedistill.study.energy import as_table_5
from spikedistill.study.render import to_data
from spikedistill.sweep import Cell, Planned


def made(
    root: Path,
    label: str,
    seed: int,
    accuracy: float,
    *,
    row: str = "",
    column: str = "",
    published: float | str | None = None,
    curve: list[float] | None = None,
    seconds: float = 2.0,
    files: dict[str, Any] | None = None,
) -> Done:
    """A finished run of a fabricated experiment."""
    recipe = read_recipe("digits-2conv-snn", [f"out={root / f'{label}-seed{seed}'}", f"seed={seed}"])
    folder = recipe.folder()
    folder.mkdir(parents=True)
    summary = {"student_accuracy": accuracy, "timesteps": 4, "seed": seed, "method": "snn", "test_images": 2000}
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "config.yaml").write_text(yaml.safe_dump({"name": label, "method": {"name": "snn"}}))
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "seconds", "validation_accuracy"])
        writer.writerows([epoch, seconds, value] for epoch, value in enumerate(curve or [], 1))
    for name, content in (files or {}).items():
        (folder / name).write_text(json.dumps(content))
    cell = Cell(recipe="digits-2conv-snn", label=label, row=row, column=column)
    return Done(Planned(cell, seed, recipe, published), summary, folder)


def study(name: str, runs: list[Done], options: dict[str, Any], missing: list[Planned] | None = None):
    return STUDIES[name](runs, [run.planned for run in runs] + (missing or []), options)


def test_a_value_is_mean_and_sample_deviation():
    value = Value((94.0, 95.0), 96.5)
    assert value.ours() == "94.50 ± 0.71"
    assert value.theirs() == "96.50"
    assert Value((94.0,)).ours() == "94.00"
    assert (Value().ours(), Value().theirs()) == ("–", "–")
    assert Value(published="unstable").theirs() == "unstable"


def test_grid_puts_seeds_together_and_leaves_gaps(tmp_path):
    runs = [
        made(tmp_path, "a", seed, 90.0 + seed, row="first", column="SNN", published=91.5, curve=[1.0, 2.0])
        for seed in (0, 1)
    ]
    gap = made(tmp_path, "b", 0, 0.0, row="second", column="SAKD", published="unstable").planned
    teacher = made(tmp_path, "t", 0, 97.0, published=98.0)
    (table, times), _ = (
        (found := study("grid", [*runs, teacher], {"reference": "t", "times": {"a": 4}}, [gap])).tables,
        0,
    )
    heads, rows = table.grid()
    assert heads == ["", "SNN", "published", "SAKD", "published"]
    assert rows == [["first", "90.50 ± 0.71", "91.50", "–", "–"], ["second", "–", "–", "–", "unstable"]]
    assert table.notes == ("the teacher: 97.00, published 98.00",)
    assert times.rows[0][1][0].ours() == "2.0 ± 0.0 s"
    assert times.rows[0][1][0].theirs() == "4.0 s"
    assert to_data(table)["rows"][0] == ["first", "90.50 ± 0.71", "91.50", "–", "–"]
    assert found.pictures


def test_convergence_counts_epochs_by_hand(tmp_path):
    """The plain SNN's best is 60 at epoch 4; its 90 % is 54. The other passes 54 at epoch 1, 60 at epoch 2."""
    plain = made(tmp_path, "plain", 0, 59.0, row="plain SNN", column="long", curve=[20.0, 40.0, 55.0, 60.0, 58.0])
    fast = made(tmp_path, "fast", 0, 66.0, row="IDSNN", column="long", curve=[54.0, 60.0, 65.0, 64.0, 66.0])
    never = made(tmp_path, "never", 0, 41.0, row="KD", column="long", curve=[10.0, 20.0, 30.0, 40.0, 41.0])
    best, epochs = study(
        "convergence", [plain, fast, never], {"baseline": "plain", "shares": [0.9, 1.0], "speedup": {"fast": 13.7}}
    ).tables
    assert [row[1] for row in best.grid()[1]] == ["60.00", "66.00", "41.00"]
    assert [row[2] for row in best.grid()[1]] == ["4", "5", "5"]
    assert epochs.grid()[1] == [
        ["plain SNN, long", "3", "4", "1.0", "–"],
        ["IDSNN, long", "1", "2", "2.0", "13.7"],
        ["KD, long", "not in 5", "not in 5", "–", "–"],
    ]


def test_convergence_compares_seed_by_seed(tmp_path):
    runs = []
    for seed, best in ((0, 50.0), (1, 70.0)):
        runs.append(made(tmp_path, "plain", seed, 0.0, row="plain SNN", column="x", curve=[10.0, 20.0, 30.0, best]))
        runs.append(made(tmp_path, "fast", seed, 0.0, row="fast", column="x", curve=[10.0, 60.0, 80.0, 80.0]))
    _, epochs = study("convergence", runs, {"baseline": "plain", "shares": [1.0]}).tables
    # epochs 2 and 3 of the fast one, 4 of the plain one: 2 and 4/3 times fewer
    assert epochs.rows[1][1][0].values == (2.0, 3.0)
    assert epochs.rows[1][1][1].values == pytest.approx((2.0, 4 / 3))


def test_convergence_needs_held_out_images(tmp_path):
    with pytest.raises(UserError, match=r"data\.validation"):
        study("convergence", [made(tmp_path, "plain", 0, 1.0, row="a", column="b")], {"baseline": "plain"})


def test_noise_reads_what_was_measured(tmp_path):
    curve = {"0": 90.0, "0.01": 88.0, "0.03": 80.0}
    files = {"robustness.json": {"images": 2000, "timesteps": 4, "curves": {"gaussian": {"accuracy": curve}}}}
    run = made(tmp_path, "snn", 0, 90.0, column="plain SNN", files=files)
    options = {"kind": "gaussian", "strengths": [0.01, 0.03], "published": {0.01: {"plain SNN": 81.63}}}
    (table,) = study("noise", [run], options).tables
    assert table.grid()[1] == [["none", "90.00", "–"], ["0.01", "88.00", "81.63"], ["0.03", "80.00", "–"]]


def test_latency_takes_the_cheapest_exit_that_costs_little(tmp_path):
    exits = [
        {"confidence": 0.0, "timesteps": 1.0, "accuracy": 80.0},
        {"confidence": 0.9, "timesteps": 1.8, "accuracy": 89.6},
        {"confidence": 1.0, "timesteps": 4.0, "accuracy": 90.0},
    ]
    accuracy = {str(step): 80.0 + step for step in range(1, 9)} | {"4": 90.0}
    files = {"latency.json": {"images": 2000, "timesteps": 4, "accuracy": accuracy, "exits": exits}}
    by_steps, early = study("latency", [made(tmp_path, "a", 0, 90.0, row="SNN", files=files)], {"loss": 0.5}).tables
    assert by_steps.grid()[0][-1] == "T=8"
    assert early.grid()[1] == [["SNN", "89.60", "1.80", "0.900"]]


@pytest.mark.parametrize(("images", "timesteps", "taken"), [(2000, 4, True), (500, 4, False), (2000, 2, False)])
def test_what_was_measured_otherwise_is_not_taken(tmp_path, images, timesteps, taken):
    """By hand one measures with fewer images or another T; an experiment's table is of what the experiment says."""
    told = {"images": images, "timesteps": timesteps}
    run = made(tmp_path, "a", 0, 90.0, files={"latency.json": told, "energy.json": {"student": told}})
    assert (run.measured("latency.json", None) == told) is taken
    assert (run.measured("energy.json", 5000, "student") is not None) is taken
    assert run.measured("robustness.json", None) is None


def test_table_5_counts_the_first_layer_at_every_step():
    """T = 2: 10 MACs once and 30 accumulates: 20 multiplications, 20 + 30 additions."""
    layers = [
        {"passes": 1, "accumulates": 0.0, "multiply_accumulates": 10.0},
        {"passes": 2, "accumulates": 30.0, "multiply_accumulates": 0.0},
    ]
    assert as_table_5({"timesteps": 2, "layers": layers}) == (50.0, 20.0)
    assert as_table_5({"timesteps": None, "layers": layers[:1]}) == (10.0, 10.0)


def test_correlation_of_maps():
    maps = torch.rand(3, 4, 4)
    assert _correlation(maps, 2 * maps + 1) == pytest.approx(1.0)
    assert _correlation(maps, -maps) == pytest.approx(-1.0)
    assert _correlation(maps, torch.zeros(3, 4, 4)) == 0.0
