"""Images from the hub, from data sets on disk and from folders, as one array of uint8."""

from ..errors import DataError
from .arrays import ImageArrays, ImageSource, LeftOut
from .cifar_pickles import PickledImages
from .data_sets import DataSetLayout, HubImages, ParquetImages
from .decoding import decode_images, forget_progress
from .folders import ImageFiles, describe_left_out, find_images, read_image_files
from .one_image import decode_image, describe_skipped, refit_images
from .sources import open_source

__all__ = [
    "DataError",
    "DataSetLayout",
    "HubImages",
    "ImageArrays",
    "ImageFiles",
    "ImageSource",
    "LeftOut",
    "ParquetImages",
    "PickledImages",
    "decode_image",
    "decode_images",
    "describe_left_out",
    "describe_skipped",
    "find_images",
    "forget_progress",
    "open_source",
    "read_image_files",
    "refit_images",
]
