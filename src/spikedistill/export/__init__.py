"""Networks as files for chips and other runtimes: NIR and ONNX, each with a model card; NIR files as networks."""

from spikedistill.export.about import About
from spikedistill.export.card import Origin
from spikedistill.export.compare import Agreement
from spikedistill.export.formats import FORMATS, Exported, export
from spikedistill.export.interpreter import NirNetwork, read_nir
from spikedistill.export.neurons import DT

__all__ = ["DT", "FORMATS", "About", "Agreement", "Exported", "NirNetwork", "Origin", "export", "read_nir"]
