"""Data sets and loaders: batches ``(images float32 [B, C, H, W] normalised, labels int64 [B])``."""

from spikedistill.data.augmentations import AUGMENTATIONS
from spikedistill.data.catalogue import list_data
from spikedistill.data.loader import Loader
from spikedistill.data.opening import nominal_shape, open_data
from spikedistill.data.own import from_datasets
from spikedistill.data.sets import Data, DataInfo, ImageSet, Source, StreamSet
from spikedistill.data.settings import DataSettings

__all__ = [
    "AUGMENTATIONS",
    "Data",
    "DataInfo",
    "DataSettings",
    "ImageSet",
    "Loader",
    "Source",
    "StreamSet",
    "from_datasets",
    "list_data",
    "nominal_shape",
    "open_data",
]
