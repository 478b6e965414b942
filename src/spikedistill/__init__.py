"""spikedistill: turn a trained neural network into a spiking one by letting it teach."""

__version__ = "0.1.0"

from spikedistill.api import distill, list_recipes, load
from spikedistill.errors import TrainingFailed, UserError
from spikedistill.evaluation.energy import energy
from spikedistill.exporting import export_nir, export_onnx, read_nir
from spikedistill.measuring import evaluate
from spikedistill.methods import list_methods
from spikedistill.models import Network, create_model, list_models
from spikedistill.models.adopt import adopt
from spikedistill.models.twin import spikify
from spikedistill.spiking import IF, LIF, PLIF

__all__ = [
    "IF",
    "LIF",
    "PLIF",
    "Network",
    "TrainingFailed",
    "UserError",
    "adopt",
    "create_model",
    "distill",
    "energy",
    "evaluate",
    "export_nir",
    "export_onnx",
    "list_methods",
    "list_models",
    "list_recipes",
    "load",
    "read_nir",
    "spikify",
]
