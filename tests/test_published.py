"""The recipes of the papers' tables: every printed figure has its recipe, trained as the paper says.

Figures and settings are typed from the papers, not read from the recipes. ``published.csv`` has every figure of a
student, plain SNNs included, that a table prints for its own method, in the order of the papers' tables; ``plain snn``
and ``teacher`` are empty where the paper prints none for the row. T is 4 where KDSNN and SAKD print none, and that of
the row of the same figure in another table in IDSNN (6) and Joint A-SNN (4). Not there: 68.04 in SAKD table 3, an
erratum for 66.09, and 71.37 in IDSNN table 4, which is the same run as 73.02 at an earlier epoch.
"""

import csv
import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from spikedistill.models.registry import options_of
from spikedistill.recipe import ModelSettings, Published, Recipe
from spikedistill.recipebook import list_recipes, read_recipe
from spikedistill.runlist import plan as plan_runs
from spikedistill.runlist import read_run_list
from spikedistill.sweep import PAPER, read_sweep
from spikedistill.sweep import plan as plan_experiment

PAPERS = ("kdsnn", "sakd", "idsnn", "joint")
DATASETS = {
    "mnist": "ylecun/mnist",
    "mnist-rotated": "mnist-rotated",
    "mnist-background-random": "mnist-background-random",
    "mnist-background-image": "mnist-background-image",
    "mnist-rotated-background-image": "mnist-rotated-background-image",
    "cifar10dvs": "cifar10-dvs",
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
    "tinyimagenet": "zh-plus/tiny-imagenet",
    "imagenet": "ILSVRC/imagenet-1k",
}
NAMES = [name for name in list_recipes() if name.split("-")[0] in PAPERS and "supernet" not in name]

ROOT = Path(__file__).resolve().parent.parent
CAMPAIGNS = sorted((ROOT / "results" / "campaigns").glob("*.yaml"))
NOISE = "experiment noise "

# SAKD's beta 500 and 1000 (table 8) and ResNet-101 elsewhere than block/after (table 10): printed as "unstable".
UNSTABLE = {
    *("sakd-cifar100-resnet18-beta500", "sakd-cifar100-resnet18-beta1000"),
    *(f"sakd-cifar100-resnet101-features-{place}" for place in ("stage-before", "block-before", "stage-after")),
}

NEURONS: dict[str, dict[str, Any]] = {
    "kdsnn": {"decay": 1.0, "fires_on": ">="},
    "sakd": {"decay": 0.5, "threshold": 1.0, "fires_on": ">=", "surrogate": "triangle"},
    "idsnn": {"decay": 0.25, "threshold": 0.5, "fires_on": ">", "surrogate": "rectangle", "width": 0.5}
    | {"detach_reset": True},
    "joint": {"fires_on": ">", "surrogate": "triangle"},
}
POSITIONS = {
    "resnet18": ("stage", "after"),
    "resnet34": ("stage", "before"),
    "resnet50": ("stage", "before"),
    "resnet101": ("block", "after"),
    "resnet152": ("block", "after"),
}
DEEP = ("resnet50", "resnet101", "resnet152")


@cache
def shipped(name: str) -> Recipe:
    """A recipe as it is shipped, read once for all tests, which leave it alone."""
    return read_recipe(name)


def transcribed() -> dict[str, Published]:
    """What the papers print, by the recipe that is the row (or by the experiment and the place in its table)."""
    with Path(__file__).with_name("published.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = {
        row["recipe"]: Published(
            figure=float(row["figure"]),
            source=row["printed in"],
            timesteps=int(row["timesteps"]),
            baseline=float(row["plain snn"]) if row["plain snn"] else None,
            teacher=float(row["teacher"]) if row["teacher"] else None,
        )
        for row in rows
    }
    assert len(found) == len(rows)
    return found


PRINTED = transcribed()
RECIPES = [name for name in PRINTED if not name.startswith(NOISE)]


