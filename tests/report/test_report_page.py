"""The page: what it says, that it is self-contained, that nothing from outside gets in unescaped."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from spikedistill.errors import UserError
from spikedistill.report import find_runs, read_run, summary_sentence, write_report, write_run_report
from spikedistill.report import sections as room
from spikedistill.report.bars import by_layer
from spikedistill.report.contents import Part
from spikedistill.report.groups import Spread
from spikedistill.report.plots import Series, loss_axis
from spikedistill.report.recipes import command, duration

VOID = {"meta", "link", "img", "br", "wbr", "hr", "input"}


class Reader(HTMLParser):
    """Tags, attributes and text of a page; fails where a tag is left open or closed twice."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def read(path: Path) -> Reader:
    return Reader(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def demo_page(tmp_path_factory, demo_runs) -> Path:
    root = tmp_path_factory.mktemp("demo")
    return write_report(find_runs(demo_runs(root / "runs")), root / "report.html")


def test_the_page_opens_with_the_main_result_in_figures(demo_page):
    text = read(demo_page).text
    assert "Taught by sakd, a spiking 2conv on digits reaches 97.89 ± 0.25 % in 4 timesteps" in text
    assert "(mean ± sd of 3 seeds, the best of 3 methods)" in text
    assert "1.50 points above the plain SNN of the same make, 0.31 points below its teacher" in text


def test_the_page_has_every_section_and_says_what_is_missing(demo_page):
    page = read(demo_page)
    ids = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert len(ids) == len(set(ids)) == len(room.SECTIONS)
    assert {f"#{name}" for name in ids} == {a["href"] for tag, a in page.tags if tag == "a"}
    assert "idsnn, seed 0: stopped after epoch 4 of 4, not counted." in page.text
    assert "evaluation.json is missing" in page.text
    assert "spikedistill train" in page.text and "optimiser: name: adamw" in page.text


def test_the_page_needs_nothing_from_outside(demo_page):
    page = read(demo_page)
    assert not {tag for tag, _ in page.tags} & {"script", "iframe", "object", "embed", "form"}
    for tag, attributes in page.tags:
        for key in ("src", "href"):
            assert (attributes.get(key) or "#").startswith(("#", "data:")), (tag, attributes)
    source = demo_page.read_text(encoding="utf-8")
    assert "@import" not in source and not re.search(r"url\((?!data:)", source)
    assert set(re.findall(r"https?://[^\s\"<]+", source)) <= {"http://www.w3.org/2000/svg"}
    assert demo_page.stat().st_size < 400_000


def test_every_chart_is_described_and_every_image_has_a_text(demo_page):
    page = read(demo_page)
    charts = [attributes for tag, attributes in page.tags if tag == "svg" and attributes.get("role") == "img"]
    assert len(charts) > 15 and all(chart["aria-label"] for chart in charts)
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert images and all(image["alt"] for image in images)


def test_no_number_in_a_chart_is_broken(demo_page):
    for tag, attributes in read(demo_page).tags:
        if tag in ("line", "rect", "circle", "path", "polygon", "text", "svg"):
            assert not re.search(r"nan|inf|None", " ".join(filter(None, attributes.values())).replace("info", "")), tag


def test_every_string_from_outside_is_escaped(make_run, tmp_path):
    bad = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
    named = {"name": bad, "student": {"model": bad}, bad: bad}
    told = {key: bad for key in ("method", "model", "dataset", "device", "torch", "commit")}
    told["published"] = {"figure": 90.0, "source": bad, "note": bad}
    path = make_run(config=named, summary=told, layers=(bad, "relu"), classes=[f"{bad}{index}" for index in range(10)])
    metrics = (path / "metrics.csv").read_text().replace("loss/task", '"loss/<script>x</script>"')
    (path / "metrics.csv").write_text(metrics)
    make_run("snn", summary=told, folder="second", config={"epochs": "<script>"})
    page = read(write_report(find_runs(tmp_path / "runs"), tmp_path, title=bad))
    assert not [tag for tag, _ in page.tags if tag == "script"]
    assert all((a.get("src") or "data:").startswith("data:") for tag, a in page.tags if tag == "img")
    assert not [a for _, a in page.tags if any(key.startswith("on") for key in a)]
    assert page.text.count("<script>alert(1)</script>") > 10


def test_a_single_run_and_a_single_epoch_make_a_page(make_run, tmp_path):
    run = make_run("kdsnn-response", accuracy=97.2, epochs=1, timesteps=1)
    page = read(write_report(find_runs(run), tmp_path / "one.html", title="One"))
    assert "97.20 % in 1 timestep (one seed): 1.00 point below its teacher." in page.text
    assert ("title", {}) in page.tags and "One" in page.text


def test_an_ann_has_no_spikes_to_show(make_run, tmp_path):
    run = make_run("ann", timesteps=4, summary={"timesteps": None, "firing_rate": 1.7})
    page = read(write_run_report(run))
    ids = {attributes["id"] for tag, attributes in page.tags if tag == "section"}
    assert ids == {"results", "learning-curves", "confusion-matrix", "loss", "what-was-run"}
    assert "The ANN 2conv on digits reaches 96.50 % (one seed)." in page.text and "170" not in page.text
    (run / "summary.json").unlink()
    assert read_run(run).timesteps is None


def test_a_folder_as_target_gets_a_report_html(make_run, tmp_path):
    assert write_report(find_runs(make_run()), tmp_path / "new" / "place") == tmp_path / "new" / "place" / "report.html"


@pytest.mark.parametrize("lost", [["evaluation.json"], ["metrics.csv"], ["evaluation.json", "metrics.csv"]])
def test_files_that_are_missing_are_named_and_the_rest_is_shown(make_run, tmp_path, lost):
    run = make_run("sakd")
    for name in lost:
        (run / name).unlink()
    text = read(write_report(find_runs(run), tmp_path)).text
    for name in lost:
        assert f"None of these runs has a {name}" in text
    assert ("Confusion matrix" in text) and "Taught by sakd" in text


def test_a_run_with_nothing_but_its_config_makes_a_page(make_run, tmp_path):
    run = make_run("sakd")
    for name in ("summary.json", "evaluation.json", "metrics.csv"):
        (run / name).unlink()
    assert "No run of 2conv on digits has come to its end yet." in read(write_report(find_runs(run), tmp_path)).text


def test_refusals(make_run, tmp_path):
    with pytest.raises(UserError, match="no runs"):
        write_report([], tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_report(find_runs(make_run()), tmp_path / "file" / "report.html")


def test_many_runs_get_panels_instead_of_one_tangle(make_run, tmp_path):
    for index in range(9):
        make_run(f"method-{index}", accuracy=96 + 0.1 * index)
    source = write_report(find_runs(tmp_path / "runs"), tmp_path).read_text(encoding="utf-8")
    curves = source.split('id="learning-curves"')[1].split("</section>")[0]
    assert curves.count("<svg viewBox") == 9


def test_several_data_sets_are_told_one_by_one(make_run, tmp_path):
    for dataset in ("mnist", "cifar10"):
        make_run("snn", dataset=dataset, accuracy=92.0)
        make_run("sakd", dataset=dataset, accuracy=93.0, summary={"published": {"figure": 93.5, "source": "x"}})
    sentence = summary_sentence(find_runs(tmp_path / "runs"))
    assert sentence.count("Taught by sakd") == 2
    assert "1.00 point above the plain SNN" in sentence and "0.50 points below the published figure" in sentence
    text = read(write_report(find_runs(tmp_path / "runs"), tmp_path)).text
    assert "4 runs on 2 data sets" in text and "2conv on mnist" in text


def test_two_networks_on_one_data_set_are_titled_by_it(make_run, tmp_path):
    for model in ("2conv", "lenet5"):
        make_run("snn", dataset="mnist", model=model)
    assert "2 runs on mnist" in read(write_report(find_runs(tmp_path / "runs"), tmp_path)).text


def test_a_hundred_classes_make_a_small_page(make_run, tmp_path):
    run = make_run("sakd", classes=[f"class {index}" for index in range(100)], accuracy=60.0)
    content = json.loads((run / "evaluation.json").read_text())
    content["confusion"] = [[1 + (i * j) % 3 for j in range(100)] for i in range(100)]
    (run / "evaluation.json").write_text(json.dumps(content))
    assert write_report(find_runs(run), tmp_path).stat().st_size < 500_000


def test_confusions_are_added_over_seeds(make_run, tmp_path):
    for seed in range(2):
        run = make_run("sakd", seed)
        content = json.loads((run / "evaluation.json").read_text())
        content |= {"confusion": [[5, 2 + seed], [0, 7]], "classes": ["cat", "dog"], "example": None}
        (run / "evaluation.json").write_text(json.dumps(content))
    source = write_report(find_runs(tmp_path / "runs"), tmp_path).read_text(encoding="utf-8")
    assert "5 of class cat taken for dog" in source and "14 of class dog right" in source


def test_a_new_section_is_one_entry(make_run, tmp_path, monkeypatch):
    monkeypatch.setitem(room.SECTIONS, "Noise", lambda report: Part("How it holds.", f"<p>{len(report.runs)} runs</p>"))
    monkeypatch.setitem(room.SECTIONS, "Nothing", lambda report: None)
    page = read(write_report(find_runs(make_run()), tmp_path))
    assert "How it holds." in page.text and "1 runs" in page.text and "Nothing" not in page.text


def test_the_shown_recipe_is_the_runs_own(make_run, tmp_path):
    run = make_run("sakd", settings={"tau": 20})
    source = write_report(find_runs(run), tmp_path).read_text(encoding="utf-8")
    shown = source.split("<pre><code>")[2].split("</code>")[0]
    assert yaml.safe_load(shown.replace("&#x27;", "'")) == yaml.safe_load((run / "config.yaml").read_text())


def test_durations_read_as_a_person_says_them():
    said = [duration(seconds) for seconds in (None, 3.14, 42.4, 192, 7500)]
    assert said == ["–", "3.1 s", "42 s", "3 min 12 s", "2 h 05 min"]


def test_a_baselines_name_is_escaped_in_the_headline(make_run, tmp_path):
    many = {f"option{number}": number for number in range(3)}
    make_run("snn", config={"name": "<img src=x onerror=alert(1)>", "extra": many}, folder="one")
    make_run("snn", config={"name": "plain"}, folder="two", accuracy=90.0)
    page = write_report(find_runs(tmp_path / "runs"), tmp_path / "page.html").read_text()
    assert "&lt;img src=x" in page and "<img src=x" not in page


def test_what_came_from_a_program_is_not_told_as_a_command(make_run, tmp_path):
    runs = (
        make_run("kdsnn-response", summary={"by_program": True}, folder="handed over"),
        make_run("snn", config={"student": None}, folder="network"),
        make_run("snn", dataset="own", folder="images"),
    )
    for path in runs:
        assert command(read_run(path)).startswith("sd.distill(...)")
    assert command(read_run(make_run("joint-asnn", folder="joint"))).startswith("spikedistill train")


def test_figures_that_nobody_measured_are_no_traceback(make_run, tmp_path):
    run = make_run("sakd")
    measured = json.loads((run / "evaluation.json").read_text())
    measured["confusion"][0][1] = -3
    (run / "evaluation.json").write_text(json.dumps(measured))
    assert write_report(find_runs(run), tmp_path / "page.html").is_file()
    assert by_layer({}, {}, "c1", "nobody's") == ""


def test_losses_below_zero_lie_on_the_axis():
    for values in ([-3.0, -1.0], [-2.0, -2.0], [0.0, 0.0], [1.0, 2.0]):
        low, high = loss_axis(
            [Series("a", "c1", [(x, Spread(1, y, None)) for x, y in enumerate(values)])], "loss"
        ).y_range
        assert low <= min(values) <= max(values) < high
