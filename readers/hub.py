"""Data sets in the layout of the Hugging Face hub: from the hub itself, or from a folder of parquet files."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import DataError, one_line

if TYPE_CHECKING:
    from datasets import DatasetDict

TIMEOUT_SECONDS = 10
# The branch where the hub keeps its parquet copy of data sets that are scripts, which `datasets` no longer runs.
PARQUET_REVISION = "refs/convert/parquet"


def load_from_hub(hub_id: str, config: str | None = None) -> "DatasetDict":
    """All splits of a data set, from the hub or, where that is out of reach, from the cache of ``datasets``.

    Args:
        hub_id: ``owner/name``.
        config: one of its configurations, if it has several.

    Raises:
        DataError: neither has it.
    """
    import datasets

    with _offline_unless_hub_answers(hub_id) as silence:
        try:
            try:
                return datasets.load_dataset(hub_id, config)
            except RuntimeError as error:
                if "script" not in str(error):
                    raise
                # That branch has a folder for each configuration, and no list of them.
                return datasets.load_dataset(hub_id, data_dir=config, revision=PARQUET_REVISION)
        except Exception as error:
            _check_config(hub_id, error)
            if silence is not None:
                problem, way_out = "cannot be reached for", "connect to the network"
            elif not isinstance(error, datasets.exceptions.DatasetNotFoundError):
                problem, way_out = "answers, but reading failed for", "see the reason"
            elif "gated" in str(error):
                problem, way_out = "gives no access to", "ask for it on the data set's page and log in (hf auth login)"
            else:
                problem, way_out = "has no data set", "correct --data.hub_id"
            raise DataError(
                f"the Hugging Face hub {problem} {hub_id}: {way_out}, or give --data.source=PATH (your copy) or "
                f"--data.source=sample (made at load time). Reason: {_reason(silence or error)}"
            ) from error


@contextlib.contextmanager
def parquet_folder(root: Path, config: str | None = None) -> "Iterator[DatasetDict]":
    """All splits of a data set whose parquet files are in a folder; to be read within the context.

    Args:
        root: in the hub's layout: file names tell the splits, sub-folders the configurations.
        config: one of its configurations, if it has several.

    Raises:
        DataError: it can't be read.
    """
    import datasets

    if config is not None and (root / config).is_dir():
        root, config = root / config, None
    # `datasets` would keep a second copy of the files for good.
    with tempfile.TemporaryDirectory() as cache, _no_progress_bars():
        try:
            splits = datasets.load_dataset(str(root), config, cache_dir=cache)
        except Exception as error:  # `datasets` checks little of what the files hold
            _check_config(str(root), error)
            raise DataError(f"datasets cannot read {root}: {_reason(error)}") from error
        yield splits


def _reason(error: BaseException) -> str:
    """The message of an error of ``datasets``, which may lie behind one that says only that there was one."""
    import datasets

    while isinstance(error, datasets.exceptions.DatasetGenerationError) and error.__cause__ is not None:
        error = error.__cause__
    return one_line(error)


def _check_config(where: str, error: Exception) -> None:
    """Raises DataError if an error of ``datasets`` is about the configuration."""
    if "Config name is missing" in str(error) or "BuilderConfig" in str(error):
        raise DataError(f"{where}: choose a configuration with --data.hub_config. {one_line(error)}") from error


@contextlib.contextmanager
def _offline_unless_hub_answers(hub_id: str) -> Iterator[Exception | None]:
    """Ask the hub once, for a few seconds at most; without an answer ``datasets`` looks only into its own cache.

    Left alone it retries each file: half a minute where the name does not resolve, much longer where a firewall drops
    the packets. Yields why there was no answer.

    Raises:
        DataError: no data set can have this name.
    """
    import datasets
    import huggingface_hub

    before, silence = datasets.config.HF_HUB_OFFLINE, None
    try:
        huggingface_hub.HfApi().dataset_info(hub_id, timeout=TIMEOUT_SECONDS)
    except huggingface_hub.errors.HFValidationError as error:
        raise DataError(
            f"'{hub_id}' is no data set's name on the Hugging Face hub: correct --data.hub_id (owner/name). "
            f"Reason: {one_line(error)}"
        ) from error
    except huggingface_hub.errors.RepositoryNotFoundError:
        pass  # an answer, too: `datasets` says it better
    except Exception as error:
        datasets.config.HF_HUB_OFFLINE, silence = True, error
    try:
        yield silence
    finally:
        datasets.config.HF_HUB_OFFLINE = before


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