def parts(name: str, recipe: Recipe) -> tuple[str, str, str, str]:
    """Paper, data set, network and variant of a recipe's name."""
    paper, _, behind = name.partition("-")
    dataset = dataset_of(name)
    rest = behind[len(dataset) + 1 :]
    assert recipe.student is not None
    model = recipe.student.model
    assert rest == model or rest.startswith(f"{model}-"), f"{name} trains a {model}"
    return paper, dataset, model, rest[len(model) + 1 :]


def dataset_of(name: str) -> str:
    """The data set in a recipe's name: the longest that fits."""
    behind = name.partition("-")[2]
    return max((dataset for dataset in DATASETS if behind.startswith(f"{dataset}-")), key=len)


def tables(source: str) -> list[tuple[str, int]]:
    """The tables a source names: 'SAKD tables 5, 6 and 10' to the paper and each number."""
    match = re.fullmatch(r"(.+?) tables? ([\d, and]+)", source)
    assert match, source
    return [(match[1], int(number)) for number in re.findall(r"\d+", match[2])]


def student_training(recipe: Recipe) -> tuple[Any, ...]:
    optimizer, schedule = recipe.optimizer, recipe.schedule
    return recipe.epochs, optimizer.name, optimizer.lr, schedule.name, schedule.warmup


def taught(recipe: Recipe) -> bool:
    return recipe.method["name"] not in ("snn", "joint-asnn") or recipe.init.kind != "random"


@pytest.mark.parametrize("name", NAMES)
def test_a_name_says_paper_data_network_and_what_differs(name: str) -> None:
    recipe = shipped(name)
    paper, dataset, _, variant = parts(name, recipe)
    words = variant.split("-")
    assert recipe.data.name == DATASETS[dataset]
    assert [word for word in words if re.fullmatch(r"t\d", word)] == (
        [] if recipe.timesteps == 4 else [f"t{recipe.timesteps}"]
    )
    assert ("snn" in words) == (recipe.method["name"] == "snn" and recipe.init.kind == "random")
    assert (recipe.teacher is not None) == taught(recipe)
    named = words[words.index("teacher") + 1 :] if "teacher" in words else []
    if paper == "kdsnn" and "snn" not in words:
        kind, *named = words
        assert recipe.method["name"] == f"kdsnn-{kind}"
    if named:
        assert recipe.teacher is not None and recipe.teacher.model == "-".join(named)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_opens_with_the_command_that_runs_it(name: str) -> None:
    text = (resources.files("spikedistill") / "recipes" / f"{name}.yaml").read_text()
    command = text.partition("\nname:")[0]
    dataset = dataset_of(name).partition("-")[0]
    assert re.match(rf"# spikedistill train {re.escape(name)} (\\\n# +)?data.path=/where/{dataset}/lies\b", command)
    assert "images x" in command
    assert max(map(len, text.splitlines())) <= 120


def test_every_row_of_the_tables_has_its_recipe_and_no_other_figure_is_claimed() -> None:
    claimed = {name for name in list_recipes() if shipped(name).published is not None}
    assert claimed == set(RECIPES)
    assert set(NAMES) - claimed == UNSTABLE


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_carries_the_row_that_the_paper_prints(name: str) -> None:
    published = shipped(name).published
    assert published is not None
    assert published.model_copy(update={"note": ""}) == PRINTED[name]
    assert published.timesteps == shipped(name).timesteps


def test_the_experiment_on_noise_carries_the_rows_that_no_recipe_is() -> None:
    sweep = read_sweep("noise")
    rows = {name.removeprefix(NOISE): row for name, row in PRINTED.items() if name.startswith(NOISE)}
    assert sweep.options["published"] == {
        sigma: {"ANN": row.teacher, "plain SNN": row.baseline, "KDSNN": row.figure} for sigma, row in rows.items()
    }
    assert {float(sigma) for sigma in rows} <= set(sweep.options["strengths"])
    runs = {one.cell.column: one.recipe for one in plan_experiment(sweep, PAPER, Path("out"), [])}
    assert {column: trained(run) for column, run in runs.items()} == {
        "ANN": (DATASETS["cifar10"], "resnet18", "ann", 4),
        "plain SNN": (DATASETS["cifar10"], "vgg11", "snn", 4),
        "KDSNN": (DATASETS["cifar10"], "vgg11", "kdsnn-response", 4),
    }


