"""Networks, each written once for ANN and SNN."""

from spikedistill.models.network import Network
from spikedistill.models.registry import MODELS, create_model, list_models

__all__ = ["MODELS", "Network", "create_model", "list_models"]
