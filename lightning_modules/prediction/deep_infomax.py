"""Features of a user's images, by the encoder of ``DeepInfoMax``, and the nearest of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from layers.images import EncoderOutput
from metrics.probes import nearest_neighbors

from .endings import check_ending
from .images import FEATURE_FILES, encode_files, write_features

if TYPE_CHECKING:
    _Mixin = Any
else:
    _Mixin = object

Representation = Literal["code", "fc", "local"]


def representations(output: EncoderOutput) -> dict[str, Tensor]:
    """The features to probe (B, ...), by the prefix of their metrics."""
    return {"": output.mean, "fc/": output.fc, "local/": output.conv.flatten(1).half()}


class EncodesImageFiles(_Mixin):
    """Mixin of ``DeepInfoMax``: features of image files, and their nearest neighbours."""

    @torch.inference_mode()
    def predict_file(
        self,
        input: Path,
        output: Path,
        layer: Representation = "code",
        query: Path | None = None,
        num_neighbors: int = 10,
        batch_size: int = 256,
        on_error: Literal["stop", "skip"] = "stop",
    ) -> str:
        """Turns a folder of images into features, and finds the nearest neighbours of query images among them.

        Args:
            input: a folder of image files, sub-folders included, or one image file.
            output: the file to write: ``.npz`` with ``names`` (paths below the folder) and ``features`` (N, d) float32,
                with ``query`` also ``query_names``, ``neighbor_names`` and ``neighbor_similarities`` (Q,
                num_neighbors); or a table of names and features, ``.csv`` or ``.parquet``.
            layer: the features: ``code``, ``fc``, or ``local`` (the flattened last convolutional map).
            query: an image file or a folder of images whose nearest neighbours (cosine) among the input are listed.
            num_neighbors: neighbours per query image.
            batch_size: images per batch.
            on_error: at images that can't be read ``stop`` and name all of them, or ``skip`` them.

        Returns:
            A summary for the terminal.

        Raises:
            ValueError: if a number is below 1, the output has another ending, or there is no image or one that can't be
                read.
        """
        if batch_size < 1 or num_neighbors < 1:
            raise ValueError(f"batch_size ({batch_size}) and num_neighbors ({num_neighbors}) must be at least 1")
        check_ending(output, FEATURE_FILES)
        names, features = self._encode_files(input, layer, batch_size, on_error)
        arrays: dict[str, Any] = {}
        report = [f"{len(names)} images, {features.shape[1]} features each ({layer}) -> {output}"]
        if query is not None:
            query_names, query_features = self._encode_files(query, layer, batch_size, on_error)
            similarities, indices = nearest_neighbors(features, query_features, min(num_neighbors, len(names)))
            arrays["query_names"] = np.array(query_names)
            arrays["neighbor_names"] = np.array(names)[indices.numpy()]
            arrays["neighbor_similarities"] = similarities.numpy()
            for name, row, scores in zip(query_names, arrays["neighbor_names"], similarities.tolist(), strict=True):
                found = ", ".join(f"{neighbor} ({score:.3f})" for neighbor, score in zip(row, scores, strict=True))
                report.append(f"{name}: {found}")
        write_features(output, names, features, arrays)
        return "\n".join(report)

    def _encode_files(
        self, path: Path, layer: Representation, batch_size: int, on_error: Literal["stop", "skip"]
    ) -> tuple[list[str], Tensor]:
        prefix = "" if layer == "code" else f"{layer}/"
        return encode_files(
            self, path, lambda images: representations(self.encoder(images))[prefix], batch_size, on_error
        )
