"""Methods: ways of training an SNN, each one file and one line here."""

from spikedistill.methods.base import Method, Progress
from spikedistill.methods.kdsnn import KDSNNFeature, KDSNNResponse
from spikedistill.methods.supervised import ANN, SNN

METHODS: dict[str, type[Method]] = {
    "ann": ANN,
    "snn": SNN,
    "kdsnn-response": KDSNNResponse,
    "kdsnn-feature": KDSNNFeature,
}


def list_methods() -> list[str]:
    """The names of all methods, sorted."""
    return sorted(METHODS)


__all__ = ["METHODS", "Method", "Progress", "list_methods"]
