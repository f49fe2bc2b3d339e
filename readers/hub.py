"""Data sets of Hugging Face: from the hub, asked once, or from a folder of parquet files."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import DataError, one_line

if TYPE_CHECKING:
    from datasets import DatasetDict

TIMEOUT_SECONDS = 10
# Where the hub keeps the parquet files that it made of data sets whose loading is a script, which nobody runs any more.
PARQUET_REVISION = "refs/convert/parquet"


def load_from_hub(hub_id: str, config: str | None = None) -> "DatasetDict":
    """All splits of a data set, from the hub or, where that is out of reach, from ``datasets``' own cache.

    Args:
        hub_id: ``owner/name``.
        config: one of the configurations of a data set that has several.

    Raises:
        DataError: neither has it.
    """
    import datasets

    with _offline_unless_hub_answers(hub_id):
        try:
            try:
                return datasets.load_dataset(hub_id, config)
            except RuntimeError as error:
                if "script" not in str(error):
                    raise
                return datasets.load_dataset(hub_id, config, revision=PARQUET_REVISION)
        except Exception as error:
            if "Config name is missing" in str(error):
                raise _no_config(hub_id, error) from error
            raise DataError(
                f"the Hugging Face hub cannot be reached for {hub_id}: connect to the network, or give "
                f"--data.source=PATH (your copy) or --data.source=sample (made on the spot). Reason: {one_line(error)}"
            ) from error


@contextlib.contextmanager
def parquet_folder(root: Path, config: str | None = None) -> "Iterator[DatasetDict]":
    """All splits of a data set whose parquet files lie below a folder; to be read within the context.

    Args:
        root: in the hub's layout: splits are told by the names of the files, configurations by sub-folders.
        config: one of the configurations of a data set that has several.

    Raises:
        DataError: it can't be read.
    """
    import datasets

    if config is not None and (root / config).is_dir():
        root, config = root / config, None
    # `datasets` would keep a second copy of the files for good.
    with tempfile.TemporaryDirectory() as cache, _no_progress_bars():
        try:
            yield datasets.load_dataset(str(root), config, cache_dir=cache)
        except DataError:
            raise
        except Exception as error:  # of what is in the files, `datasets` checks little
            if "Config name is missing" in str(error):
                raise _no_config(str(root), error) from error
            raise DataError(f"datasets cannot read {root}: {one_line(error)}") from error


def _no_config(where: str, error: Exception) -> DataError:
    return DataError(f"{where} has several configurations, choose one with --data.hub_config: {one_line(error)}")


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


@contextlib.contextmanager
def _no_progress_bars() -> Iterator[None]:
    import datasets

    enabled = datasets.utils.logging.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if enabled:
            datasets.enable_progress_bars()
