"""Going on with a run: only the run that was begun, so that its config.yaml is true of the whole of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spikedistill.build import read_config
from spikedistill.documents import is_path
from spikedistill.errors import UserError
from spikedistill.recipe import Recipe
from spikedistill.recipebook import setting
from spikedistill.report.runs import CONFIG

OF_A_RUN = ("checkpoints", "teacher", "summary.json")
"""What lies beside a run's config, one or the other, from its first epoch on."""
MAY_CHANGE = frozenset(
    {
        "name",
        "description",
        "published",
        "out",
        "device",
        "devices",
        "nodes",
        "strategy",
        "compile",
        "memory",
        "checkpoint_minutes",
        "on_bad_numbers",
        "data.path",
        "data.workers",
        "data.in_memory",
        "teacher.path",
        "init.path",
    }
)
"""What says where and how a run is computed, or what it is called, but not what is learned from what."""
FILLED_IN = frozenset({"num_classes", "in_channels", "image_size", "normalisation"})
"""What a recipe may leave to the data, and a run folder's config has written out."""


def at_home(recipe: str, overrides: Sequence[str]) -> list[str]:
    """Where to go on with a run that is named by its own ``config.yaml``: where that lies, wherever it was begun.

    Args:
        recipe: name or path, as given.
        overrides: as given; one of ``out`` is kept to.

    Returns:
        The overrides, one more among them where the recipe is a run folder's config.
    """
    file = Path(recipe)
    if file.name != CONFIG or not is_path(recipe) or not any((file.parent / name).exists() for name in OF_A_RUN):
        return list(overrides)
    return [setting("out", str(file.parent)), *overrides]


def check_same_run(folder: Path, recipe: Recipe) -> None:
    """Refuses to go on in ``folder`` with another run than the one begun there.

    Args:
        folder: a run folder.
        recipe: as asked for now; what it leaves to the data is not compared.

    Raises:
        UserError: names the first setting that differs.
    """
    begun = read_config(folder)
    found = _difference(recipe.plain(), begun.plain(), "")
    if found is not None:
        key, now, then = found
        raise UserError(
            f"'{folder}' was begun with {key}={then}, not {now}; a run goes on as it began: leave that as it was, or "
            "choose another folder with out="
        )


def is_finished(folder: Path, recipe: Recipe) -> bool:
    """Whether a folder holds the finished run of just this recipe; one of other settings is not it."""
    if not (folder / "summary.json").is_file():
        return False
    try:
        check_same_run(folder, recipe)
    except UserError:
        return False
    return True


def _difference(now: Any, then: Any, path: str) -> tuple[str, Any, Any] | None:
    left_to_data = now is None and path.rpartition(".")[2] in FILLED_IN
    if left_to_data or path in MAY_CHANGE or now == then:
        return None
    if not (isinstance(now, dict) and isinstance(then, dict)):
        return path, now, then
    for key in now | then:
        found = _difference(now.get(key), then.get(key), f"{path}.{key}" if path else key)
        if found is not None:
            return found
    return None
