"""Studies: what an experiment's finished runs show, as tables and pictures. A line a study."""

from spikedistill.evaluation.maps import check_captum
from spikedistill.study.attribution import attribution
from spikedistill.study.base import Done, Finding, Picture, Study, Table, Value
from spikedistill.study.convergence import convergence
from spikedistill.study.energy import energy
from spikedistill.study.grid import grid
from spikedistill.study.latency import latency
from spikedistill.study.noise import noise

STUDIES: dict[str, Study] = {
    "grid": grid,
    "convergence": convergence,
    "noise": noise,
    "energy": energy,
    "attribution": attribution,
    "latency": latency,
}


def check_study(name: str) -> None:
    """Refuses a study whose extra is not installed, before hours of training.

    Raises:
        UserError: names the extra.
    """
    if name == "attribution":
        check_captum()


__all__ = ["STUDIES", "Done", "Finding", "Picture", "Study", "Table", "Value", "check_study"]
