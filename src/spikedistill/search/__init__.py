"""Architecture search: which subnet of a trained supernet does best (SAKD section 3.3)."""

from spikedistill.search.bayes import Trial, best_of, check_installed, search
from spikedistill.search.calibration import recalibrate
from spikedistill.search.measure import Measured, Meter
from spikedistill.search.picture import draw
from spikedistill.search.results import findings, write_trials

__all__ = [
    "Measured",
    "Meter",
    "Trial",
    "best_of",
    "check_installed",
    "draw",
    "findings",
    "recalibrate",
    "search",
    "write_trials",
]
