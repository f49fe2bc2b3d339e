"""Decoded images, kept as uint8 in a memory-mapped file in the user's cache folder."""

from collections.abc import Callable
from typing import Any

from readers.images import ImageArrays

from .cache import ArrayCache, Stored

CACHE_VERSION = 1  # raise it when the same source would be decoded differently


class ImageCache:
    """Decoded images in an ``ArrayCache``.

    Args:
        key: plain values that determine the content: the source's files and the image size.

    Attributes:
        folder: the folder of this cache.
    """

    def __init__(self, key: dict[str, Any]) -> None:
        self._cache = ArrayCache("images", CACHE_VERSION, key)
        self.folder = self._cache.folder

    def load_or_build(self, build: Callable[[], ImageArrays]) -> ImageArrays:
        """The stored images, or those of ``build()`` after storing them; they are memory-mapped.

        Raises:
            DataError: the cache folder cannot be written.
        """

        def build_stored() -> Stored:
            built = build().with_fingerprint()
            about = {
                "num_train": built.num_train,
                "class_names": list(built.class_names),
                "fingerprint": built.fingerprint,
            }
            return {"images": built.images, "labels": built.labels}, about

        arrays, about = self._cache.load_or_build(build_stored)
        names, fingerprint = tuple(about["class_names"]), about["fingerprint"]
        return ImageArrays(arrays["images"], arrays["labels"], about["num_train"], names, fingerprint)
