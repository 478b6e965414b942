"""The sections drawn from energy.json, robustness.json and latency.json, which only some runs have."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from spikedistill import UserError
from spikedistill.report import find_runs, write_report
from spikedistill.report.quantities import count, joules


def put(folder: Path, name: str, content: dict[str, Any]) -> None:
    (folder / name).write_text(json.dumps(content))


def page(tmp_path: Path) -> str:
    return write_report(find_runs(tmp_path / "runs"), tmp_path / "page.html").read_text()


def section(html: str, anchor: str) -> str:
    found = re.search(rf'<section id="{anchor}">.*?</section>', html, re.DOTALL)
    return found.group() if found else ""


def test_sections_are_there_for_runs_that_were_measured_only(make_run, tmp_path):
    make_run("snn", 0)
    html = page(tmp_path)
    assert not any(section(html, name) for name in ("energy", "robustness", "latency"))


def test_energy_stands_beside_the_ann_of_the_same_make(make_run, make_bill, tmp_path):
    for seed, computation in ((0, 300_000.0), (1, 340_000.0)):
        content = {
            "student": make_bill(computation),
            "twin": make_bill(960e3, None),
            "teacher": make_bill(3.59e6, None),
        }
        put(make_run("sakd", seed), "energy.json", content)
    shown = section(page(tmp_path), "energy")
    assert "320 ± 28 nJ" in shown  # the mean and the sample standard deviation of the two seeds
    assert "1 / 3" in shown  # 960 / 320
    assert "ANN of the same make" in shown
    assert "teacher 2conv" in shown
    assert "30.5k" in shown
    assert "114 nJ to 1.14 µJ" in shown
    assert "Horowitz 2014" in shown
    assert "fc, takes spikes: 240 nJ" in shown


def test_each_width_is_compared_with_its_own_ann(make_run, make_bill, tmp_path):
    """A wide and a narrow network, each a third of its own ANN; the wide one's is ten times the narrow one's."""
    for width, scale in ((16, 1.0), (64, 10.0)):
        student = {"model": "2conv", "width": width}
        twin = make_bill(960e3 * scale, None)
        twin["total"]["macs"] *= scale
        content = {"student": make_bill(320e3 * scale), "twin": twin, "teacher": None}
        put(make_run("snn", 0, config={"student": student}, folder=f"w{width}"), "energy.json", content)
    shown = section(page(tmp_path), "energy")
    assert shown.count('<td class="num">1 / 3</td>') == 2
    assert shown.count("ANN of the same make (") >= 2


def test_robustness_has_a_chart_a_kind(make_run, tmp_path):
    for seed in (0, 1):
        curve = {"summary": "noise; strength: sigma", "accuracy": {"0": 97.0, "0.1": 90.0 + seed, "0.3": 60.0}}
        put(make_run("snn", seed), "robustness.json", {"images": 10, "seed": seed, "curves": {"gaussian": curve}})
    shown = section(page(tmp_path), "robustness")
    assert "test accuracy under gaussian, %" in shown
    assert ">sigma<" in shown
    assert "plain SNN: 60 ± 0 (n = 2) at 0.3" in shown
    assert ">0.1<" in shown, "marks between whole numbers"


def test_latency_has_timesteps_and_early_exit(make_run, tmp_path):
    content = {
        "timesteps": 4,
        "accuracy": {str(t): 90.0 + t / 10 for t in range(1, 9)},
        "exits": [
            {"confidence": 0.0, "timesteps": 1.0, "accuracy": 90.1},
            {"confidence": 1.0, "timesteps": 4.0, "accuracy": 90.4},
        ],
    }
    put(make_run("snn", 0), "latency.json", content)
    shown = section(page(tmp_path), "latency")
    assert "at 8" in shown
    assert "timesteps used on average" in shown


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("energy.json", {"student": {"total": {}}}),
        ("energy.json", {"student": {"layers": 3}}),
        ("robustness.json", {"curves": {"gaussian": {"accuracy": {"none": 1}}}}),
        ("latency.json", {"accuracy": {"1": 90.0}, "exits": [{}]}),
        ("latency.json", {}),
    ],
)
def test_a_damaged_file_is_named(make_run, tmp_path, name, content):
    put(make_run("snn", 0), name, content)
    with pytest.raises(UserError, match=re.escape(name)):
        page(tmp_path)


@pytest.mark.parametrize(("value", "text"), [(0.9, "0.9 pJ"), (82_252_000.0, "82.3 µJ"), (1.0285e9, "1.03 mJ")])
def test_energies_have_three_digits_and_a_unit(value, text):
    assert joules(value) == text


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (305_400, "305k"), (7.39e6, "7.39M"), (1.8e9, "1.8G")])
def test_counts_have_three_digits(value, text):
    assert count(value) == text


def test_an_experiment_shows_its_table_its_picture_and_its_command(make_run, make_record, tmp_path):
    folder = make_run("snn", 0).parent
    (folder / "accuracy.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    (tmp_path / "secret.png").write_bytes(b"not to be shown")
    put(folder, "experiment.json", make_record())
    shown = section(page(tmp_path), "experiment")
    assert "90.00 ± 1.00" in shown
    assert '<td class="theirs num">94.99</td>' in shown
    assert "A &lt;small&gt; one." in shown
    assert "1 of 2 runs, seeds 0, device cpu, torch 2.13, commit abc" in shown
    assert "spikedistill experiment depth" in shown
    assert shown.count("<img") == 1
    assert "image/svg+xml" in shown


@pytest.mark.parametrize("changes", [{"tables": 3}, {"runs": None}, {"pictures": [{}]}, {"commit": [1]}])
def test_a_damaged_experiment_is_named(make_run, make_record, tmp_path, changes):
    put(make_run("snn", 0).parent, "experiment.json", make_record(**changes))
    with pytest.raises(UserError, match=r"experiment\.json"):
        page(tmp_path)


def test_bills_of_other_constants_are_left_out_and_named(make_run, make_bill, tmp_path):
    for seed in (0, 1):
        put(make_run("sakd", seed), "energy.json", {"student": make_bill(300e3), "twin": None, "teacher": None})
    other = make_bill(1e3)
    other["prices"] = other["prices"] | {"source": "somebody's own"}
    put(make_run("twld", 0), "energy.json", {"student": other, "twin": None, "teacher": None})
    shown = section(page(tmp_path), "energy")
    assert "300" in shown and "Horowitz 2014" in shown and "somebody" not in shown
    assert "Left out, as they were measured with other constants: digits-2conv-twld." in shown


def test_curves_on_other_images_or_timesteps_are_left_out_and_named(make_run, tmp_path):
    def curve(images: int, timesteps: int) -> dict[str, Any]:
        points = {"summary": "noise; strength: sigma", "accuracy": {"0": 97.0, "0.1": 90.0}}
        return {"images": images, "timesteps": timesteps, "seed": 0, "curves": {"gaussian": points}}

    put(make_run("snn", 0), "robustness.json", curve(500, 4))
    put(make_run("sakd", 0), "robustness.json", curve(500, 4))
    put(make_run("twld", 0), "robustness.json", curve(100, 4))
    put(make_run("idsnn", 0), "robustness.json", curve(500, 2))
    shown = section(page(tmp_path), "robustness")
    assert "Measured on 500 test images. Left out of " in shown
    assert "as measured on other images or with another T: digits-2conv-idsnn, digits-2conv-twld." in shown
