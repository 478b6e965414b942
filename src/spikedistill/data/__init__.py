"""Data sets and loaders: batches ``(images float32 [B, C, H, W] normalised, labels int64 [B])``."""

from spikedistill.data.augment import augmentations
from spikedistill.data.catalogue import list_data
from spikedistill.data.loader import Loader
from spikedistill.data.opening import open_data
from spikedistill.data.own import from_datasets
from spikedistill.data.sets import Data, DataInfo, ImageSet, Source, StreamSet
from spikedistill.data.settings import DataSettings

__all__ = [
    "Data",
    "DataInfo",
    "DataSettings",
    "ImageSet",
    "Loader",
    "Source",
    "StreamSet",
    "augmentations",
    "from_datasets",
    "list_data",
    "open_data",
]
