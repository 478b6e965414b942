"""The comparison: grouping, means and deviations against hand-computed values, and its three forms."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from spikedistill.report import find_runs, print_table, table, to_html, to_markdown
from spikedistill.report.contents import arrange
from spikedistill.report.groups import spread
from spikedistill.report.quantities import count as told
from spikedistill.report.quantities import joules, points
from spikedistill.report.table import Row, Table

PUBLISHED = {"figure": 96.5, "source": "KDSNN table 1", "timesteps": 6, "note": ""}


MANY = [f"a_setting_with_a_long_name_{number}" for number in range(3)]


def rows_by_label(compared: Table) -> dict[str, Row]:
    return {row.group.label: row for row in compared.rows}


@pytest.fixture
def compared(make_run, tmp_path) -> Table:
    for seed, (plain, taught) in enumerate([(96.0, 97.0), (96.4, 97.6), (96.2, 97.9)]):
        make_run("snn", seed, accuracy=plain)
        make_run("kdsnn-response", seed, accuracy=taught, teacher=98.0 + 0.3 * seed, summary={"published": PUBLISHED})
    make_run("ann", 0, accuracy=98.3, timesteps=None, teacher=None)
    return table(find_runs(tmp_path / "runs"))


def test_mean_sd_and_differences_are_the_hand_computed_ones(compared):
    taught = rows_by_label(compared)["kdsnn-response"]
    assert taught.accuracy is not None and taught.accuracy.sd is not None
    # (97.0 + 97.6 + 97.9) / 3 = 97.5; squared deviations 0.25 + 0.01 + 0.16 = 0.42, over n - 1 = 2.
    assert taught.accuracy.n == 3 and taught.accuracy.mean == pytest.approx(97.5)
    assert taught.accuracy.sd == pytest.approx(math.sqrt(0.21))
    assert taught.teacher == pytest.approx(98.3)
    assert taught.to_teacher == pytest.approx(-0.8)
    assert taught.gain == pytest.approx(97.5 - 96.2)
    assert taught.to_published == pytest.approx(1.0)
    assert rows_by_label(compared)["plain SNN"].gain is None
    assert compared.notes == ["kdsnn-response: the published figure is for T = 6"]


def test_a_single_value_has_no_deviation_and_none_no_mean():
    one = spread([97.0, None])
    assert one is not None and (one.n, one.mean, one.sd) == (1, 97.0, None)
    assert spread([None]) is None and spread([]) is None


def test_the_baselines_come_first_and_the_rest_by_accuracy(make_run, tmp_path):
    for method, accuracy in {"sakd": 97.0, "snn": 99.0, "idsnn": 98.0}.items():
        make_run(method, accuracy=accuracy)
    make_run("ann", timesteps=None)
    assert list(rows_by_label(table(find_runs(tmp_path / "runs")))) == ["ANN", "plain SNN", "idsnn", "sakd"]


def test_variants_of_a_method_are_told_apart_by_what_differs(make_run, tmp_path):
    for seed in range(2):
        for alpha in (0.1, 0.5):
            make_run("sakd", seed, settings={"alpha": alpha, "beta": 100}, folder=f"a{alpha}-{seed}")
    make_run("sakd", 0, settings={"alpha": 0.1, "beta": 100}, timesteps=2, folder="t2")
    compared = table(find_runs(tmp_path / "runs"))
    assert [(row.group.label, row.group.timesteps, row.seeds) for row in compared.rows] == [
        ("sakd (alpha=0.1)", 2, "0"),
        ("sakd (alpha=0.1)", 4, "0 1"),
        ("sakd (alpha=0.5)", 4, "0 1"),
    ]


def test_variants_that_differ_in_much_are_told_apart_by_recipe(make_run, tmp_path):
    make_run("sakd", settings={"a": 1, "b": 1, "c": 1}, folder="one", config={"name": "paper"})
    make_run("sakd", settings={"a": 2, "b": 2, "c": 2}, folder="two", config={"name": "ours"})
    assert set(rows_by_label(table(find_runs(tmp_path / "runs")))) == {"sakd (paper)", "sakd (ours)"}


def test_variants_of_one_recipe_that_differ_in_much_are_told_apart_by_folder(make_run, tmp_path):
    for seed in range(2):
        for number, folder in enumerate(("small-joint", "small-joint-wft-only", "small-joint-branch")):
            settings = dict.fromkeys(MANY, number)
            make_run(
                "joint-asnn", seed, settings=settings, folder=f"{folder}-seed{seed}", config={"name": "small-joint"}
            )
    labels = set(rows_by_label(table(find_runs(tmp_path / "runs"))))
    assert labels == {"joint-asnn", "joint-asnn (wft-only)", "joint-asnn (branch)"}


def test_variants_in_folders_without_a_common_name_are_numbered(make_run, tmp_path):
    for number in range(2):
        for seed in range(2):
            folder = f"{number}{seed}"
            make_run("tet", seed, settings=dict.fromkeys(MANY, number), folder=folder, config={"name": "mine"})
    assert set(rows_by_label(table(find_runs(tmp_path / "runs")))) == {"tet #1", "tet #2"}


def test_seeds_with_their_own_teachers_and_folders_share_a_row(make_run, tmp_path):
    for seed in range(3):
        make_run("idsnn", seed, config={"teacher": {"model": "2conv", "path": f"t{seed}"}, "out": f"o{seed}"})
    (row,) = table(find_runs(tmp_path / "runs")).rows
    assert row.accuracy is not None and row.accuracy.n == 3 and row.seeds == "0 1 2"


def test_a_record_older_than_an_optional_setting_shares_the_row_of_newer_ones(make_run, tmp_path):
    make_run("snn", 0, config={"data": {"name": "digits"}})
    make_run("snn", 1, config={"data": {"name": "digits", "resize": None}, "clip": None})
    make_run("snn", 2, config={"data": {"name": "digits", "resize": 12}})
    found = table(find_runs(tmp_path / "runs")).rows
    assert sorted(row.group.seeds for row in found) == [[0, 1], [2]]


def test_rows_of_other_sizes_are_said_not_to_compare(make_run, tmp_path):
    make_run("snn", 0, config={"data": {"name": "digits", "subset": 100}})
    make_run("sakd", 0, config={"data": {"name": "digits", "subset": 100}})
    wider = {"data": {"name": "digits", "subset": 100}, "student": {"model": "2conv", "width": 64}}
    make_run("ann", 0, timesteps=None, teacher=None, config=wider)
    assert not any("rows differ" in note for note in table(find_runs(tmp_path / "runs")).notes)
    make_run("tet", 0, config={"data": {"name": "digits"}, "student": {"model": "2conv", "width": 8}})
    runs = find_runs(tmp_path / "runs")
    said = "2conv on digits: the rows differ in data.subset, student.width; only those that are alike in that compare"
    assert said in table(runs).notes
    assert said in arrange(runs).blocks[0].table.notes


def test_one_seed_under_two_teachers_is_two_rows(make_run, tmp_path):
    for teacher in ("resnet34", "pyramidnet18"):
        make_run("sakd", 0, folder=teacher, config={"name": f"with-{teacher}", "teacher": {"path": teacher}})
    labels = set(rows_by_label(table(find_runs(tmp_path / "runs"))))
    assert labels == {"sakd (with-resnet34)", "sakd (with-pyramidnet18)"}


def test_a_run_counted_twice_is_said(make_run, tmp_path):
    make_run("snn", 0, folder="a")
    make_run("snn", 0, folder="b")
    compared = table(find_runs(tmp_path / "runs"))
    assert compared.notes == ["plain SNN: seed 0 was run more than once and counts each time"]


def test_the_gain_is_over_the_plain_snn_trained_alike(make_run, tmp_path):
    make_run("snn", accuracy=90.0, epochs=5, folder="short")
    make_run("snn", accuracy=95.0, epochs=10, folder="long")
    make_run("sakd", accuracy=96.0, epochs=10)
    make_run("idsnn", accuracy=96.0, epochs=7)
    rows = rows_by_label(table(find_runs(tmp_path / "runs")))
    assert rows["sakd"].gain == pytest.approx(1.0)
    assert rows["idsnn"].gain is None


def test_an_unlike_plain_snn_is_named(make_run, tmp_path):
    make_run("snn", accuracy=90.0, epochs=5)
    make_run("sakd", accuracy=96.0, epochs=10)
    compared = table(find_runs(tmp_path / "runs"))
    assert rows_by_label(compared)["sakd"].gain == pytest.approx(6.0)
    assert compared.notes == ["sakd: the plain SNN it is measured against differs in epochs"]


def test_rows_that_differ_in_the_same_share_a_line(make_run, tmp_path):
    make_run("snn", accuracy=90.0, epochs=5)
    for method in ("sakd", "tet"):
        make_run(method, accuracy=96.0, epochs=10)
    assert table(find_runs(tmp_path / "runs")).notes == [
        "sakd, tet: the plain SNN they are measured against differs in epochs"
    ]


def test_a_stopped_run_counts_for_nothing_and_is_said(make_run, tmp_path):
    make_run("sakd", 0, accuracy=97.0)
    (make_run("sakd", 1, epochs=10) / "summary.json").unlink()
    compared = table(find_runs(tmp_path / "runs"))
    (row,) = compared.rows
    assert row.accuracy is not None and (row.accuracy.n, row.accuracy.mean, row.seeds) == (1, 97.0, "0")
    assert compared.notes == ["sakd, seed 1: stopped after epoch 10 of 10, not counted"]


def test_differences_carry_their_sign():
    assert [points(value) for value in (0.5, -0.5, 0.001, -0.001, None)] == ["+0.50", "−0.50", "+0.00", "±0.00", "–"]


def test_markdown_carries_every_figure_with_its_provenance(compared):
    text = to_markdown(compared)
    lines = text.splitlines()
    assert "| digits | 2conv | kdsnn-response | 4 | 3 | 97.50 ± 0.46 | +1.30 | 98.30 | −0.80 | 96.50 | +1.00 |" in text
    assert all(line.endswith("| cpu | 2.13.0 | 0123456789 |") for line in lines[2:5])
    assert len({line.count("|") for line in lines[:5]}) == 1
    assert "Published: KDSNN table 1." in text


def test_a_record_tells_what_the_network_reaches_when_it_is_stopped_earlier(make_run, tmp_path):
    for seed, first in ((0, 70.0), (1, 72.0)):
        told = {"accuracy_per_timestep": {"1": first, "2": 75.5, "10": 77.0, "3": 76.0}}
        (make_run("twld", seed, accuracy=77.0, timesteps=10, summary=told) / "evaluation.json").unlink()
    make_run("ann", timesteps=None, summary={"accuracy_per_timestep": {"1": 80.0}})
    ann, twld = table(find_runs(tmp_path / "runs")).rows
    means = {step: value.mean for step, value in twld.group.accuracy_per_timestep.items()}
    assert means == {1: 71, 2: 75.5, 3: 76, 10: 77}
    assert twld.group.accuracy_per_timestep[1].sd == pytest.approx(2**0.5)
    assert ann.group.accuracy_per_timestep == {}
    assert "| 71.00 / 75.50 / 76.00 |" in to_markdown(find_runs(tmp_path / "runs"))


def test_markdown_of_odd_names_stays_a_table(make_run, tmp_path):
    make_run(dataset="a|b\nc", model="<script>`*_", folder="odd")
    header, _, row = to_markdown(table(find_runs(tmp_path / "runs"))).splitlines()[:3]
    assert row.replace("\\|", "").count("|") == header.count("|")
    assert "<script" not in row.replace("\\<", "")


def test_runs_may_be_given_instead_of_a_table(make_run, tmp_path):
    make_run("snn")
    runs = find_runs(tmp_path / "runs")
    assert to_markdown(runs) == to_markdown(table(runs))


def test_what_a_method_brings_along_is_no_unlike_training(make_run, tmp_path):
    make_run("snn", config={"init": {"kind": "random"}, "description": "plain", "neuron": {"decay": 0.5}})
    make_run("idsnn", config={"init": {"kind": "resample"}, "description": "taught", "neuron": {"decay": 0.5}})
    make_run("sakd", config={"init": {"kind": "random"}, "neuron": {"decay": 1.0}})
    notes = table(find_runs(tmp_path / "runs")).notes
    assert notes == ["sakd: the plain SNN it is measured against differs in neuron.decay"]


def test_what_was_published_beside_the_figure_is_told(make_run, tmp_path):
    make_run("sakd", summary={"published": {"figure": 94.99, "source": "SAKD", "baseline": 94.33, "teacher": 95.6}})
    assert "Published: SAKD (there: plain SNN 94.33, teacher 95.60)." in to_markdown(find_runs(tmp_path / "runs"))


def test_what_was_published_beside_several_figures_is_told_apart(make_run, tmp_path):
    for data, baseline in (("mnist", 95.04), ("mnist-rotated", 94.43)):
        published = {"figure": 96.0, "source": "KDSNN table 2", "baseline": baseline}
        make_run("snn", dataset=data, summary={"published": published | {"baseline": None}})
        make_run("kdsnn-response", dataset=data, summary={"published": published})
    assert (
        "\nPublished: KDSNN table 2 (there mnist: plain SNN 95.04; mnist-rotated: plain SNN 94.43).\n"
        in to_markdown(find_runs(tmp_path / "runs"))
    )


def test_the_terminal_table_fits_80_columns(compared):
    out = io.StringIO()
    print_table(compared, Console(file=out, width=80))
    shown = out.getvalue()
    assert max(map(len, shown.splitlines())) <= 80
    row = next(line for line in shown.splitlines() if line.strip().startswith("kdsnn-response "))
    assert row.split() == [
        *("kdsnn-response", "4", "3", "97.50", "±", "0.46", "+1.30", "98.30", "−0.80", "96.50", "+1.00", "15.10")
    ]
    assert "seeds 0 1 2, device cpu, torch 2.13.0, commit 0123456789" in " ".join(shown.split())


def test_the_terminal_does_not_read_names_as_markup(make_run, tmp_path):
    make_run("sakd[red]", dataset="[bold]d", folder="odd")
    out = io.StringIO()
    print_table(table(find_runs(tmp_path / "runs")), Console(file=out, width=100))
    assert "sakd[red]" in out.getvalue() and "[bold]d" in out.getvalue()


def test_sizes_are_told_to_three_digits(make_run, tmp_path):
    sizes = {7387338: "7.39M", 49674: "49.7k", 640: "640"}
    for count in sizes:
        make_run(f"method-{count}", summary={"parameters": count})
    text = to_markdown(find_runs(tmp_path / "runs"))
    assert all(f"| {told} |" in text for told in sizes.values())


def test_html_leaves_out_columns_that_say_nothing(make_run, tmp_path, compared):
    assert "vs published" in to_html(compared)
    bare = tmp_path / "bare"
    make_run(folder=str(bare / "one"))
    assert "vs published" not in to_html(table(find_runs(bare)))


def test_data_of_one_name_but_of_other_test_images_are_no_seeds_of_one_another(make_run, tmp_path):
    for seed, method, accuracy, test_set in (
        (0, "snn", 55.0, "flowers"),
        (0, "sakd", 93.0, "cars"),
        (1, "sakd", 71.0, "birds"),
    ):
        folder = f"{method}-{test_set}"
        make_run(method, seed, accuracy=accuracy, dataset="own", summary={"test_set": test_set}, folder=folder)
    rows = table(find_runs(tmp_path / "runs")).rows
    assert sorted(row.group.dataset for row in rows) == ["own (birds)", "own (cars)", "own (flowers)"]
    assert all(row.accuracy.n == 1 and row.gain is None for row in rows)


def test_a_page_names_rows_as_its_table_does(make_run, tmp_path):
    """Runs that differ in too much for a label have numbers, which must not depend on the order of reading."""
    for number, accuracy in enumerate((80.0, 90.0)):
        config = {
            "optimiser": {"name": "adamw", "lr": 0.1 + number},
            "schedule": {"name": f"s{number}", "warmup": number},
        }
        make_run("sakd", 0, accuracy=accuracy, epochs=10 + number, config=config, folder=f"r{number}")
    report = arrange(find_runs(tmp_path / "runs"))
    (block,) = report.blocks
    assert [row.group.label for row in block.table.rows] == block.names


def test_a_setting_left_out_is_the_same_as_its_default_written_out(make_run, tmp_path):
    for seed, settings in enumerate(({}, {"beta": 100}, {"beta": 100.0})):
        make_run("sakd", seed, settings=settings)
    make_run("sakd", 0, settings={"beta": 50}, folder="halved")
    compared = table(find_runs(tmp_path / "runs"))
    assert [(row.group.label, row.seeds) for row in compared.rows] == [
        ("sakd (beta=100)", "0 1 2"),
        ("sakd (beta=50)", "0"),
    ]


def test_a_folder_named_after_the_method_does_not_say_so_twice(make_run, tmp_path):
    for seed in (0, 1):
        make_run("idsnn", seed, settings={"alpha": 0.3, "temperature": 2}, folder=f"idsnn-seed{seed}")
        many = {"teacher": {"model": "vgg11"}, "method": {"name": "idsnn", "alpha": 0.1}, "epochs": 3, "batch_size": 7}
        make_run("idsnn", seed, config=many, folder=f"idsnn-long-seed{seed}")
    labels = {row.group.label for row in table(find_runs(tmp_path / "runs")).rows}
    assert labels == {"idsnn", "idsnn (long)"}


def test_constants_that_were_measured_on_a_seeds_images_do_not_split_a_row(make_run, tmp_path):
    for seed in range(3):
        make_run("snn", seed, config={"normalisation": [[0.1 + seed / 1000], [0.3]]})
    (row,) = table(find_runs(tmp_path / "runs")).rows
    assert row.accuracy is not None and row.accuracy.n == 3 and row.group.label == "plain SNN"


def test_runs_that_start_from_other_networks_are_not_one_row(make_run, tmp_path):
    for path, accuracy in (("runs/r34", 80.0), ("runs/r50", 90.0)):
        init = {"init": {"kind": "resample", "path": path}}
        make_run("idsnn", accuracy=accuracy, config=init, folder=f"idsnn-from-{path[-3:]}")
    rows = table(find_runs(tmp_path / "runs")).rows
    assert [(row.accuracy.n, row.accuracy.mean) for row in rows if row.accuracy] == [(1, 90.0), (1, 80.0)]


@pytest.mark.parametrize(
    ("number", "counted", "energy"),
    [
        (0.9, "0.9", "0.9 pJ"),
        (999.7, "1k", "1 nJ"),
        (999_700, "1M", "1 µJ"),
        (82_300_000, "82.3M", "82.3 µJ"),
        (2.5e12, "2.5T", "2.5 J"),
        (2.5e15, "2,500T", "2,500 J"),
    ],
)
def test_quantities_have_three_digits_and_a_unit(number, counted, energy):
    assert (told(number), joules(number)) == (counted, energy)


def test_two_sets_of_seeds_with_teachers_of_their_own_are_two_rows(make_run, tmp_path):
    for place, start in (("first", 90.0), ("second", 80.0)):
        for seed in range(3):
            teacher = {"teacher": {"model": "2conv", "path": f"runs/{place}/ann-seed{seed}"}}
            make_run("sakd", seed, accuracy=start + seed, config=teacher, folder=f"{place}-seed{seed}")
    rows = [row.accuracy for row in table(find_runs(tmp_path / "runs")).rows]
    assert [(one.n, one.mean) for one in rows if one] == [(3, 91.0), (3, 81.0)]
