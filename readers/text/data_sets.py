"""Hugging Face data sets with a column of text."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import DataError
from .files import SPLITS

if TYPE_CHECKING:
    from datasets import DatasetDict

COLUMNS = ("text", "sentence")


def lines_by_split(splits: "DatasetDict", text_column: str | None, where: str) -> dict[str, Sequence[str]]:
    """The rows of the splits ``train``, ``valid`` and ``test`` as lines of text.

    Args:
        splits: the data set.
        text_column: the column of text; None: ``text`` or ``sentence``, else the only column.
        where: what messages call the data set.

    Raises:
        DataError: a split or the column is missing, or the column isn't text.
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
        lines[split] = splits[name][column][:]
        if not all(isinstance(line, str) for line in lines[split]):
            raise DataError(f"{where}: the column {column} of {name} is not text: set data.text_column")
    return lines
