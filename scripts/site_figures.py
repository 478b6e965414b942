"""Figures for the documentation, made when the site is built: from records and recipes, so that none is typed.

MkDocs calls the functions named ``on_...`` (mkdocs.yml, ``hooks``). They

* give every ``results/*.md`` a page, and a place in the navigation;
* put what a comment such as ``<!-- our-figures: sakd -->`` asks for in its place (``MAKERS``);
* refuse a page that loads something from another machine: the site must work without a network.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from spikedistill.recipe import Recipe, parse
from spikedistill.recipebook import list_recipes, read_recipe
from spikedistill.report import find_runs, to_markdown
from spikedistill.report.groups import spread
from spikedistill.report.quantities import EMPTY, percent, spread_text
from spikedistill.report.runs import PLAIN_ANN, PLAIN_SNN, Run
from spikedistill.results import CAMPAIGNS, EXPERIMENT, EXPERIMENTS, RECORDS, is_made
from spikedistill.runfolder import read_json
from spikedistill.runlist import plan, read_run_list
from spikedistill.sweep import list_experiments, read_sweep

RESULTS = Path(__file__).resolve().parent.parent / "results"
OVERVIEW, FOLDER, SECTION = "README.md", "results", "Figures"
BASELINES = (PLAIN_ANN, PLAIN_SNN)
FREE = {"name", "description", "published", "seed", "out", "normalisation", "checkpoint_minutes", "on_bad_numbers"}
FREE |= {"device", "devices", "nodes", "strategy", "precision", "memory", "compile"}
FREE_IN_SECTIONS = {"path", "workers", "in_memory", "streaming", "num_classes", "in_channels", "image_size"}
"""Settings that may differ from a recipe's without the run being another: places, names, facts of the data, speed."""
MARKER = re.compile(r"^<!-- ([a-z]+-[a-z]+): ([a-z-]+) -->$", flags=re.M)
LINK = re.compile(r"(!?)\[([^]]*)\]\(([^)#\s]+)\)")
ELSEWHERE = re.compile(r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=\"?(?:https?:)?//[^>]*>")
HARMLESS = ('rel="canonical"', "rel=canonical")


# --- the pages of results/ ------------------------------------------------------------------------------------------


def result_pages(results: Path) -> dict[str, str]:
    """The pages that a folder of results has, by file name: each Markdown file but the overview of all of them."""
    return {
        path.name: path.read_text(encoding="utf-8") for path in sorted(results.glob("*.md")) if path.name != OVERVIEW
    }


def heading(page: str, otherwise: str) -> str:
    """A page's first heading."""
    found = re.search(r"^# (.+)$", page, flags=re.M)
    return found[1].strip() if found else otherwise


def listed(page: str, results: Path) -> tuple[str, list[str]]:
    """A page whose links lead somewhere on the site, and the files of ``results`` that have to go there with it.

    A picture or file of the folder goes along, another page of the folder is linked as it is, and what lies elsewhere
    in the repository is named as code.
    """
    files: list[str] = []
    pages = result_pages(results)

    def led(link: re.Match[str]) -> str:
        picture, text, target = link.groups()
        if "://" in target or target in pages:
            return link[0]
        if ".." not in PurePosixPath(target).parts and (results / target).is_file():
            files.append(target)
            return link[0]
        return text if picture else f"{text} (`{target}`)"

    return LINK.sub(led, page), files


def result_list(_: str, results: Path = RESULTS) -> str:
    """A table of the folder's pages: what each is about and how many of its runs are finished."""
    lines = ["| table | runs finished |", "|---|---:|"]
    for name, page in result_pages(results).items():
        runs, trial = campaign(results, name.removesuffix(".md")), experiment(results, name.removesuffix(".md"))
        finished = f"{len(runs.finished)} of {len(runs.planned)}" if runs else EMPTY
        if trial:
            finished = f"{trial['runs']['finished']} of {trial['runs']['planned']}"
        lines.append(f"| [{heading(page, name)}]({FOLDER}/{name}) | {finished} |")
    return "\n".join(lines)


# --- campaigns and their records ------------------------------------------------------------------------------------


class Campaign:
    """A list of runs among the results, and those of them that are finished."""

    def __init__(self, results: Path, name: str) -> None:
        listed = read_run_list(results / CAMPAIGNS / f"{name}.yaml")
        records = results / RECORDS / name
        self.name, self.title = name, listed.title or name
        self.planned = plan(listed, records, [])
        self.finished = [run for run in self.planned if is_made(run, records)]
        self.runs: list[Run] = find_runs([records / run.name for run in self.finished])