@pytest.mark.parametrize("file", CAMPAIGNS, ids=lambda file: file.stem)
def test_a_campaigns_figures_are_those_of_the_row_of_its_network_and_method(file: Path) -> None:
    for planned in plan_runs(read_run_list(file), Path("out"), []):
        ours, published = planned.recipe, planned.recipe.published
        if published is None:
            continue
        rows = [PRINTED[name] for name in RECIPES if trained(shipped(name)) == trained(ours)]
        rows = [row for row in rows if printed_in(published, row)]
        assert {row.figure for row in rows} == {published.figure}, planned.name
        assert published.timesteps == ours.timesteps, planned.name
        assert {published.baseline} <= {None, *(row.baseline for row in rows)}, planned.name
        assert {published.teacher} <= {None, *(row.teacher for row in rows)}, planned.name


def printed_in(published: Published, row: Published) -> bool:
    """Whether a figure is said to stand in one of the places where a row does."""
    if "section" in published.source or "section" in row.source:
        return published.source == row.source
    return set(tables(published.source)) <= set(tables(row.source))


def trained(recipe: Recipe) -> tuple[str, str, str, int]:
    """What tells a row of a table from its others: data set, network, method and T."""
    assert recipe.student is not None
    return recipe.data.name, recipe.student.model, recipe.method["name"], recipe.timesteps


def test_the_page_of_rows_names_every_teacher_that_is_narrower_than_the_papers() -> None:
    text = (ROOT / "docs" / "published.md").read_text()
    told = re.findall(r"^ +\| `(.+)` \| (\d+) \| (\d+) \|$", text, flags=re.M)
    narrow = {}
    for name in RECIPES:
        recipe = shipped(name)
        assert recipe.student is not None and full_width(recipe.student)
        if recipe.teacher is not None and not full_width(recipe.teacher):
            assert (recipe.teacher.model, recipe.teacher.width) == ("resnet18", 16)
            narrow[name] = (recipe.epochs, recipe.teacher.epochs)
    assert {name: (int(ours), int(theirs)) for name, ours, theirs in told} == narrow


def full_width(network: ModelSettings) -> bool:
    return network.width in (None, options_of(network.model)["width"].default)


@pytest.mark.parametrize("name", NAMES)
def test_the_neuron_is_the_papers(name: str) -> None:
    recipe = shipped(name)
    chosen = recipe.neuron.model_dump()
    expected = NEURONS[name.split("-")[0]]
    assert {key: chosen[key] for key in expected} == expected
    assert recipe.encoding == "direct"


@pytest.mark.parametrize("name", NAMES)
def test_all_training_images_with_the_augmentation_of_the_papers(name: str) -> None:
    data = shipped(name).data
    assert data.validation == 0.0
    assert data.subset is None
    kind = dataset_of(name).partition("-")[0]
    crops = {"mnist": (), "imagenet": ("resizedcrop", "flip"), "cifar10dvs": ("crop:4",)}
    assert data.augment == crops.get(kind, ("crop:4", "flip"))
    assert data.size == {"imagenet": 224, "cifar10dvs": 48}.get(kind)
    assert data.frames == shipped(name).timesteps or kind != "cifar10dvs"


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("sakd-")])
def test_sakd_trains_as_in_appendix_a1_and_section_4_4(name: str) -> None:
    recipe = shipped(name)
    _, dataset, model, variant = parts(name, recipe)
    deep = model in DEEP
    if dataset == "imagenet":
        assert student_training(recipe) == (120, "adamw", 0.001, "cosine", 5 if deep else 0)
        assert recipe.student is not None and recipe.student.stem == "imagenet"
    else:
        cifar = (200, "adamw", 0.01, "cosine", 5) if deep else (200, "sgd", 0.1, "cosine", 0)
        assert student_training(recipe) == cifar
    assert recipe.schedule.min_lr == 0.0
    started = dataset == "imagenet" and (not variant or "init" in variant or "torch" in variant)
    assert recipe.init.kind == ("copy" if started else "random")
    if recipe.teacher is not None and "teacher" not in variant:
        assert recipe.teacher.model == model
    if recipe.method["name"] == "sakd":
        check_sakd_method(recipe, dataset, model, variant)


