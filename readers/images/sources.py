"""The reader for a source of images: the hub, parquet files, CIFAR-10's original pickles, or image files."""

from pathlib import Path

from ..errors import DataError
from ..files import user_path
from .arrays import ImageSource
from .cifar_pickles import PickledImages
from .data_sets import DataSetLayout, HubImages, ParquetImages
from .folders import ImageFiles, has_images


def open_source(source: str, hub_id: str = "uoft-cs/cifar10", layout: DataSetLayout | None = None) -> ImageSource:
    """The reader for ``hub`` or a folder.

    A folder holds, in this order of precedence: CIFAR-10 as published (``data_batch_1`` …, also in the sub-folder
    ``cifar-10-batches-py``), a data set in the hub's layout (``.parquet`` with images), or image files (AVIF, BMP, GIF,
    JPEG, JPEG 2000, PBM, PFM, PGM, PNG, PPM, TIFF, WebP), see ``ImageFiles``.

    Args:
        source: ``hub``, or a folder.
        hub_id: the data set on the hub.
        layout: what to read of a data set, from the hub or from parquet files; None: the defaults.

    Raises:
        DataError: the path does not exist, or holds nothing that can be read.
    """
    layout = layout or DataSetLayout()
    if source == "hub":
        return HubImages(hub_id, layout)
    root = user_path(source)
    if not root.is_dir():
        problem = "is a file, not a folder" if root.exists() else "does not exist"
        raise DataError(f"data.source: {source} {problem}; give a folder of images, or hub, or sample")
    for folder in (root, root / "cifar-10-batches-py"):
        if (folder / "data_batch_1").is_file():
            return PickledImages(folder)
    if _is_data_set(root, layout):
        return ParquetImages(root, layout)
    return ImageFiles(root)


def _is_data_set(root: Path, layout: DataSetLayout) -> bool:
    """Whether the parquet files of a folder are the images, and not a table that lies beside them."""
    files = sorted(root.rglob("*.parquet"))
    return bool(files) and (any(_may_have_images(file, layout) for file in files) or not has_images(root))


def _may_have_images(file: Path, layout: DataSetLayout) -> bool:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        schema = parquet.read_schema(file)
    except (OSError, pa.ArrowException):  # `datasets` says what is wrong
        return True
    encoded = (pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 for kind in schema.types)
    return layout.image_column in schema.names or any(encoded)
