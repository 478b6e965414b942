"""Methods: ways of training an SNN, each one file and one line here."""

from dataclasses import MISSING, fields
from typing import Any

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


def with_defaults(section: Any) -> Any:
    """A recipe's section ``method`` with the settings that it leaves out; anything else as it is."""
    if not isinstance(section, dict) or section.get("name") not in METHODS:
        return section
    left_out = {
        each.name: each.default
        for each in fields(METHODS[section["name"]].Settings)
        if each.name not in section and each.default is not MISSING
    }
    return {key: with_defaults(value) for key, value in section.items()} | left_out


__all__ = ["METHODS", "Method", "Progress", "list_methods", "with_defaults"]