@cache
def campaign(results: Path, name: str) -> Campaign | None:
    """A campaign by name, or None where a page is not of one."""
    return Campaign(results, name) if (results / CAMPAIGNS / f"{name}.yaml").is_file() else None


def campaigns(results: Path) -> list[Campaign]:
    """All campaigns of a folder of results."""
    found = (campaign(results, path.stem) for path in sorted((results / CAMPAIGNS).glob("*.yaml")))
    return [each for each in found if each is not None]


def experiment(results: Path, name: str) -> dict[str, Any] | None:
    """The record of an experiment by name, or None where a page is not of one."""
    record = results / EXPERIMENTS / name / EXPERIMENT
    return read_json(record) if record.is_file() else None


def experiments(results: Path, method: str) -> list[tuple[str, str]]:
    """Name and title of the recorded experiments that a method is part of."""
    found = []
    for record in sorted((results / EXPERIMENTS).glob(f"*/{EXPERIMENT}")):
        runs = record.parent / RECORDS
        if runs.is_dir() and any(run.method == method for run in find_runs(runs)):
            found.append((record.parent.name, read_json(record)["title"]))
    return found


def linked(results: Path, name: str, title: str, root: str) -> str:
    """A title, linked to its page where there is one (a campaign that was never begun has none)."""
    return f"[{title}]({root}{FOLDER}/{name}.md)" if (results / f"{name}.md").is_file() else title


def our_figures(method: str, results: Path = RESULTS, root: str = "../") -> str:
    """What a method reached in each campaign, beside the baselines of the same campaign, and what is still to run."""
    parts, pending = [], []
    for each in campaigns(results):
        page = linked(results, each.name, each.title, root)
        of_method = [run for run in each.planned if run.recipe.method["name"] == method]
        done = [run for run in each.runs if run.method in {method, *BASELINES}]
        if any(run.method == method for run in done):
            parts.append(f"{page}:\n\n{to_markdown(done).strip()}")
        missing = len(of_method) - sum(run.recipe.method["name"] == method for run in each.finished)
        if missing:
            pending.append(f"{page} ({missing} of {len(of_method)} runs)")
    trials = [linked(results, name, title, root) for name, title in experiments(results, method)]
    if trials:
        parts.append(f"Experiments with it: {'; '.join(trials)}.")
    if not parts:
        parts.append("No run of this method is among the records yet.")
    if pending:
        parts.append(f"Still to run: {'; '.join(pending)}.")
    return "\n\n".join(parts)


# --- published figures ----------------------------------------------------------------------------------------------


@cache
def recipes() -> list[Recipe]:
    """All shipped recipes that stand beside a published figure, in the order in which they are printed."""
    shipped = (read_recipe(name) for name in list_recipes())
    return sorted((each for each in shipped if each.published), key=_place)


def _place(recipe: Recipe) -> tuple[list[Any], str, str]:
    return _by_number(places(recipe)[0]), recipe.data.name, recipe.name


def places(recipe: Recipe) -> list[str]:
    """Where a recipe's figure is printed: of ``SAKD tables 4 and 8`` the two tables."""
    source = recipe.published.source if recipe.published else ""
    of, tables, numbers = source.partition(" tables ")
    return [f"{of} table {number}" for number in re.findall(r"\d+", numbers)] if tables else [source]


def paper(place: str) -> str:
    """The paper that a place is in: ``SAKD`` of ``SAKD table 4``."""
    return re.split(r" (?:table|section)\b", place)[0]


def _by_number(place: str) -> list[Any]:
    return [paper(place), "section" in place, *(int(number) for number in re.findall(r"\d+", place))]


def trained_as(recipe: Recipe) -> dict[str, Any]:
    """What decides a run's figure: its settings but for those that are ``FREE``."""
    sections = {"data", "student", "teacher"}
    return {
        key: {inner: kept for inner, kept in value.items() if inner not in FREE_IN_SECTIONS}
        if key in sections and value
        else value
        for key, value in recipe.model_dump(exclude=FREE).items()
    }


def ours(recipe: Recipe, results: Path) -> str:
    """What finished runs of a recipe, as it ships, reached: mean, standard deviation and n."""
    own = []
    for run in (run for each in campaigns(results) for run in each.runs if run.config.get("name") == recipe.name):
        if trained_as(parse(run.config, str(run.path))) == trained_as(recipe):
            own.append(run)
    reached = spread(run.accuracy for run in own)
    return EMPTY if reached is None else f"{spread_text(reached)} (n {reached.n})"


