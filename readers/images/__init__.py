"""Images from the hub, from data sets on disk and from folders, as one array of uint8."""

from ..errors import DataError
from .cifar_pickles import PickledImages
from .data_sets import DataSetLayout, HubImages, ParquetImages
from .decoding import ImageArrays, decode_image, decode_images
from .folders import ImageFiles, find_images, read_image_files
from .sources import ImageSource, open_source

__all__ = [
    "DataError",
    "DataSetLayout",
    "HubImages",
    "ImageArrays",
    "ImageFiles",
    "ImageSource",
    "ParquetImages",
    "PickledImages",
    "decode_image",
    "decode_images",
    "find_images",
    "open_source",
    "read_image_files",
]
