"""Data sets and loaders: batches ``(images float32 [B, C, H, W] normalised, labels int64 [B])``.

Event data come as sequences of frames ``[T, B, 2, H, W]``.
"""

from spikedistill.data.augmentations import AUGMENTATIONS
from spikedistill.data.catalogue import stand_in
from spikedistill.data.loader import Loader
from spikedistill.data.normalise import pixels
from spikedistill.data.opening import holds_events, list_data, nominal_shape, open_data
from spikedistill.data.own import from_datasets
from spikedistill.data.sets import Data, DataInfo, ImageSet, Source, StreamSet
from spikedistill.data.settings import DataSettings
from spikedistill.data.simulator import SimulatorSettings
from spikedistill.data.variations import variation_examples

__all__ = [
    "AUGMENTATIONS",
    "Data",
    "DataInfo",
    "DataSettings",
    "ImageSet",
    "Loader",
    "SimulatorSettings",
    "Source",
    "StreamSet",
    "from_datasets",
    "holds_events",
    "list_data",
    "nominal_shape",
    "open_data",
    "pixels",
    "stand_in",
    "variation_examples",
]
