"""Methods: ways of training an SNN, each one file and one line here."""

from spikedistill.methods.attention import SAMDNLD
from spikedistill.methods.base import Method, Progress
from spikedistill.methods.blurred import BKDSNN
from spikedistill.methods.idsnn import IDSNN
from spikedistill.methods.joint import JointASNN
from spikedistill.methods.kdsnn import KDSNNFeature, KDSNNResponse
from spikedistill.methods.sakd import SAKD
from spikedistill.methods.supernet import Supernet
from spikedistill.methods.supervised import ANN, SNN
from spikedistill.methods.temporal import TET, TWLD

METHODS: dict[str, type[Method]] = {
    "ann": ANN,
    "snn": SNN,
    "kdsnn-response": KDSNNResponse,
    "kdsnn-feature": KDSNNFeature,
    "sakd": SAKD,
    "tet": TET,
    "twld": TWLD,
    "samd-nld": SAMDNLD,
    "bkdsnn": BKDSNN,
    "idsnn": IDSNN,
    "joint-asnn": JointASNN,
    "supernet": Supernet,
}


def list_methods() -> list[str]:
    """The names of all methods, sorted."""
    return sorted(METHODS)


__all__ = ["METHODS", "Method", "Progress", "list_methods"]
