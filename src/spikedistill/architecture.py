"""The command ``search``: trains a supernet, searches it, and leaves the best subnet as a plain network.

In the run folder's own folder ``search``: ``trials.csv``, ``best.json``, ``search.png`` (SAKD's figure 3), the database
``trials.db`` and, in ``best``, the best subnet with the recipe that trains it alone.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from spikedistill.build import read_config
from spikedistill.data import Loader, open_data
from spikedistill.engine.checkpoint import write_durably
from spikedistill.engine.devices import resolve_device
from spikedistill.errors import UserError
from spikedistill.finishing import EVALUATION_BATCH
from spikedistill.methods.sakd import SAKD
from spikedistill.methods.supernet import Supernet
from spikedistill.models.elastic import ElasticResNet
from spikedistill.models.resnet import ResNet
from spikedistill.models.subnets import RESNET34
from spikedistill.recipe import ModelSettings, Recipe, TeacherSettings
from spikedistill.recipebook import read_recipe, setting
from spikedistill.run import CONFIG, train
from spikedistill.runfolder import OWN_TEACHER, STUDENT, leads_out, save_network, write_json
from spikedistill.search import Meter, Trial, best_of, check_installed, draw, findings, search, write_trials

TRIALS = 300


def search_recipe(
    name_or_path: str,
    overrides: Sequence[str] = (),
    *,
    trials: int = TRIALS,
    storage: str | None = None,
    smoke: bool = False,
    verbose: bool = True,
) -> dict[str, Any]:
    """Trains the supernet of a recipe, searches it and writes what was found; goes on where it was interrupted.

    Args:
        name_or_path: a recipe of the method ``supernet``, or the run folder of one.
        overrides: ``key=value`` with dotted keys.
        trials: how many subnets to try, those of an interrupted search included.
        storage: database file or URL; None is ``search/trials.db`` in the run folder.
        smoke: shrink the recipe to seconds.
        verbose: show progress.

    Returns:
        The contents of ``best.json``.

    Raises:
        UserError: no Optuna, another method's recipe, no validation part, or a recipe that cannot be run.
    """
    recipe = _read(name_or_path, overrides, smoke)
    if trials < 1:
        raise UserError(f"--trials must be at least 1, not {trials}")
    if recipe.method_class() is not Supernet:
        raise UserError(
            f"the search takes a recipe of method 'supernet'; '{name_or_path}' has method '{recipe.method['name']}'"
        )
    if not recipe.data.validation:
        raise UserError(
            "the search compares subnets on held-out images; set data.validation to their share, such as 0.1"
        )
    check_installed()
    run = train(recipe, resume=True, verbose=verbose)
    return search_run(run.folder, run.student, recipe, trials=trials, storage=storage, verbose=verbose)


def search_run(
    folder: Path, supernet: Any, recipe: Recipe, *, trials: int, storage: str | None, verbose: bool
) -> dict[str, Any]:
    """Searches the trained supernet of a run folder. Arguments as in ``search_recipe``."""
    assert isinstance(supernet, ElasticResNet)
    recipe = _as_trained(folder, recipe)
    out = folder / "search"
    for place in (out / "best", out / "trials.db"):
        if leads_out(place, folder):
            raise UserError(f"'{place}' leads out of the run folder by a link; put a folder or file in its place")
    out.mkdir(exist_ok=True)
    meter = _meter(supernet, recipe)
    weights = hashlib.sha256((folder / STUDENT).read_bytes()).hexdigest()
    found = search(
        meter,
        supernet.space,
        trials,
        storage=storage or out / "trials.db",
        # Other weights are another search, even in the same database.
        name=f"{recipe.name}-seed{recipe.seed}-{weights[:16]}",
        seed=recipe.seed,
        report=lambda done: _tell(done, trials) if verbose else None,
    )
    reference = (RESNET34, meter(RESNET34))
    about = {"run": folder.name, "seed": recipe.seed, "weights": weights, "timesteps": supernet.timesteps}
    content = findings(found, reference) | about
    write_trials(out / "trials.csv", found)
    write_json(out / "best.json", content)
    draw(found, reference, supernet.space, out / "search.png")
    best = best_of(found).subnet
    _write_best(out / "best", meter.fitted(best), str(best), recipe, folder)
    return content | {"folder": str(out)}


def _read(name_or_path: str, overrides: Sequence[str], smoke: bool) -> Recipe:
    folder = Path(name_or_path)
    if not folder.is_dir():
        return read_recipe(name_or_path, overrides, smoke)
    if smoke:
        raise UserError("--smoke shrinks recipes; a run folder is searched as it is")
    read_config(folder)  # refuses what is no run folder
    return read_recipe(str(folder / CONFIG), [*overrides, setting("out", str(folder))])


def _as_trained(folder: Path, recipe: Recipe) -> Recipe:
    """The recipe that the run was trained by, with the data where they lie now.

    Its seed and shares decide which images were held out: by any others a subnet could be measured on what it learned.
    """
    trained = read_config(folder)
    data = replace(
        trained.data,
        path=recipe.data.path or trained.data.path,
        workers=recipe.data.workers,
        in_memory=recipe.data.in_memory,
    )
    return trained.model_copy(update={"data": data, "device": recipe.device})


def _meter(supernet: ElasticResNet, recipe: Recipe) -> Meter:
    """Measures on the recipe's validation part, in float32 whatever the training's precision was."""
    data = open_data(recipe.data, recipe.seed)
    assert data.validation is not None
    device = resolve_device(recipe.device)
    calibration = Loader(
        data.train,
        data.info,
        batch_size=recipe.batch_size,
        device=device,
        shuffle=True,
        seed=recipe.seed,
        drop_last=True,
    )
    validation = Loader(data.validation, data.info, batch_size=EVALUATION_BATCH, device=device, shuffle=False, seed=0)
    return Meter(supernet.to(device), calibration, validation, len(data.info.classes))


def _tell(done: Sequence[Trial], trials: int) -> None:
    """A line for each tenth trial and each one that is better than all before it."""
    best = best_of(done)
    if best is done[-1] or len(done) % 10 == 0 or len(done) == trials:
        accuracy = best.measured.accuracy
        print(f"trial {len(done)}/{trials}  best {accuracy:.2f} %  {best.subnet}", file=sys.stderr, flush=True)


def _write_best(folder: Path, network: ResNet, subnet: str, recipe: Recipe, run: Path) -> None:
    """The subnet as ``sd.load`` reads it; its config trains the same architecture alone, by SAKD."""
    folder.mkdir(exist_ok=True)
    save_network(network, folder / STUDENT)
    accepted = {field.name for field in fields(SAKD.Settings)}
    method = {key: value for key, value in recipe.method.items() if key in accepted}
    teacher = recipe.teacher.model_dump() if recipe.teacher is not None else {}
    if (run / OWN_TEACHER / CONFIG).is_file():
        teacher["path"] = str(run / OWN_TEACHER)
    updates = {
        "name": f"{recipe.name}-best",
        "description": f"{subnet}, the best subnet of {run.name}, trained alone (the weights here: the supernet's)",
        "out": None,
        "student": ModelSettings.model_validate(network.settings),
        "teacher": TeacherSettings.model_validate(teacher),
        "method": {"name": "sakd", **method},
    }
    write_durably(folder / CONFIG, recipe.model_copy(update=updates).to_yaml().encode())
