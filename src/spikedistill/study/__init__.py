"""Studies: what an experiment's finished runs show, as tables and pictures. A line a study."""

from collections.abc import Callable

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

CHECKS: dict[str, Callable[[], None]] = {"attribution": check_captum}
"""What refuses a study, before hours of training, whose extra is not installed."""

__all__ = ["CHECKS", "STUDIES", "Done", "Finding", "Picture", "Study", "Table", "Value"]
