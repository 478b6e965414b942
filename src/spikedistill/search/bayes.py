"""Bayesian search over a space of subnets (SAKD section 3.3), by Optuna's tree-structured Parzen estimator.

Trials lie in a database from the moment they are known, one transaction each. A proposal is a function of the seed, the
trial's number and the results before it, so a search that was interrupted comes to the same end as one that was not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from spikedistill.data.seeds import seed_of
from spikedistill.errors import UserError, first_line
from spikedistill.models.subnets import Space, Subnet
from spikedistill.search.measure import Measured
from spikedistill.search.space import subnet_at, suggest

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class Trial:
    """One subnet of a search; ``number`` counts from 0."""

    number: int
    subnet: Subnet
    measured: Measured


def check_installed() -> None:
    """Raises UserError where Optuna is missing."""
    if find_spec("optuna") is None:
        raise UserError("the search needs optuna, which is not installed: pip install 'spikedistill[search]'")


def best_of(trials: Sequence[Trial]) -> Trial:
    """The trial of the highest accuracy; among equals the smallest network, then the first."""
    return max(trials, key=lambda trial: (trial.measured.accuracy, -trial.measured.parameters, -trial.number))


def search(
    measure: Callable[[Subnet], Measured],
    space: Space,
    trials: int,
    *,
    storage: str | Path,
    name: str,
    seed: int,
    report: Callable[[Sequence[Trial]], None] = lambda trials: None,
) -> list[Trial]:
    """Measures ``trials`` subnets, those included that the storage already knows.

    A subnet that is proposed a second time is a trial again, but is not measured again.

    Args:
        measure: what a subnet is worth.
        space: the subnets.
        trials: how many, at least 1.
        storage: a SQLite file, made where it is missing, or a database URL such as ``mysql://...``. One search at a
            time.
        name: of the search within the storage; must stand for what ``measure`` measures.
        seed: decides the proposals.
        report: called after every trial with all trials so far.

    Raises:
        UserError: a storage that cannot be used.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    stored, done = _stored(storage, name, space)
    known = {trial.subnet: trial.measured for trial in done}
    # Proposals are made in memory: a trial that is not finished has no place in the database, nor a dozen writes each.
    study = optuna.create_study(direction="maximize")
    study.add_trials(stored.get_trials(deepcopy=False))
    for number in range(len(done), trials):
        study.sampler = optuna.samplers.TPESampler(seed=seed_of(seed, "trial", number) % 2**32)
        asked = study.ask()
        subnet = suggest(asked, space)
        if subnet not in known:
            known[subnet] = measure(subnet)
        asked.set_user_attr("parameters", known[subnet].parameters)
        asked.set_user_attr("seconds", known[subnet].seconds)
        stored.add_trial(study.tell(asked, known[subnet].accuracy))
        done.append(Trial(number, subnet, known[subnet]))
        report(done)
    return done[:trials]


def _stored(storage: str | Path, name: str, space: Space) -> tuple[Study, list[Trial]]:
    """The search in the storage, made where it is missing, and the trials that it knows."""
    import optuna
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    opened = _open(storage)
    try:
        stored = optuna.create_study(storage=opened, study_name=name, direction="maximize", load_if_exists=True)
        done = _finished(stored)
        for trial in done:
            space.check(trial.subnet)
    except (SQLAlchemyError, OptunaError, LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"the search's storage '{storage}' does not hold this search ({first_line(error)}); name another file"
        ) from None
    return stored, done


def _open(storage: str | Path) -> BaseStorage:
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import SQLAlchemyError

    url = str(storage)
    if "://" not in url:
        path = Path(storage)
        if (path.exists() and not path.is_file()) or not path.absolute().parent.is_dir():
            raise UserError(f"the search's storage '{path}' must be a file in a folder that exists, or a database URL")
        url = f"sqlite:///{path}"
    try:
        return RDBStorage(url)
    except (SQLAlchemyError, ImportError, ValueError, RuntimeError) as error:
        raise UserError(f"the search's storage '{storage}' cannot be used: {first_line(error)}") from None


def _finished(study: Study) -> list[Trial]:
    frozen = study.get_trials(deepcopy=False)
    return [Trial(trial.number, subnet_at(trial.params), _measured(trial)) for trial in frozen]


def _measured(trial: FrozenTrial) -> Measured:
    found = (trial.value, trial.user_attrs["parameters"], trial.user_attrs["seconds"])
    if not all(isinstance(number, int | float) for number in found):
        raise TypeError(f"trial {trial.number} was not measured")
    return Measured(*found)  # pyright: ignore[reportArgumentType]
