"""Decoded images, kept as uint8 in a memory-mapped file in the user's cache folder."""

from collections.abc import Callable
from typing import Any

from readers.images import ImageArrays, forget_progress

from .cache import ArrayCache, Stored

CACHE_VERSION = 3  # raise it when the same source would be decoded differently


class ImageCache:
    """Decoded images in an ``ArrayCache``.

    Args:
        key: plain values that determine the content: the source's files, the image size and the channels.

    Attributes:
        folder: the folder of this cache.
    """

    def __init__(self, key: dict[str, Any]) -> None:
        self._cache = ArrayCache("images", CACHE_VERSION, key)
        self.folder = self._cache.folder

    def load_or_build(self, build: Callable[[], ImageArrays]) -> ImageArrays:
        """The stored images, or those of ``build()`` after storing them; they are memory-mapped.

        Images that ``decode_all`` has written into ``folder`` are not copied.

        Raises:
            DataError: the cache folder cannot be written.
        """

        def build_stored() -> Stored:
            with self._cache.writing():
                built = build().with_fingerprint()
            about = {
                "num_train": built.num_train,
                "class_names": list(built.class_names),
                "fingerprint": built.fingerprint,
                "num_val": built.num_val,
                "unreadable": built.unreadable,
                "scaled": built.scaled,
            }
            return {"images": built.images, "labels": built.labels}, about

        arrays, about = self._cache.load_or_build(build_stored)
        forget_progress(self.folder)
        return ImageArrays(
            images=arrays["images"],
            labels=arrays["labels"],
            num_train=about["num_train"],
            class_names=tuple(about["class_names"]),
            fingerprint=about["fingerprint"],
            num_val=about["num_val"],
            unreadable=tuple((row, reason) for row, reason in about["unreadable"]),
            scaled=about["scaled"],
        )
