"""Data sets of Hugging Face with a column of text."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import DataError
from .files import SPLITS

if TYPE_CHECKING:
    from datasets import DatasetDict

COLUMNS = ("text", "sentence")


def read_lines_of(splits: "DatasetDict", text_column: str | None, where: str) -> dict[str, Sequence[str]]:
    """The rows of ``train``, ``valid`` and ``test``, a line each.

    Args:
        splits: the data set.
        text_column: the column with the text; None: ``text`` or ``sentence``, else the only column.
        where: what to call the data set in a message.

    Raises:
        DataError: a split or the column isn't there, or isn't text.
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
            raise DataError(f"{where}: the column {column} of {name} holds something else than text")
    return lines
