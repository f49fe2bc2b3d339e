"""Features of image files: computed in batches, written as a table or as arrays."""

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from datamodules.batches import ImageBatch
from readers.files import replacing
from readers.images import read_image_files

FEATURE_FILES = (".npz", ".csv", ".parquet", "")  # without an ending it is npz


def encode_files(
    module: pl.LightningModule,
    path: Path,
    encode: Callable[[Tensor], Tensor],
    batch_size: int,
    on_error: Literal["stop", "skip"] = "stop",
) -> tuple[list[str], Tensor]:
    """Names and features (N, d) float32 of an image file, or of those of a folder, by a module in evaluation mode.

    Args:
        module: its hyperparameters ``image_size`` S, ``channels`` C and ``pixel_range`` say what images it reads.
        encode: (B, C, S, S) in ``pixel_range``, on the module's device -> (B, d).
        batch_size: images per batch.
        on_error: at images that can't be read ``stop`` and name all of them, or ``skip`` them.

    Raises:
        ValueError: if ``batch_size`` is below 1, or there is no image or one that can't be read.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size ({batch_size}) must be at least 1")
    module.eval()
    form: Any = module.hparams
    names, features = [], []
    for batch_names, pixels in read_image_files(path, form.image_size, batch_size, form.channels, on_error):
        batch = ImageBatch.from_pixels(pixels, form.pixel_range)
        features.append(encode(batch.images.to(module.device)).float().cpu())
        names += batch_names
    return names, torch.cat(features)


def write_features(output: Path, names: list[str], features: Tensor, more: Mapping[str, Any] | None = None) -> None:
    """Writes features by the ending of the file.

    ``.csv``: ``name,f0,f1,...``, a row an image; ``.parquet``: the columns ``name`` and ``features``, lists of float32;
    ``.npz`` or none: NumPy's ``.npz`` with ``names``, ``features`` (N, d) float32 and ``more``. An earlier file is
    replaced when the new one is complete.
    """
    with replacing(output) as part:
        _write_features(part, Path(output).suffix.lower(), names, features, more or {})


def _write_features(path: Path, ending: str, names: list[str], features: Tensor, more: Mapping[str, Any]) -> None:
    if ending == ".csv":
        header = ["name", *(f"f{index}" for index in range(features.shape[1]))]
        # File names that are not valid UTF-8 go byte for byte.
        with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = (
                [name, *map(np.format_float_positional, row)] for name, row in zip(names, features.numpy(), strict=True)
            )
            csv.writer(file).writerows([header, *rows])
    elif ending == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        texts = [name.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for name in names]
        flat = pa.array(features.flatten().numpy(), pa.float32())
        lists = pa.FixedSizeListArray.from_arrays(flat, features.shape[1])
        parquet.write_table(pa.table({"name": pa.array(texts, pa.string()), "features": lists}), path)
    else:
        arrays: dict[str, Any] = {"names": np.array(names), "features": features.numpy(), **more}
        with open(path, "wb") as file:
            np.savez(file, **arrays)