def rows_of(chosen: Iterable[Recipe], results: Path, with_source: bool) -> str:
    """A table of published figures with the recipe that is each of them."""
    head = ["data", "student", "T", "published %", "plain SNN", "teacher", "ours %", "recipe"]
    figures = {"T", "published %", "plain SNN", "teacher", "ours %"}
    head = [*(["printed in"] if with_source else []), *head]
    lines = [f"| {' | '.join(head)} |", f"|{'|'.join('---:' if name in figures else '---' for name in head)}|"]
    notes = {}
    for recipe in chosen:
        published = recipe.published
        assert published is not None and recipe.student is not None
        mark = ""
        if published.note:
            number = notes.setdefault(published.note, len(notes) + 1)
            mark = f" <sup>{number}</sup>"
        cells = [
            *([published.source] if with_source else []),
            recipe.data.name.rpartition("/")[2],
            recipe.student.model,
            str(recipe.timesteps),
            percent(published.figure) + mark,
            percent(published.baseline),
            percent(published.teacher),
            ours(recipe, results),
            f"`{recipe.name}`",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    told = [f"<sup>{number}</sup> {note}." for note, number in notes.items()]
    return "\n".join(lines) + ("\n\n" + "<br>\n".join(told) if told else "")


def published_figures(method: str, results: Path = RESULTS) -> str:
    """The published rows whose recipes train by a method."""
    return rows_of([each for each in recipes() if each.method["name"] == method], results, with_source=True)


def published_rows(_: str, results: Path = RESULTS) -> str:
    """Every published row by paper and table, and the experiments that make the tables."""
    parts: list[str] = []
    for place in sorted({place for each in recipes() for place in places(each)}, key=_by_number):
        if f"## {paper(place)}" not in parts:
            parts.append(f"## {paper(place)}")
        rows = [each for each in recipes() if place in places(each)]
        parts.append(f"### {place}\n\n{rows_of(rows, results, with_source=False)}")
    lines = ["| experiment | printed in | command |", "|---|---|---|"]
    for name in list_experiments():
        sweep = read_sweep(name)
        lines.append(f"| {sweep.title} | {sweep.source} | `spikedistill experiment {name}` |")
    told = (
        "An experiment makes all runs of one of the papers' tables or figures, at a size for two processors or, with "
        "`--scale paper`, at the paper's, and draws table and picture."
    )
    return "\n\n".join([*parts, f"## Experiments\n\n{told}", "\n".join(lines)])


MAKERS: dict[str, Callable[[str], str]] = {
    "our-figures": our_figures,
    "published-figures": published_figures,
    "published-rows": published_rows,
    "result-pages": result_list,
}
"""A comment's first word to what takes its place; the function is given the comment's second word."""


# --- what MkDocs calls ----------------------------------------------------------------------------------------------


def on_config(config: Any) -> Any:
    """Gives the pages of results their places in the navigation."""
    for section in config.nav:
        if SECTION in section:
            section[SECTION] += [
                {heading(page, name): f"{FOLDER}/{name}"} for name, page in result_pages(RESULTS).items()
            ]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages of results, and the files they point to."""
    from mkdocs.structure.files import File

    for name, page in result_pages(RESULTS).items():
        content, beside = listed(page, RESULTS)
        files.append(File.generated(config, f"{FOLDER}/{name}", content=content))
        for path in beside:
            if f"{FOLDER}/{path}" not in files.src_uris:
                files.append(File.generated(config, f"{FOLDER}/{path}", abs_src_path=str(RESULTS / path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Puts figures where comments ask for them."""
    root = "../" * page.file.src_uri.count("/")
    return filled(markdown, root)


def filled(markdown: str, root: str = "") -> str:
    """A page with its comments replaced; ``root`` leads from the page's folder to that of the site."""

    def made(marker: re.Match[str]) -> str:
        maker, what = MAKERS[marker[1]], marker[2]
        return our_figures(what, root=root) if maker is our_figures else maker(what)

    return MARKER.sub(made, markdown)


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Refuses what would be loaded from another machine.

    Raises:
        PluginError: the page loads a script, style or picture from elsewhere.
    """
    from mkdocs.exceptions import PluginError

    for tag in ELSEWHERE.findall(output):
        if not any(word in tag for word in HARMLESS):
            raise PluginError(f"{page.file.src_uri} loads something from elsewhere: {tag}")
    return output
