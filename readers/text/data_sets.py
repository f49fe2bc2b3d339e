"""Hugging Face data sets with a column of text."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import DataError
from .files import SPLITS

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

COLUMNS = ("text", "sentence")
ROWS = 1000  # read at once


def lines_by_split(splits: "DatasetDict", text_column: str | None, where: str) -> dict[str, Iterator[str]]:
    """The rows of the splits ``train``, ``valid`` and ``test`` as lines of text.

    Args:
        splits: the data set.
        text_column: the column of text; None: ``text`` or ``sentence``, else the only column.
        where: what messages call the data set.

    Raises:
        DataError: a split or the column is missing; while the lines are read: the column isn't text.
    """
    lines = {}
    for split, names in SPLITS.items():
        name = next((key for key in splits if any(key.startswith(part) for part in names)), None)
        if name is None:
            raise DataError(f"{where} has no split {names[0]}, only {', '.join(splits)}; it needs train, valid, test")
        columns = splits[name].column_names
        column = text_column or next((key for key in COLUMNS if key in columns), columns[0])
        if column not in columns or (text_column is None and column not in COLUMNS and len(columns) > 1):
            raise DataError(f"{where} has the columns {', '.join(columns)}: set data.text_column to the one with text")
        lines[split] = _rows(splits[name], column, f"{where}: the column {column} of {name}")
    return lines


def _rows(part: "Dataset", column: str, what: str) -> Iterator[str]:
    """The rows of a column, read as they are asked for: the data set may be larger than memory."""
    for rows in part.select_columns([column]).iter(ROWS):
        for line in rows[column]:
            if not isinstance(line, str):
                raise DataError(f"{what} is not text: set data.text_column")
            yield line
