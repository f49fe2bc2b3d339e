"""Data sets from the Hugging Face hub: asked once, and one line where it does not answer."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from datamodules.errors import DataError, one_line

if TYPE_CHECKING:
    from datasets import DatasetDict

TIMEOUT_SECONDS = 10


def load_from_hub(hub_id: str, revision: str | None = None) -> "DatasetDict":
    """All splits of a data set, from the hub or, where that is out of reach, from ``datasets``' own cache.

    Args:
        hub_id: ``owner/name``.
        revision: branch, tag or commit; None is the hub's default.

    Raises:
        DataError: neither has it.
    """
    import datasets

    options = {} if revision is None else {"revision": revision}
    with _offline_unless_hub_answers(hub_id):
        try:
            return datasets.load_dataset(hub_id, **options)
        except Exception as error:
            raise DataError(
                f"the Hugging Face hub cannot be reached for {hub_id}: connect to the network, or give "
                f"--data.source=PATH (your copy) or --data.source=sample (made on the spot). Reason: {one_line(error)}"
            ) from error


@contextlib.contextmanager
def _offline_unless_hub_answers(hub_id: str) -> Iterator[None]:
    """Ask the hub once, for a few seconds at most; without an answer `datasets` looks only into its own cache.

    Left alone it tries each file again and again: half a minute where the name is not found, much longer where a
    firewall swallows the packets.
    """
    import datasets
    import huggingface_hub

    try:
        huggingface_hub.HfApi().dataset_info(hub_id, timeout=TIMEOUT_SECONDS)
    except Exception:
        before = datasets.config.HF_HUB_OFFLINE
        datasets.config.HF_HUB_OFFLINE = True
        try:
            yield
        finally:
            datasets.config.HF_HUB_OFFLINE = before
    else:
        yield