def check_sakd_method(recipe: Recipe, dataset: str, model: str, variant: str) -> None:
    method = recipe.method_settings()
    whole = (1.0, 10.0, 10.0, 1.0) if dataset == "imagenet" else (0.0, 100.0, 1.0, 20.0)
    if variant in ("", "torch", "logits-features") or "teacher" in variant:
        assert (method.alpha, method.beta, method.gamma, method.temperature) == whole
    if dataset == "imagenet" and method.beta:
        assert (method.beta_until, method.beta_after) == (10, 0.01)
    else:
        assert method.beta_until is None
    if "features" in variant and dataset == "cifar100":
        assert method.gamma == 0.0 and method.alpha > 0.0
    elif method.uses_features and model in POSITIONS:
        assert (method.level, method.side) == POSITIONS[model]
    if variant.startswith("beta"):
        assert method.beta == float(variant.removeprefix("beta"))
    for level in ("stage", "block"):
        for side in ("before", "after"):
            if variant == f"features-{level}-{side}":
                assert (method.level, method.side) == (level, side)
    assert method.transform == (variant.rpartition("-")[2] if "transform" in variant else "conv")
    assert method.distance == ("l1" if variant.endswith("l1") else "l2")
    if dataset == "imagenet" and variant:
        said = variant.split("-")
        everything = "torch" in said or "teacher" in said
        assert (method.gamma > 0) == ("logits" in said or everything)
        assert (method.beta > 0) == ("features" in said or everything)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("idsnn-")])
def test_idsnn_trains_as_in_section_4_1_and_its_two_switches(name: str) -> None:
    recipe = shipped(name)
    variant = parts(name, recipe)[3]
    words = variant.split("-")
    milestones = tuple(int(word) for word in words if word.isdigit()) or (60, 120, 160)
    networks = [(recipe, milestones)] + ([(recipe.teacher, (60, 120, 160))] if recipe.teacher is not None else [])
    for trained, steps in networks:
        assert (trained.epochs, trained.batch_size) == (200, 64)
        optimizer, schedule = trained.optimizer, trained.schedule
        assert (optimizer.name, optimizer.lr, optimizer.momentum, optimizer.weight_decay) == ("sgd", 0.05, 0.9, 1e-4)
        assert (schedule.name, schedule.milestones, schedule.gamma) == ("multistep", steps, 0.1)
    started, distilled = not {"snn", "kd"} & set(words), not {"snn", "init"} & set(words)
    assert recipe.init.kind == ("resample" if started else "random")
    if recipe.teacher is not None:
        method = recipe.method_settings()
        assert recipe.teacher.model == "resnet34"
        assert method.alpha == ((0.3 if started else 0.5) if distilled else 0.0)
        assert method.temperature == 4.0


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("joint-")])
def test_joint_trains_as_in_section_5_1_with_the_switches_of_table_4(name: str) -> None:
    recipe = shipped(name)
    variant = parts(name, recipe)[3]
    assert student_training(recipe) == (300, "adam", 0.001, "cosine", 0)
    assert recipe.optimizer.weight_decay == 5e-4
    if recipe.method["name"] != "joint-asnn":
        assert recipe.method == {
            "snn": {"name": "snn"},
            "kld": {"name": "idsnn", "alpha": 1.0, "temperature": 1.0},
        }.get(variant)
        return
    method = recipe.method_settings()
    switches = {
        "ce-kld": (True, 1.0, 0.0, False),
        "ce-kld-norm": (True, 1.0, 0.3, False),
        "wft": (False, 0.0, 0.0, True),
    }
    assert (method.ce, method.kld, method.norm, method.factorise) == switches.get(variant, (True, 1.0, 0.3, True))
